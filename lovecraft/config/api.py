"""What `lc show` and `lc diff` print, and the config that a name means, in scripts and notebooks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from lovecraft.config import base, origin
from lovecraft.config import load as loading
from lovecraft.config import override as overriding
from lovecraft.config.base import Config
from lovecraft.config.diff import Change, Entry, entries
from lovecraft.config.diff import diff as differences
from lovecraft.config.modules import active_root
from lovecraft.errors import ConfigError

T = TypeVar("T", bound=Config)
Named = type[Config] | Config | str | Path
"""A config class, an instance, or what names one on the command line; for a run its directory or its record, too."""


class Text(str):
    """A text that prompts and notebooks show as it prints."""

    def __repr__(self) -> str:
        return str(self)


class Changes(list[Change]):
    """The options that differ; printed as `lc diff` does."""

    def __repr__(self) -> str:
        from lovecraft.config.render import changes

        return changes(self) or "no difference"


@overload
def load(name: str | Path | None = None) -> Any:
    """Return a config of any kind, of which checkers know nothing."""


@overload
def load(name: str | Path | None = None, *, kind: type[T]) -> type[T]:
    """Return a config of the given kind."""


def load(name: str | Path | None = None, *, kind: type[T] | None = None) -> Any:
    """Return the config class that `name` means, as on the command line: `load("finetune_lovecraft/default")`.

    Raises ConfigError for a name that means nothing, and where the config is not of the given kind.
    """
    return loading.load(None if name is None else str(name), kind=Config if kind is None else kind).cls


def override(cls: type[T], changes: Mapping[str, Any]) -> type[T]:
    """Return a subclass of `cls` with dotted `changes`: `{"max_steps": 10, "dataset.block_size": 512, "save": None}`.

    Their origin is the line of the call. Raises ConfigError for a path that names no option.
    """
    if not (isinstance(cls, base._Meta) and issubclass(cls, Config)):
        got = f"an instance of {type(cls).__qualname__}" if isinstance(cls, Config) else repr(cls)
        raise ConfigError(f"expected a config class, got {got}", hint="lovecraft.load(name) returns that of a name")
    if not isinstance(changes, Mapping):
        raise ConfigError(f"expected values by option, got {changes!r}; write {{'option': value}}")
    return overriding.override(cls, changes, dict.fromkeys(changes, origin.calling()))


def show(config: Named) -> Text:
    """Return what `lc show` prints into a pipe: every option, its value, origin and reason.

    Raises ConfigError for a config with problems, all of them listed.
    """
    from lovecraft.config.render import table

    return Text(table(_entries(config)))


def diff(a: Named, b: Named) -> Changes:
    """Return the options whose values differ, each with both values and origins.

    Raises ConfigError for a config with problems, all of them listed.
    """
    return Changes(differences(_entries(a), _entries(b)))


def _entries(config: Named) -> list[Entry]:
    if isinstance(config, str | Path):
        from lovecraft.config import record

        if run := record.find_run(str(config)):
            return record.options_of(record.read(run / record.NAME))
        found = loading.load(str(config))
        return entries(found.cls, found.root)
    if not isinstance(config, base._Meta | Config):
        raise ConfigError(f"expected a config class, an instance or a name, got {config!r}")
    return entries(config, active_root())
