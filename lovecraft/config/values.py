"""What counts as the right value for an option, from Python or JSON (`structure`) and from a flag's text (`parse`).

cattrs does the dispatch on types; every hook here is strict. A value is normalised once (1 for a float option becomes
1.0), so that equal configs have equal fingerprints. Nothing else is converted. A flag's text is read by its option's
type, and what it spells is then checked like a value from Python.
"""

import contextlib
import enum
import functools
import inspect
import json
import math
import operator
import os
import re
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Union

import attrs
from cattrs import Converter

from lovecraft.config.names import close

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
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(spell, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, type | types.ModuleType):
        return f"the {'class' if isinstance(value, type) else 'module'} {value.__name__}"
    return str(value) if isinstance(value, Path) else repr(value)


def name_type(hint: Any) -> str:
    """Name a type the way the help and the error messages do: `int`, `path`, `one of 'a', 'b'`, `int or none`."""
    hint, _ = unwrap(hint)
    if hint in (Path, Location):
        return "path"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_union(hint):
        kinds = [a for a in arguments if not (a is str and Path in arguments)]  # a hub id spells a location, too
        return " or ".join(name_type(a) for a in kinds)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if _is_enum(hint):
        return "one of " + ", ".join(hint.__members__)
    if origin is tuple:
        inner = ", ".join(name_type(a) for a in arguments if a is not Ellipsis)
        return f"tuple of {inner}"
    if origin is type:
        return str(arguments[0].__name__)
    return "none" if hint is type(None) else getattr(hint, "__name__", str(hint))


def unwrap(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split `Annotated[T, ...]` into T and its marks; any other type has none."""
    if hasattr(hint, "__metadata__"):
        return hint.__origin__, tuple(hint.__metadata__)
    return hint, ()


def core(hint: Any) -> tuple[Any, bool, tuple[Any, ...]]:
    """Return the type inside `Annotated[...]` and `... | None`, whether it may be None, and all marks around it."""
    plain, marks = unwrap(hint)
    if not _is_union(plain) or plain == Location:
        return plain, False, marks
    inner, more = unwrap(_present(plain))
    return inner, type(None) in typing.get_args(plain), marks + more


def choices(hint: Any) -> dict[str, Any]:
    """Return the values of a Literal or an enum, by the text that spells each in a flag; of other types none."""
    if _is_enum(hint):
        return dict(hint.__members__)
    found = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    return {str(value).lower() if isinstance(value, bool) else str(value): value for value in found}


def both(hint: Any, more: Any) -> Any:
    """Return the type of the values that are right for two types, which differ in their checks."""

    def check(value: Any) -> None:
        structure(value, more)

    return Annotated[hint, check]


def takes_one(function: Any) -> bool:
    """Return whether `function` is a plain one that can be called with a single argument."""
    if not isinstance(function, types.FunctionType) or inspect.isgeneratorfunction(function):
        return False
    most = function.__code__.co_argcount
    return most - len(function.__defaults__ or ()) <= 1 <= most and not inspect.iscoroutinefunction(function)


_INSTEAD = (
    ((list, set, frozenset, tuple), "write tuple[X, ...]"),
    ((Any,), "write its type: `name: int`, and of a derived value `-> int`"),
    ((dict,), "write a section: a config class, and type[X] here"),
    ((ClassVar,), "write a constant above the class, or with a name that begins with _"),
    ((Final,), "write the type alone: a resolved config is frozen"),
)
_ALLOWED = "it can be int, float, str, bool, Path, Literal[...], an Enum, a tuple of these, or one of these or None"


def objection(hint: Any) -> str:
    """Return why an option cannot be of the type `hint`, and what to write; empty where the strict hooks know it."""
    plain, optional, marks = core(hint)
    origin, arguments = typing.get_origin(plain), typing.get_args(plain)
    for mark in marks:
        if mark != quiet and not isinstance(mark, Check) and not takes_one(mark):
            what = "write gt, ge, le, fraction, or a function that takes the value and raises ValueError"
            return f"{mark!r} in Annotated is no check; {what}"
    if optional and any(text.lower() == "none" for text in choices(plain)):
        return "in a flag `none` would mean two values; rename the choice or drop None"
    if origin is tuple:
        return next(filter(None, (objection(kind) for kind in arguments if kind is not Ellipsis)), "")
    if origin is Literal and len(choices(plain)) == len(arguments) and {*map(type, arguments)} <= {str, int, bool}:
        return ""
    if plain in (int, float, str, bool, Path, Location) or _is_enum(plain):
        return ""
    instead = next((words for kinds, words in _INSTEAD if origin in kinds or plain in kinds), _ALLOWED)
    return f"an option cannot be of type {name_type(hint)}; {instead}"


def structure(value: Any, hint: Any) -> Any:
    """Return `value` normalised for the type `hint`; raise ValueError saying what was expected."""
    return _STRICT.structure(value, hint)


def parse(text: str, hint: Any, root: Path | None = None) -> Any:
    """Return the value that a flag's text spells for the type `hint`; raise ValueError if it spells none.

    A path that begins with `//`, as everything prints it, is below `root`.
    """
    return structure(_read(text, hint, root), hint)


def export(value: Any, root: Path | None) -> Any:
    """Return `value` as JSON holds it: enums by name, tuples as lists, paths as text, `//…` below the root."""
    if isinstance(value, Path):
        if root is not None and value.is_relative_to(root):
            return "//" + value.relative_to(root).as_posix()
        return str(value)
    if isinstance(value, tuple):
        return [export(item, root) for item in value]
    return value.name if isinstance(value, enum.Enum) else value


def unexport(value: Any, hint: Any, root: Path) -> Any:
    """Undo `export` for an option of type `hint`: lists become tuples, `//…` a path below `root`."""
    plain, _, _ = core(hint)
    if isinstance(value, list):
        return _each(lambda item, kind: unexport(item, kind, root), value, plain)
    if isinstance(value, str) and value.startswith("//") and plain in (Path, Location):
        return root / value[2:]
    return choices(plain).get(value, value) if _is_enum(plain) else value


# --- from Python: the strict hooks ----------------------------------------------------------------


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, enum.EnumType) and not issubclass(hint, enum.Flag)  # a Flag's sums have no name


def _present(union: Any) -> Any:
    """Return a union's type without None."""
    return functools.reduce(operator.or_, (kind for kind in typing.get_args(union) if kind is not type(None)))


def _each(convert: Callable[[Any, Any], Any], items: Sequence[Any], hint: Any) -> tuple[Any, ...]:
    """Convert the items of a tuple, each by its own type. Raises ValueError where their number is wrong."""
    kinds = typing.get_args(hint)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = kinds[:1] * len(items)
    if len(kinds) != len(items):
        raise ValueError(f"expected {len(kinds)} values, got {len(items)}: {spell(tuple(items))}")
    return tuple(convert(item, kind) for item, kind in zip(items, kinds, strict=True))


def _wrong(value: Any, hint: Any) -> ValueError:
    got = spell(value) if value is None or isinstance(value, type | enum.Enum | types.ModuleType) else ""
    return ValueError(
        f"expected {name_type(hint)}, got {got or f'{type(value).__name__} {spell(value)}'}{_remedy(value, hint)}"
    )


def _remedy(value: Any, hint: Any) -> str:
    """Return `; write …` where a wrong value spells a right one."""
    if isinstance(value, tuple) and len(value) == 1:
        with contextlib.suppress(ValueError):
            return f"; write {spell(structure(value[0], hint))}, without a comma behind it"
    if type(value) not in (str, int, float, list):
        return ""
    try:
        right = _read(value if isinstance(value, str) else json.dumps(value), hint, None)
        return "" if type(right) is type(value) else f"; write {spell(structure(right, hint))}"
    except (ValueError, TypeError):  # TypeError: a list of what JSON does not know
        return ""


def _exact(value: Any, hint: Any) -> Any:
    if type(value) is not hint:
        raise _wrong(value, hint)
    return value


def _number(value: Any, hint: Any) -> float:
    if type(value) not in (int, float):
        raise _wrong(value, hint)
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    return float(value) + 0.0  # -0.0 is 0.0


def _path(value: Any, hint: Any) -> Location:
    if hint == Location and isinstance(value, str) and value.startswith("hf:"):
        return value
    if not isinstance(value, str | Path):
        raise ValueError(f"expected path, got {type(value).__name__} {spell(value)}")
    path = Path(value)
    if not path.is_absolute():
        text = str(value)
        right = f"Path({text!r}).expanduser()" if text.startswith("~") else f"ROOT / {text!r}"
        hub = hint == Location and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text)
        also = f", or 'hf:{text}' for the hub's" if hub else ""
        raise ValueError(f"the path {text!r} is relative; in a file write {right}{also}")
    return Path("/" + os.path.normpath(path).lstrip("/"))  # no `..`, no `//` for the root: one place, one fingerprint


def _choice(value: Any, hint: Any) -> Any:
    for choice in choices(hint).values():
        if value == choice and type(value) is type(choice):
            return choice
    near = close(value, choices(hint)) if isinstance(value, str) else []
    remedy = _remedy(value, hint) or "".join(f"; did you mean {name!r}?" for name in near)
    raise ValueError(f"expected {name_type(hint)}, got {spell(value)}{remedy}")


def _annotated(value: Any, hint: Any) -> Any:
    plain, marks = unwrap(hint)
    value = structure(value, plain)
    for mark in marks:
        if callable(mark) and value is not None and mark(value) is False:
            raise ValueError(f"does not pass {getattr(mark, '__name__', mark)}, got {spell(value)}")
    return value


def _tuple(value: Any, hint: Any) -> Any:
    if not isinstance(value, tuple):
        raise _wrong(value, hint)
    return _each(structure, value, hint)


def _union(value: Any, hint: Any) -> Any:
    return None if value is None and type(None) in typing.get_args(hint) else structure(value, _present(hint))


def _converter() -> Converter:
    converter = Converter(detailed_validation=False)
    for kind, hook in ((int, _exact), (str, _exact), (bool, _exact), (float, _number), (Path, _path)):
        converter.register_structure_hook(kind, hook)
    for holds, hook in (
        (lambda hint: typing.get_origin(hint) is Literal or _is_enum(hint), _choice),
        (lambda hint: typing.get_origin(hint) is tuple, _tuple),
        (_is_union, _union),
        (lambda hint: hint == Location, _path),
        (lambda hint: hasattr(hint, "__metadata__"), _annotated),
    ):
        converter.register_structure_hook_func(holds, hook)
    return converter


_STRICT = _converter()


# --- from a flag's text ---------------------------------------------------------------------------

TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""The words that spell a boolean on the command line."""


def _read(text: str, hint: Any, root: Path | None) -> Any:
    """Return what a text spells in Python for the type `hint`; raise ValueError where it spells nothing."""
    plain, optional, _ = core(hint)
    if optional and text.lower() == "none":
        return None
    if typing.get_origin(plain) is tuple:  # JSON's numbers and null are no texts that spell something
        return _each(lambda item, kind: _read(item, kind, root) if isinstance(item, str) else item, _items(text), plain)
    if text.startswith('"'):  # in JSON's quotes a text may be empty, be `none`, or hold line breaks
        with contextlib.suppress(ValueError):
            text = str(json.loads(text))
    if found := choices(plain):
        return found.get(text, text)
    if plain is bool:
        if text.lower() not in TRUTH:
            raise ValueError(f"expected true or false, got {text!r}")
        return TRUTH[text.lower()]
    if plain in (int, float):
        return _read_number(text, plain)
    if plain is Path or (plain == Location and not text.startswith("hf:")):
        if not text:
            raise ValueError("expected path, got ''")  # which would be the directory where one stands
        if text.startswith("//"):
            if root is None:
                raise ValueError("// is the root of a workspace, and there is none here")
            text = str(root / text[2:])
        return Path(os.path.abspath(Path(text).expanduser()))  # `..` taken out: one place, one fingerprint
    return text


def _items(text: str) -> list[Any]:
    """Split the text of a tuple: a JSON list, or words between commas, in `(…)` or not, with a last comma or not."""
    if text == "()" or (text.startswith("(") and text.endswith(")") and "," in text):
        text = text[1:-1]
    if not text.startswith("["):
        items = [item.strip() for item in text.split(",")]
        return items if items[-1] else items[:-1]
    try:
        found = json.loads(text)
    except ValueError:
        raise ValueError(f"expected a JSON list, got {text!r}") from None
    return [json.dumps(item) if isinstance(item, str | list) else item for item in found]


def _read_number(text: str, kind: type) -> float:
    try:
        return kind(text)  # of an int also what no float holds exactly
    except ValueError:
        pass
    try:
        number = float(text)  # 1e3 and 2.0 spell whole numbers
        if number.is_integer():
            return kind(number)
    except ValueError:
        pass
    raise ValueError(f"expected {name_type(kind)}, got {text!r}")
