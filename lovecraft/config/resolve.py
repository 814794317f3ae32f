"""From a config class to the frozen instance tree that the library works with, and to the rows that people read.

One walk does both, so what is shown is what runs. All problems are collected, each with its place.
"""

import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, overload

import attrs

from lovecraft.config import base, source, values
from lovecraft.config.base import Config, Derived, Option, Origin
from lovecraft.config.modules import OURS, in_order
from lovecraft.config.names import nearest
from lovecraft.config.origin import file_of
from lovecraft.errors import ConfigError

T = TypeVar("T", bound=Config)


OVERRIDDEN = Origin("", said="an override")
"""Where a value is from of which only an instance is there."""


@attrs.frozen
class Row:
    """One option of a resolved config. `history` lists (raw value, origin), the winning one first."""

    path: str
    value: Any
    option: Option
    owner: Any = attrs.field(eq=False)
    history: list[tuple[Any, Origin]] = attrs.field(eq=False)
    quiet: bool
    """Whether the option, or a section around it, has no effect on the result."""
    own: bool
    """Whether a user declared it, or a section around it, so that only their derived values can read it."""

    @property
    def origin(self) -> Origin:
        """Where the value comes from."""
        return self.history[0][1]

    @property
    def comment(self) -> str:
        """The comment that ends the line of the value, or of the last line that computes it: its reason."""
        raw, _ = self.history[0]
        if isinstance(raw, Derived):
            return source.last_comment(raw.function)
        return source.comment(self.origin.file, self.origin.line) if self.origin.line else self.origin.comment

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


@overload
def resolve(config: type[T]) -> T:
    """Of a class, its instance."""


@overload
def resolve(config: T) -> T:
    """Of an instance, itself."""


def resolve(config: Any) -> Any:
    """Return the frozen instance tree of a config class; an instance comes back unchanged.

    Raises ConfigError that lists every problem, one a line, as `file:line: option: what is wrong`.
    """
    if isinstance(config, Config):
        return config
    if not isinstance(config, base._Meta):
        raise ConfigError(f"expected a config class or an instance, got {config!r}")
    if "__resolved__" not in vars(config):  # all of a process shall see the same, also of what draws random numbers
        instance, problems = _settle(config, "", base.written(config))
        if problems:
            raise ConfigError("\n".join(in_order(problems)))
        type.__setattr__(config, "__resolved__", instance)
    return vars(config)["__resolved__"]


def _settle(cls: Any, path: str, where: str) -> tuple[Any, list[str]]:
    """Fill an instance: plain values and sections first, then derived values, which may read the former.

    `where` is the place to blame for what is missing. Return what could be filled, and the problems.
    """
    config = object.__new__(base.named(cls))
    problems: list[str] = []
    late: list[str] = []
    wrong: set[str] = set()
    for name, option in cls.__options__.items():
        before = len(problems)
        raw, origin = next(iter(base.history(cls, name)), (attrs.NOTHING, None))
        if origin is None:
            problems.append(f"{where}: {path}{name}: required; set it in {_to_edit(cls)}")
        elif isinstance(raw, Derived):
            late.append(name)
        else:
            try:
                if option.section is None:
                    config.__dict__[name] = values.structure(raw, option.hint)
                else:
                    config.__dict__[name], inner = _settle_section(option, raw, f"{path}{name}.", origin)
                    problems += inner
            except ValueError as error:
                problems.append(f"{base.place(origin)}: {path}{name}: {error}")
        wrong |= {name} if len(problems) > before else set()
    problems += _unread(cls, path)
    seen = _without(cls, config, wrong) if wrong else config
    for name in late:
        try:
            config.__dict__[name] = getattr(seen, name)
        except _Wrong:
            continue
        except ConfigError as error:
            problems.append(error.message.replace(f": {name}: ", f": {path}{name}: ", 1))
    return config, list(dict.fromkeys(problems))  # one that reads another that is wrong says the same


class _Wrong(ConfigError):
    """A derived value reads one that is wrong: its own problem would only be an echo."""


def _without(cls: Any, config: Any, wrong: set[str]) -> Any:
    """Return an instance with the right values of another, on which reading a wrong one raises `_Wrong`."""

    def stop(self: Any) -> Any:
        raise _Wrong("")

    body: dict[str, Any] = {name: Derived(stop) for name in wrong}
    kind: Any = type.__new__(base._Meta, cls.__name__, (cls,), {**body, "__anonymous__": True})
    seen = object.__new__(kind)
    seen.__dict__.update({name: value for name, value in vars(config).items() if name not in wrong})
    return seen


def _unread(cls: Any, path: str) -> Iterator[str]:
    """Yield what users add to a class of the library and nothing reads: most were meant for an option that there is.

    A derived value may be there to be shown, so that only one whose name is nearly an option's is a mistake.
    """
    library = base.library_class(cls)
    if not (theirs := [name for name in cls.__options__ if name not in library.__options__]):
        return
    files = {c.__file__ for c in cls.__mro__ if isinstance(c, base._Meta) and not base.is_library(c)}
    loaded = {file_of(module) for module in sys.modules if module.partition(".")[0] in OURS} - {""}
    known = [path for path, _, _ in walk(library)]
    for name in theirs:
        nested = [path for path in known if path.endswith(f".{name}")]
        raw, origin = next(iter(base.history(cls, name)), (None, None))
        close = not isinstance(raw, Derived) or nested or get_close_matches(name, library.__options__, 1, 0.8)
        if close and not source.reads(name, files | loaded, nested):
            where = base.place(origin) if origin else base.written(cls, name)
            meant = " or ".join([*(nested or nearest(name, known, ".")), f"_{name}, a constant"])
            yield f"{where}: {path}{name}: no @derived reads this option of yours; did you mean {meant}?"


def walk(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield every option's path, class and name, those of the sections in use included."""
    for name, option in cls.__options__.items():
        yield prefix + name, cls, name
        if option.section is not None:
            section = next((raw for raw, _ in base.history(cls, name)), option.section)
            if isinstance(section, type) and issubclass(section, Config):  # else off, or wrong, as `resolve` will say
                yield from walk(section, f"{prefix}{name}.")


def _to_edit(cls: Any) -> str:
    """Return the class that a user would write a missing option in."""
    own = base.named(cls)
    return f"a subclass of {own.__name__}" if base.is_library(own) else own.__qualname__


def _settle_section(option: Option, raw: Any, path: str, origin: Origin) -> tuple[Any, list[str]]:
    if raw is None and option.optional:
        return None, []
    kind = option.section
    assert kind is not None
    right_kinds = tuple(choices(kind).values())
    if isinstance(raw, type) and issubclass(raw, right_kinds):
        return _settle(raw, path, base.place(origin) if base.is_library(base.named(raw)) else base.written(raw))
    if isinstance(raw, right_kinds):
        return raw, []
    right = [
        f"{raw.__name__.rpartition('.')[2]}.{name}"
        for name, value in (vars(raw).items() if isinstance(raw, ModuleType) else ())
        if isinstance(value, type) and issubclass(value, kind) and value.__module__ == raw.__name__
    ]
    what = right[0] if right else f"{', '.join(choices(kind))} or a subclass"
    a_kind = "a kind of " if isinstance(raw, type) and issubclass(raw, kind) else ""
    expected = f"{a_kind}{kind.__name__}{' or none' if option.optional else ''}"
    raise ValueError(f"expected {expected}, got {values.spell(raw)}; write {what}")


def rows(config: Any) -> list[Row]:
    """Return every option of a config class or an instance, in the order of declaration, sections flattened into paths.

    A swappable or optional section has a row of its own, whose value is its library class's name or None.
    Raises ConfigError like `resolve`.
    """
    return [row for row in all_rows(config) if row.option.section is None or _varies(row.option)]


def all_rows(config: Any) -> list[Row]:
    """Return the rows of a config, every section's among them, also of those that can be of one class only."""
    made = isinstance(config, Config)
    return list(_rows(type(config) if made else config, resolve(config), "", OVERRIDDEN if made else None))


def _varies(section: Option) -> bool:
    return section.optional or len(choices(section.section)) > 1


def rows_so_far(cls: Any) -> list[Row]:
    """Return the rows of what is right in a class that need not be complete; it raises nothing."""
    return list(_rows(cls, _settle(cls, "", "")[0], ""))


def _rows(cls: Any, config: Any, path: str, made: Origin | None = None, around: Row | None = None) -> Iterator[Row]:
    """Yield all rows of an instance of `cls`: one that was `made` there by a call, or that the class resolves to.

    `around` is the row of the section that it is.
    """
    quiet, own = (around.quiet, around.own) if around else (False, False)
    library = base.library_class(cls).__options__
    for name, option in cls.__options__.items():
        if name not in vars(config):
            continue
        value, history = vars(config)[name], base.history(cls, name)
        if made is not None and _differs(config, option, value, history):
            history = [(value, made), *history]
        row = Row(path + name, value, option, cls, history, quiet or option.quiet, own or name not in library)
        if option.section is None:
            yield row
            continue
        yield attrs.evolve(row, value=None if value is None else base.library_class(type(value)).__name__)
        if value is not None:
            raw, origin = history[0]
            inner = raw if isinstance(raw, type) else type(value)
            yield from _rows(inner, value, f"{path}{name}.", made if inner is raw else origin, row)


def _differs(config: Any, option: Option, value: Any, history: list[tuple[Any, Origin]]) -> bool:
    """Return whether an instance has another value than its class gives it; a derived one follows the others."""
    if not history:
        return True
    raw, _ = history[0]
    if option.section is not None:
        return (value and type(value)) is not (raw and base.named(raw))
    return bool(value != values.structure(raw.compute(config) if isinstance(raw, Derived) else raw, option.hint))


def choices(kind: Any) -> dict[str, Any]:
    """Return the classes that a section of type `kind` may be, by name: those of the module that declares it.

    What the library derives from is no choice itself; a user's class is one.
    """
    children = [c for c in kind.__subclasses__() if c.__module__ == kind.__module__ and not c.__anonymous__]
    found = {name: c for child in children for name, c in choices(child).items()}
    return found if found and base.is_library(kind) else {kind.__name__: kind, **found}


def fingerprint_values(cls: Any, root: Path | None) -> dict[str, Any]:
    """Return what the fingerprint counts: path → JSON value of every option of the library that can change the result.

    Options that users declare act through those of the library, which derive from them.
    """
    return {row.path: values.export(row.value, root) for row in rows(cls) if not (row.quiet or row.own)}
