"""From a config class to the frozen instance tree that the library works with, and to the rows that people read.

One walk does both, so what is shown is what runs. All problems are collected, each with its place.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs

from lovecraft.config import base, source, values
from lovecraft.config.base import Config, Derived, Option, Origin
from lovecraft.errors import ConfigError

T = TypeVar("T", bound=Config)


@attrs.frozen
class Row:
    """One option of a resolved config. `history` lists (raw value, origin), the winning one first."""

    path: str
    value: Any
    option: Option
    owner: Any = attrs.field(eq=False)
    history: list[tuple[Any, Origin]] = attrs.field(eq=False)
    quiet: bool = False
    """Whether the option, or a section around it, has no effect on the result."""

    @property
    def origin(self) -> Origin:
        """Where the value comes from."""
        return self.history[0][1] if self.history else base.origin_of(self.owner, self.option.name)

    @property
    def comment(self) -> str:
        """The comment that ends the line of the value, or of the last line that computes it: its reason."""
        raw = self.history[0][0] if self.history else None
        if isinstance(raw, Derived):
            return source.last_comment(raw.function)
        return source.comment(self.origin.file, self.origin.line) if self.origin.line else ""

    @property
    def sentence(self) -> str:
        """The sentence that documents the option."""
        return source.sentence(self.owner, self.option.name)

    @property
    def default(self) -> Any:
        """What the nearest class of the library says; None where the option is required."""
        library = base.library_class(self.owner)
        if self.option.name not in library.__options__:
            library = next(c for c in reversed(self.owner.__mro__) if self.option.name in getattr(c, "__options__", {}))
        value = next((v for v, _ in base.history(library, self.option.name)), None)
        if isinstance(value, type):
            return base.library_class(value).__name__
        if isinstance(value, Derived):
            return None
        return value if value is None else values.structure(value, self.option.hint)


def resolve(config: type[T] | T) -> T:
    """Return the frozen instance tree of a config class; an instance comes back unchanged.

    Raises ConfigError that lists every problem, one a line, as `file:line: option: what is wrong`.
    """
    if not isinstance(config, type):
        return config
    instance, problems = _settle(config, "")
    if problems:
        raise ConfigError("\n".join(problems))
    return instance


def _settle(cls: Any, path: str) -> tuple[Any, list[str]]:
    """Fill an instance: plain values and sections first, then derived values, which may read the former."""
    config = object.__new__(base.named(cls))
    problems: list[str] = []
    late: list[str] = []
    for name, option in cls.__options__.items():
        set_values = base.history(cls, name)
        if not set_values:
            where = next((base.place(o) for o in cls.__origins__.values()), cls.__module__)
            problems.append(f"{where}: {path}{name}: required; set it in {base.named(cls).__qualname__}")
            continue
        raw, origin = set_values[0]
        if isinstance(raw, Derived):
            late.append(name)
            continue
        try:
            if option.section is None:
                config.__dict__[name] = values.structure(raw, option.hint)
            else:
                config.__dict__[name], inner = _settle_section(option, raw, f"{path}{name}.")
                problems += inner
        except ValueError as error:
            problems.append(f"{base.place(origin)}: {path}{name}: {error}")
    if problems:  # a derived value would only echo them
        return config, problems
    for name in late:
        try:
            getattr(config, name)
        except ConfigError as error:
            problems.append(error.message.replace(f": {name}: ", f": {path}{name}: ", 1))
    return config, problems


def _settle_section(option: Option, raw: Any, path: str) -> tuple[Any, list[str]]:
    if raw is None and option.optional:
        return None, []
    kind = option.section
    assert kind is not None
    if isinstance(raw, type) and issubclass(raw, kind):
        return _settle(raw, path)
    if isinstance(raw, kind):
        return raw, []
    got = getattr(raw, "__qualname__", None) or values.spell(raw)
    raise ValueError(f"expected a {kind.__name__}{' or none' if option.optional else ''}, got {got}")


def rows(cls: Any) -> list[Row]:
    """Return every option of a config class, in the order of declaration, sections flattened into dotted paths.

    A swappable or optional section has a row of its own, whose value is its library class's name or None.
    Raises ConfigError like `resolve`.
    """
    return list(_rows(cls, resolve(cls), "", quiet=False))


def _rows(cls: Any, config: Any, path: str, quiet: bool) -> Iterator[Row]:
    for name, option in cls.__options__.items():
        value = getattr(config, name)
        hidden = quiet or option.quiet
        row = Row(path + name, value, option, cls, base.history(cls, name), hidden)
        if option.section is None:
            yield row
            continue
        if option.optional or len(choices(option.section)) > 1:
            yield attrs.evolve(row, value=None if value is None else base.library_class(type(value)).__name__)
        if value is not None:
            inner = row.history[0][0]
            inner = inner if isinstance(inner, type) else type(value)
            yield from _rows(inner, value, f"{path}{name}.", hidden)


def choices(kind: Any) -> dict[str, Any]:
    """Return the library's classes that a section of type `kind` may be, by name."""
    found = {} if any(c.__module__ == kind.__module__ for c in kind.__subclasses__()) else {kind.__name__: kind}
    for child in kind.__subclasses__():
        if child.__module__ == kind.__module__ and not child.__anonymous__:
            found.update(choices(child))
    return found


def fingerprint_values(cls: Any, root: Path | None) -> dict[str, Any]:
    """Return what the fingerprint counts: path → JSON value of every option that can change the result."""
    return {row.path: values.export(row.value, root) for row in rows(cls) if not row.quiet}
