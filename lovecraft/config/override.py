"""The command line is the last subclass: flags, records and keyword arguments all become one anonymous subclass."""

from collections.abc import Mapping
from typing import Any

from lovecraft.config import base
from lovecraft.config.base import Origin, _Body, _Meta
from lovecraft.config.names import did_you_mean
from lovecraft.errors import ConfigError


def override(cls: Any, changes: Mapping[str, Any], said: Mapping[str, Origin] | None = None) -> Any:
    """Return a subclass of `cls` with dotted `changes` (path → value, or class for a section).

    `said` gives each change its origin. Sections are swapped before what lies inside them is changed.
    Raises ConfigError for a path that names no option.
    """
    said = said or {}
    for path, value in changes.items():
        if isinstance(value, Mapping):
            right = {f"{path}.{name}": inner for name, inner in value.items()}
            raise ConfigError(f"{_place(said, path)}{path}: expected a value, got a dict; write {right}")
    own: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        if name not in cls.__options__:
            raise ConfigError(
                f"{_place(said, path)}{base.named(cls).__qualname__} has no option {name!r}"
                + did_you_mean(name, cls.__options__)
            )
        if rest:
            nested.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    for name, inner in nested.items():
        option = cls.__options__[name]
        section = own.get(name, getattr(cls, name, option.section))
        if not isinstance(section, _Meta):
            path = f"{name}.{next(iter(inner))}"
            what = "is switched off" if section is None and option.optional else "is not a section"
            raise ConfigError(f"{_place(said, path)}{name} {what}")
        own[name] = override(section, inner, {k: said[f"{name}.{k}"] for k in inner if f"{name}.{k}" in said})
    return _anonymous(cls, own, {name: _origin(cls, name, said, nested) for name in own}) if own else cls


def _origin(cls: Any, name: str, said: Mapping[str, Origin], nested: Mapping[str, Any]) -> Origin:
    """A section that was not swapped keeps its origin, whatever was changed inside it."""
    if name in said:
        return said[name]
    before = base.history(cls, name)  # empty where the section is required and a record fills it
    return before[0][1] if name in nested and before else Origin("", said="an override")


def _place(said: Mapping[str, Origin], path: str) -> str:
    return f"{base.place(said[path])}: " if path in said else ""


def _anonymous(cls: Any, own: dict[str, Any], origins: dict[str, Origin]) -> Any:
    body = _Body()
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    dict.update(body, {**own, **names})  # past __setitem__, which would note this very line as the origin
    body.origins = origins
    return _Meta(cls.__name__, (cls,), body, anonymous=True)
