"""What counts as the right value for an option, from Python or JSON (`structure`) and from a flag's text (`parse`).

cattrs does the dispatch on types; every hook here is strict. A value is normalised once (1 for a float option becomes
1.0), so that equal configs have equal fingerprints. Nothing else is converted.
"""

import json
import math
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union

import attrs
from cattrs import Converter

Location = Path | str
"""A path, or a `str` that starts with `hf:` and names something on the hub."""

quiet = "quiet"
"""Marks an option without effect on the result: it stays out of the fingerprint."""


@attrs.frozen
class Check:
    """A condition on a value, written in `Annotated[...]`; `words` ends the sentence "must be ..."."""

    words: str
    holds: Callable[[Any], bool] = attrs.field(eq=False)

    def __call__(self, value: Any) -> None:
        """Raise ValueError when the condition does not hold."""
        if not self.holds(value):
            raise ValueError(f"must be {self.words}, got {spell(value)}")


def gt(bound: float) -> Check:
    """Require more than `bound`."""
    return Check(f"more than {bound}", lambda value: value > bound)


def ge(bound: float) -> Check:
    """Require at least `bound`."""
    return Check(f"at least {bound}", lambda value: value >= bound)


def le(bound: float) -> Check:
    """Require at most `bound`."""
    return Check(f"at most {bound}", lambda value: value <= bound)


def fraction() -> Check:
    """Require a number from 0 up to, but without, 1."""
    return Check("from 0 to below 1", lambda value: 0 <= value < 1)


def spell(value: Any) -> str:
    """Write a value as a user would type it in Python; paths as plain text."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return "(" + ", ".join(map(spell, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def name_type(hint: Any) -> str:
    """Name a type the way the help and the error messages do: `int`, `path`, `one of 'a', 'b'`, `int or none`."""
    hint, _ = unwrap(hint)
    if hint == Location:
        return "path"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_union(hint):
        kinds = [a for a in arguments if not (a is str and Path in arguments)]  # a hub id spells a location, too
        return " or ".join(name_type(a) for a in kinds)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple:
        inner = ", ".join(name_type(a) for a in arguments if a is not Ellipsis)
        return f"tuple of {inner}"
    if origin is type:
        return str(arguments[0].__name__)
    return {type(None): "none", Path: "path"}.get(hint) or getattr(hint, "__name__", str(hint))


def unwrap(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split `Annotated[T, ...]` into T and its marks; any other type has none."""
    if hasattr(hint, "__metadata__"):
        return hint.__origin__, tuple(hint.__metadata__)
    return hint, ()


def supported(hint: Any) -> bool:
    """Return whether an option may be of the type `hint`: one that the strict hooks below know."""
    hint, _ = unwrap(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint == Location or origin is Literal:
        return True
    if _is_union(hint):
        kinds = tuple(kind for kind in arguments if kind is not type(None))
        return kinds == typing.get_args(Location) or (len(kinds) == 1 and supported(kinds[0]))
    if origin is tuple:
        return all(supported(kind) for kind in arguments if kind is not Ellipsis)
    return hint in (int, float, str, bool, Path)


def structure(value: Any, hint: Any) -> Any:
    """Return `value` normalised for the type `hint`; raise ValueError saying what was expected."""
    return _STRICT.structure(value, hint)


def parse(text: str, hint: Any) -> Any:
    """Return the value that a flag's text spells for the type `hint`; raise ValueError if it spells none."""
    return _TEXT.structure(text, hint)


def export(value: Any, root: Path | None) -> Any:
    """Return `value` as JSON holds it: tuples as lists, paths as text, `//…` below the workspace's root."""
    if isinstance(value, Path):
        if root is not None and value.is_relative_to(root):
            return "//" + value.relative_to(root).as_posix()
        return str(value)
    if isinstance(value, tuple):
        return [export(item, root) for item in value]
    return value


def unexport(value: Any, hint: Any, root: Path) -> Any:
    """Undo `export` for an option of type `hint`: lists become tuples, `//…` a path below `root`."""
    if isinstance(value, list):
        return tuple(unexport(item, hint, root) for item in value)
    if isinstance(value, str) and value.startswith("//") and "path" in name_type(hint):
        return root / value[2:]
    return value


# --- the two converters -------------------------------------------------------------------------


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def _wrong(value: Any, hint: Any) -> ValueError:
    return ValueError(f"expected {name_type(hint)}, got {type(value).__name__} {spell(value)}")


def _exact(*kinds: type) -> Callable[[Any, Any], Any]:
    def hook(value: Any, hint: Any) -> Any:
        if type(value) not in kinds:
            raise _wrong(value, hint)
        return hint(value)

    return hook


def _number(value: Any, hint: Any) -> float:
    if type(value) not in (int, float):
        raise _wrong(value, hint)
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    return float(value)


def _path(value: Any, hint: Any) -> Path:
    if not isinstance(value, str | Path):
        raise _wrong(value, hint)
    path = Path(value)
    if not path.is_absolute():
        raise ValueError(f"the path {str(value)!r} is relative; in a file write ROOT / {str(value)!r}")
    return path


def _path_from_text(text: str, hint: Any) -> Path:
    return Path(os.path.abspath(Path(text).expanduser()))  # `..` taken out: one place, one fingerprint


def _location(path_hook: Callable[[Any, Any], Path]) -> Callable[[Any, Any], Location]:
    def hook(value: Any, hint: Any) -> Location:
        if isinstance(value, str) and value.startswith("hf:"):
            return value
        return path_hook(value, hint)

    return hook


def _literal(value: Any, hint: Any) -> Any:
    for choice in typing.get_args(hint):
        if value == choice and type(value) is type(choice):
            return choice
    raise ValueError(f"expected {name_type(hint)}, got {spell(value)}")


def _annotated(converter: Converter) -> Callable[[Any, Any], Any]:
    def hook(value: Any, hint: Any) -> Any:
        plain, marks = unwrap(hint)
        value = converter.structure(value, plain)
        for mark in marks:
            if callable(mark) and value is not None:
                mark(value)
        return value

    return hook


def _tuple(converter: Converter) -> Callable[[Any, Any], Any]:
    def hook(value: Any, hint: Any) -> Any:
        if not isinstance(value, tuple):
            raise _wrong(value, hint)
        items = typing.get_args(hint)
        if len(items) == 2 and items[1] is Ellipsis:
            return tuple(converter.structure(item, items[0]) for item in value)
        if len(items) != len(value):
            raise ValueError(f"expected {len(items)} values, got {len(value)}: {spell(value)}")
        return tuple(converter.structure(item, kind) for item, kind in zip(value, items, strict=True))

    return hook


def _union(converter: Converter) -> Callable[[Any, Any], Any]:
    def hook(value: Any, hint: Any) -> Any:
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if value is None and len(kinds) < len(typing.get_args(hint)):
            return None
        if tuple(kinds) == typing.get_args(Location):  # `Location | None` is one flat union
            kinds = [Location]
        (kind,) = kinds
        return converter.structure(value, kind)

    return hook


def _optional_from_text(converter: Converter) -> Callable[[Any, Any], Any]:
    strict = _union(converter)

    def hook(text: str, hint: Any) -> Any:
        absent = type(None) in typing.get_args(hint) and text.lower() == "none"
        return None if absent else strict(text, hint)

    return hook


def _int_from_text(text: str, hint: Any) -> int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)  # 1e3 and 2.0 spell whole numbers
    except ValueError:
        raise ValueError(f"expected int, got {text!r}") from None
    if not number.is_integer():
        raise ValueError(f"expected int, got {text!r}")
    return int(number)


def _float_from_text(text: str, hint: Any) -> float:
    try:
        return _number(float(text), float)
    except ValueError:
        raise ValueError(f"expected float, got {text!r}") from None


TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""The words that spell a boolean on the command line."""


def _bool_from_text(text: str, hint: Any) -> bool:
    if text.lower() not in TRUTH:
        raise ValueError(f"expected true or false, got {text!r}")
    return TRUTH[text.lower()]


def _literal_from_text(text: str, hint: Any) -> Any:
    for choice in typing.get_args(hint):
        if str(choice) == text:
            return choice
    raise ValueError(f"expected {name_type(hint)}, got {text!r}")


def _tuple_from_text(converter: Converter) -> Callable[[Any, Any], Any]:
    strict = _tuple(converter)

    def hook(text: str, hint: Any) -> Any:
        if text.startswith("["):
            try:
                items = [item if isinstance(item, str) else json.dumps(item) for item in json.loads(text)]
            except ValueError:
                raise ValueError(f"expected a JSON list, got {text!r}") from None
        else:
            items = [item.strip() for item in text.split(",")] if text else []
        return strict(tuple(items), hint)

    return hook


def _converter(leaves: dict[Any, Callable[[Any, Any], Any]], tuples: Any, unions: Any, literal: Any) -> Converter:
    """Build a converter from hooks for leaf types and makers of the hooks that recurse."""
    converter = Converter(detailed_validation=False)
    for kind, hook in leaves.items():
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_func(lambda hint: typing.get_origin(hint) is Literal, literal)
    converter.register_structure_hook_func(lambda hint: typing.get_origin(hint) is tuple, tuples(converter))
    converter.register_structure_hook_func(_is_union, unions(converter))
    converter.register_structure_hook_func(lambda hint: hint == Location, _location(leaves[Path]))
    converter.register_structure_hook_func(lambda hint: hasattr(hint, "__metadata__"), _annotated(converter))
    return converter


_STRICT = _converter(
    {int: _exact(int), float: _number, str: _exact(str), bool: _exact(bool), Path: _path}, _tuple, _union, _literal
)
_TEXT = _converter(
    {
        int: _int_from_text,
        float: _float_from_text,
        str: lambda text, hint: text,
        bool: _bool_from_text,
        Path: _path_from_text,
    },
    _tuple_from_text,
    _optional_from_text,
    _literal_from_text,
)
