"""What counts as the right value: from Python and JSON strictly, from a flag's text by the option's type."""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft.config.values import (
    Location,
    export,
    fraction,
    ge,
    gt,
    le,
    name_type,
    objection,
    parse,
    quiet,
    spell,
    structure,
    unexport,
)

Mode = Literal["auto", "none", 3]
Count = Annotated[int, gt(0)]
Strings = tuple[str, ...]
Pair = tuple[float, float]


def refusal(convert: Any, value: Any, hint: Any) -> str:
    """Return the message with which a value is refused."""
    with pytest.raises(ValueError) as error:
        convert(value, hint)
    return str(error.value)


# --- from Python ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 3),
        (int, -3),
        (float, 2.5),
        (str, ""),
        (bool, False),
        (Path, Path("/a/b")),
        (Location, Path("/a/b")),
        (Location, "hf:org/name"),
        (Location | None, None),
        (Mode, "none"),
        (Mode, 3),
        (Count, 1),
        (Count | None, None),
        (Annotated[float | None, gt(0), quiet], None),
        (Strings, ()),
        (Strings, ("a", "b")),
        (Pair, (1.0, 2.5)),
        (bool | None, True),
    ],
)
def test_a_right_value_stays_as_it_is(hint: Any, value: Any) -> None:
    found = structure(value, hint)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, True, "expected int, got bool True"),
        (int, "1", "expected int, got str '1'; write 1"),
        (int, 1.0, "expected int, got float 1.0; write 1"),
        (int, None, "expected int, got None"),
        (float, True, "expected float, got bool True"),
        (float, "1.0", "expected float, got str '1.0'; write 1.0"),
        (float, math.nan, "expected a finite number, got nan"),
        (float, math.inf, "expected a finite number, got inf"),
        (str, 1, "expected str, got int 1; write '1'"),
        (str, b"a", "expected str, got bytes b'a'"),
        (str, None, "expected str, got None"),
        (bool, 1, "expected bool, got int 1"),
        (bool, "false", "expected bool, got str 'false'; write False"),
        (Path, "texts", "the path 'texts' is relative; in a file write ROOT / 'texts'"),
        (Path, Path("texts"), "the path 'texts' is relative; in a file write ROOT / 'texts'"),
        (Path, 3, "expected path, got int 3"),
        (Location, "texts", "the path 'texts' is relative; in a file write ROOT / 'texts'"),
        (Path, "a/b", "the path 'a/b' is relative; in a file write ROOT / 'a/b'"),
        (
            Location,
            "a/b-c",
            "the path 'a/b-c' is relative; in a file write ROOT / 'a/b-c', or 'hf:a/b-c' for the hub's",
        ),
        (Location, "~/x", "the path '~/x' is relative; in a file write Path('~/x').expanduser()"),
        (float, (3,), "expected float, got tuple (3,); write 3.0, without a comma behind it"),
        (Location | None, 3, "expected path, got int 3"),
        (Mode, "off", "expected one of 'auto', 'none', 3, got 'off'"),
        (Mode, 3.0, "expected one of 'auto', 'none', 3, got 3.0"),
        (Count, 0, "must be more than 0, got 0"),
        (Count | None, -1, "must be more than 0, got -1"),
        (Count | None, "1", "expected int, got str '1'; write 1"),
        (Annotated[float, fraction()], 1.0, "must be from 0 to below 1, got 1.0"),
        (Annotated[float, ge(0), le(2)], 2.5, "must be at most 2, got 2.5"),
        (Annotated[float, ge(0), le(2)], -0.5, "must be at least 0, got -0.5"),
        (Strings, "a", "expected tuple of str, got str 'a'; write ('a',)"),
        (Strings, ["a"], "expected tuple of str, got list ['a']; write ('a',)"),
        (Strings, ("a", 3), "expected str, got int 3; write '3'"),
        (Pair, (1.0,), "expected 2 values, got 1: (1.0,)"),
        (Pair, (1.0, "2"), "expected float, got str '2'; write 2.0"),
        (Pair, 1.0, "expected tuple of float, float, got float 1.0"),
    ],
)
def test_a_wrong_value_is_refused_and_never_converted(hint: Any, value: Any, message: str) -> None:
    assert refusal(structure, value, hint) == message


def test_an_int_for_a_float_option_is_a_float_once_and_for_all() -> None:
    assert repr(structure(1, float)) == "1.0"
    assert repr(structure((1, 2), Pair)) == "(1.0, 2.0)"
    assert repr(structure(1, Annotated[float, gt(0)] | None)) == "1.0"


def test_a_text_for_a_path_option_is_a_path() -> None:
    assert structure("/a/b", Path) == Path("/a/b")
    assert structure("/a/b", Location | None) == Path("/a/b")


# --- from a flag's text -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (int, "10", 10),
        (int, "-10", -10),
        (int, "1e3", 1000),
        (int, "2.0", 2),
        (int, "1_000", 1000),
        (float, "1", 1.0),
        (float, "3e-4", 3e-4),
        (float, "-.5", -0.5),
        (str, "none", "none"),
        (str, "", ""),
        (bool, "true", True),
        (bool, "Yes", True),
        (bool, "on", True),
        (bool, "false", False),
        (bool, "NO", False),
        (bool, "off", False),
        (bool | None, "none", None),
        (bool | None, "no", False),
        (Count | None, "None", None),
        (Count | None, "4", 4),
        (Mode, "none", "none"),
        (Mode, "3", 3),
        (Strings, "a", ("a",)),
        (Strings, "a,b", ("a", "b")),
        (Strings, "a, b", ("a", "b")),
        (Strings, "", ()),
        (Strings, "[]", ()),
        (Strings, '["a, b", "c"]', ("a, b", "c")),
        (Pair, "0.9,0.95", (0.9, 0.95)),
        (Pair, "[1, 2]", (1.0, 2.0)),
        (Location, "hf:org/name", "hf:org/name"),
        (Location | None, "none", None),
    ],
)
def test_a_flags_text_is_read_by_the_options_type(hint: Any, text: str, value: Any) -> None:
    found = parse(text, hint)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("hint", "text", "message"),
    [
        (int, "ten", "expected int, got 'ten'"),
        (int, "1.5", "expected int, got '1.5'"),
        (int, "inf", "expected int, got 'inf'"),
        (int, "nan", "expected int, got 'nan'"),
        (int, "none", "expected int, got 'none'"),
        (int, "", "expected int, got ''"),
        (float, "x", "expected float, got 'x'"),
        (float, "inf", "expected a finite number, got inf"),
        (bool, "1", "expected true or false, got '1'"),
        (Count, "0", "must be more than 0, got 0"),
        (Mode, "off", "expected one of 'auto', 'none', 3, got 'off'"),
        (Pair, "1", "expected 2 values, got 1: ('1',)"),
        (Pair, "1,x", "expected float, got 'x'"),
        (Strings, "[a", "expected a JSON list, got '[a'"),
    ],
)
def test_a_text_that_spells_no_value_is_refused(hint: Any, text: str, message: str) -> None:
    assert refusal(parse, text, hint) == message


def test_a_relative_path_in_a_flag_is_relative_to_where_one_stands(tmp_path: Path) -> None:
    assert parse("texts/a", Path) == tmp_path / "texts" / "a"
    assert parse("texts", Location) == tmp_path / "texts"
    assert parse("/x", Location | None) == Path("/x")
    assert parse("~", Path) == Path.home()
    assert parse("texts/../a", Path) == tmp_path / "a"  # else the same place would be another run


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (int, "int"),
        (Count, "int"),
        (Count | None, "int or none"),
        (Annotated[float | None, gt(0), quiet], "float or none"),
        (Path, "path"),
        (Location, "path"),
        (Path | None, "path or none"),
        (Mode, "one of 'auto', 'none', 3"),
        (Strings, "tuple of str"),
        (Pair, "tuple of float, float"),
    ],
)
def test_types_are_named_for_people(hint: Any, name: str) -> None:
    assert name_type(hint) == name
    assert not objection(hint)


def test_an_optional_location_is_named_as_one_thing() -> None:
    assert name_type(Location | None) == "path or none"


@pytest.mark.parametrize(
    "hint", [dict, list[int], int | str, Any, complex, bytes, tuple[complex, ...], int | str | None]
)
def test_types_without_a_strict_rule_are_not_supported(hint: Any) -> None:
    assert "an option cannot be of type" in objection(hint)


def test_a_bare_tuple_and_any_are_told_what_to_write() -> None:
    assert objection(tuple).endswith("; write tuple[X, ...]")
    assert objection(Any).endswith("; write its type: `name: int`, and of a derived value `-> int`")


def test_values_are_spelled_as_one_types_them() -> None:
    assert spell(("a",)) == "('a',)"
    assert spell((1, Path("/a"))) == "(1, /a)"
    assert spell("a") == "'a'"


# --- to JSON and back -------------------------------------------------------------------------------

ROOT = Path("/w")


@pytest.mark.parametrize(
    ("hint", "value", "written"),
    [
        (Location, ROOT / "texts" / "a", "//texts/a"),
        (Location | None, ROOT, "//."),
        (Location, Path("/elsewhere"), "/elsewhere"),
        (Path | None, ROOT / "keys", "//keys"),
        (Location, "hf:org/name", "hf:org/name"),
        (str, "//not a path", "//not a path"),
        (Pair, (1.0, 2.0), [1.0, 2.0]),
        (Strings, (), []),
        (tuple[Path, ...], (ROOT / "a", Path("/b")), ["//a", "/b"]),
        (bool | None, None, None),
    ],
)
def test_export_and_unexport_are_inverse(hint: Any, value: Any, written: Any) -> None:
    assert export(value, ROOT) == written
    assert structure(unexport(written, hint, ROOT), hint) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_survives_its_text(value: float) -> None:
    assert parse(repr(value), float) == value


@given(st.integers())
def test_an_int_survives_its_text(value: int) -> None:
    assert parse(str(value), int) == value


@given(st.lists(st.text()).map(tuple))
def test_texts_survive_as_a_json_list(value: tuple[str, ...]) -> None:
    assert parse(json.dumps(value), Strings) == value


@given(st.one_of(st.integers(), st.booleans(), st.none(), st.text(), st.floats(), st.tuples(st.integers())))
def test_only_exact_types_pass(value: Any) -> None:
    for hint, kinds in ((int, (int,)), (str, (str,)), (bool, (bool,)), (float, (int, float)), (Strings, (tuple,))):
        if type(value) not in kinds:
            refusal(structure, value, hint)
