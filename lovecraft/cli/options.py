"""A config's options as flags: `--max-steps 10`, `--dataset.block-size=512`, `--no-dataset.shuffle`, `--save none`.

Each flag's text is parsed by its option's type; all together become one more subclass. Sections are swapped first, so
that `--optimizer AdamW --optimizer.betas 0.9,0.95` is understood in any order.
"""

import shlex
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from lovecraft.cli.words import is_flag
from lovecraft.config import base, values
from lovecraft.config.base import Option, Origin
from lovecraft.config.load import find, load
from lovecraft.config.names import close, flag_of, nearest
from lovecraft.config.override import override
from lovecraft.config.resolve import choices, walk
from lovecraft.config.values import TRUTH
from lovecraft.errors import ConfigError

DASHES = "‐‑‒–—―−"
LOCATED = {"ModelConfig": "path", "DatasetConfig": "source"}
"""The option by which a section of a kind names what lies on disk or on the hub."""


@attrs.frozen
class Flag:
    """One flag as it was typed. `text` is None for `--x` and `--no-x` without a value."""

    name: str
    text: str | None

    @property
    def path(self) -> str:
        """The option's dotted path that the flag's name spells."""
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def said(self) -> Origin:
        """The flag's words, as the origin of its value."""
        return Origin("", said=self.name if self.text is None else f"{self.name} {shlex.quote(self.text)}")


def apply(cls: Any, words: Sequence[str], root: Path | None) -> Any:
    """Return the subclass of `cls` that the option words describe; `cls` itself where there are none.

    `root` is the workspace, whose configs a section may be swapped for by name.
    Raises ConfigError for an unknown option, with the closest one, and for a value of the wrong type.
    """
    flags = list(read(words))
    for depth in range(max((flag.path.count(".") for flag in flags), default=0) + 1):  # the outer decide what is inside
        options = _options(cls)
        found = [f for f in flags if f.path.count(".") == depth and f.path in options and options[f.path].section]
        swaps = _once((flag.path, flag) for flag in found)
        changes = {path: _section(flag, options[path], root) for path, flag in swaps.items()}
        cls = override(cls, changes, {path: flag.said for path, flag in swaps.items()})
        flags = [flag for flag in flags if flag not in found]
    options = _options(cls)
    said = _once((_path(flag, options, cls), flag) for flag in flags)
    changes = {path: _value(flag, options[path], root, negated=path != flag.path) for path, flag in said.items()}
    return override(cls, changes, {path: flag.said for path, flag in said.items()})


def _once(given: Iterable[tuple[str, Flag]]) -> dict[str, Flag]:
    """Return each option's flag by its path. Raises ConfigError where one option is given two, however spelled."""
    found: dict[str, Flag] = {}
    for path, flag in given:
        if path in found:
            raise ConfigError(f"{found[path].said.said} and {flag.said.said} set the same option", hint="give one")
        found[path] = flag
    return found


def read(words: Sequence[str]) -> Iterator[Flag]:
    """Yield the flags that the words spell. Raises ConfigError for a word that is neither a flag nor a flag's value."""
    rest, before = list(words), Flag("", None)
    while rest:
        word = rest.pop(0)
        if word[0:1] in DASHES:  # as word processors and web pages make them of hyphens
            raise ConfigError(f"{word!r} begins with a typographic dash", hint=f"write --{word.lstrip(DASHES + '-')}")
        if not word.startswith("--"):
            raise ConfigError(f"unexpected {word!r}", hint=_instead(word, before))
        name, joined, text = word.partition("=")
        before = Flag(name, text if joined else rest.pop(0) if rest and not is_flag(rest[0]) else None)
        yield before


def _instead(word: str, before: Flag) -> str:
    """Return what to write for a word that is no flag, after another one."""
    if word.startswith("-"):
        value = f"; a value that begins with - is joined: {before.name}={word}" if before.name else ""
        return f"an option begins with --{value}"
    if "=" in word:
        return f"write --{word}"
    value = f"; a list is one word: {before.name} {before.text},{word}" if before.text else ""
    return f"the config comes first, then --option value{value}"


def _options(cls: Any) -> dict[str, Option]:
    return {path: owner.__options__[name] for path, owner, name in walk(cls)}


def _path(flag: Flag, options: dict[str, Option], cls: Any) -> str:
    """Return the path of the option that a flag means; `--no-x` means x. Raises ConfigError where there is none."""
    negated = flag.name.startswith("--no-") and flag.path not in options
    path = flag.path.removeprefix("no_") if negated else flag.path
    if path not in options:
        if negated and (near := nearest(path, [one for one in options if _boolean(options[one])], ".")):
            said = f"; did you mean {' or '.join('--no-' + flag_of(one)[2:] for one in near)}?"
        else:
            said = _closest(flag.path, options, cls)
        raise ConfigError(f"no option {flag.name}{said}", hint="add --help to list this config's options")
    if options[path].section is not None:
        how = f"{flag_of(path)} none switches it off" if options[path].optional else f"{path} cannot be switched off"
        raise ConfigError(f"no option {flag.name}", hint=how)
    return path


def _boolean(option: Option) -> bool:
    plain, _ = values.unwrap(option.hint)
    return bool in (plain, *typing.get_args(plain))


def _value(flag: Flag, option: Option, root: Path | None, *, negated: bool) -> Any:
    boolean = _boolean(option)
    if negated and (flag.text is not None or not boolean):
        what = f"takes no value, got {flag.text!r}" if boolean else f"is no flag: {option.name} is not true or false"
        raise ConfigError(f"{flag.name} {what}")
    if flag.text is None and not boolean:
        raise ConfigError(f"{flag.name} needs a value: {values.name_type(option.hint)}")
    if flag.text is None:
        return not negated
    try:
        return values.parse(flag.text, option.hint, root)
    except ValueError as error:
        raise ConfigError(f"{flag.said.said}: {error}") from None


def _section(flag: Flag, option: Option, root: Path | None) -> Any:
    """Return the class that a section is swapped for: a library class or a config of the workspace by name, or None."""
    kind = option.section
    assert kind is not None
    known = choices(kind)
    can = ", ".join([*known, *(["none"] if option.optional else [])])
    if flag.text is None:
        raise ConfigError(f"{flag.name} needs a name: {can}, or a config")
    if flag.text.lower() == "none":
        if not option.optional:
            raise ConfigError(f"{flag.said.said}: {option.name} cannot be switched off", hint=f"it can be {can}")
        return None
    if flag.text in known:
        return known[flag.text]
    named = len(known) > 1 or option.optional  # else no class of the library was meant, but a config
    if root is None or (named and flag.text.isidentifier() and not (root / "projects" / flag.text).is_dir()):
        meant = close(flag.text, known)
        if option.optional and flag.text.lower() in TRUTH:
            meant = [*known] if TRUTH[flag.text.lower()] else ["none"]
        raise ConfigError(
            f"{flag.said.said}: expected {can}, or a config", hint=f"write {flag.name} {meant[0]}" if meant else ""
        )
    name = str(root / flag.text[2:]) if flag.text.startswith("//") else flag.text
    if kind.__name__ in LOCATED and _is_location(name, root):
        hint = f"write {flag.name}.{LOCATED[kind.__name__]} {shlex.quote(flag.text)}"
        raise ConfigError(f"{flag.said.said}: expected a config", hint=hint)
    try:
        return load(name, root=root, kind=kind).cls
    except ConfigError as error:
        raise ConfigError(f"{flag.said.said}: {error.message}", hint=error.hint) from None


def _is_location(name: str, root: Path) -> bool:
    """Return whether a name is that of something on the hub or on disk, and of no config."""
    try:
        return (name.startswith("hf:") or Path(name).exists()) and not find(name, root)
    except ConfigError:
        return not name.endswith(".py")


def _closest(path: str, options: dict[str, Option], cls: Any) -> str:
    """Say that the option's section is off, or what it has; else suggest the flags nearest in name, wherever nested."""
    section, _, name = path.rpartition(".")
    if section in options and options[section].section is not None:
        inside = {one: owner for outer, owner, one in walk(cls) if outer == f"{section}.{one}"}
        if not inside:
            return (
                f": {section} is {'switched off' if options[section].optional else 'set to None, which it cannot be'}"
            )
        if not close(name, inside) and all(other.rpartition(".")[2] != name for other in options):
            owner = base.library_class(next(iter(inside.values()))).__name__
            return f": {owner} has no {name}; it has {', '.join(inside)}"
    near = nearest(path, options, ".")
    return f"; did you mean {' or '.join(map(flag_of, near))}?" if near else ""
