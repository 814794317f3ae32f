"""Laws of the config language, on generated types, values and class trees."""

import enum
import json
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import Config, TrainConfig, derived, override, resolve
from lovecraft.config import codegen, record
from lovecraft.config.base import Derived, history
from lovecraft.config.diff import Change, diff, entries
from lovecraft.config.render import text_of
from lovecraft.config.resolve import all_rows, choices, rows
from lovecraft.config.values import Location, core, export, gt, objection, parse, structure, unexport

ROOT = Path("/w")


class Color(enum.Enum):
    """An enum whose values say nothing that a flag could."""

    RED = (1, 0, 0)
    NONE = None


class Level(enum.StrEnum):
    """An enum that is a text as well."""

    LOW = "none"
    HIGH = "1"


# --- types and their values -----------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=6) | st.sampled_from(["none", "a, b", '"', "[1]"])
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-3, 300) | st.integers(),
    float: st.floats(-3, 3) | st.floats(allow_nan=False, allow_infinity=False),
    str: TEXTS,
    bool: st.booleans(),
    Path: st.sampled_from([ROOT, ROOT / "a b", Path("/x/\n"), Path('/x/"y",z')]),
    Location: st.sampled_from([ROOT / "texts", Path("/none"), "hf:org/name"]),
    Literal["a", "none", "", 3, True]: st.sampled_from(["a", "none", "", 3, True]),
    Annotated[int, gt(0)]: st.integers(1),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
}
OPTIONAL = [kind for kind in LEAVES if not objection(kind | None)]


def hints() -> st.SearchStrategy[Any]:
    """Draw types that an option may have: leaves, those or None, tuples of all of these."""
    leaves = st.sampled_from(list(LEAVES)) | st.sampled_from(OPTIONAL).map(lambda kind: kind | None)
    tuples = st.recursive(
        leaves,
        lambda inner: (
            inner.map(lambda kind: tuple[kind, ...])  # type: ignore[valid-type]
            | st.lists(inner, min_size=1, max_size=3).map(lambda kinds: tuple[*kinds])  # type: ignore[valid-type]
        ),
        max_leaves=3,
    )
    return tuples.filter(lambda kind: not objection(kind))


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Draw right values of a type; a choice between `none` and None is for JSON, as no bare word can make it."""
    plain, optional, marks = core(hint)
    if typing.get_origin(plain) is tuple:
        kinds = typing.get_args(plain)
        found: st.SearchStrategy[Any] = (
            st.lists(values_of(kinds[0]), max_size=3).map(tuple)
            if kinds[1:] == (Ellipsis,)
            else st.tuples(*map(values_of, kinds))
        )
    elif plain in LEAVES:
        found = LEAVES[plain]
    else:
        found = st.sampled_from(list(typing.get_args(plain)))
    if optional:
        found = st.none() | found.filter(lambda value: not (isinstance(value, str) and value.lower() == "none"))
    return found.filter(lambda value: not marks or holds(value, hint))


def holds(value: Any, hint: Any) -> bool:
    """Return whether a value passes the checks of its type."""
    try:
        structure(value, hint)
    except ValueError:
        return False
    return True


def typed_values() -> st.SearchStrategy[tuple[Any, Any]]:
    """Draw a type and a right value of it."""
    return hints().flatmap(lambda hint: st.tuples(st.just(hint), values_of(hint)))


@given(typed_values())
def test_what_is_shown_can_be_typed(drawn: tuple[Any, Any]) -> None:
    hint, value = drawn
    assert structure(value, hint) == value
    assert parse(text_of(value), hint) == value


@given(typed_values())
def test_what_is_written_as_json_is_read_back(drawn: tuple[Any, Any]) -> None:
    hint, value = drawn
    read = unexport(json.loads(json.dumps(export(value, ROOT))), hint, ROOT)
    assert structure(read, hint) == value
    assert hash(structure(read, hint)) == hash(value)


# --- class trees ----------------------------------------------------------------------------------


def make(name: str, bases: tuple[Any, ...], said: dict[str, Any], declared: dict[str, Any] | None = None) -> Any:
    """Make a class as a statement would that says and declares this."""
    names = {"__module__": __name__, "__qualname__": name, "__annotations__": declared or {}}
    return types.new_class(name, bases, exec_body=lambda namespace: namespace.update({**names, **said}))


def reader(name: str) -> Any:
    """Return a derived value that says what another option of the config says."""
    return derived(lambda self: getattr(self, name))


@st.composite
def trees(draw: st.DrawFn) -> list[Any]:
    """Draw configs that derive from each other: a base with a section that may be off, diamonds, plain mixins."""
    kinds = draw(st.lists(hints(), min_size=2, max_size=4))
    declared = {f"o{i}": kind for i, kind in enumerate(kinds)}

    def say(names: set[str]) -> dict[str, Any]:
        return {name: draw(values_of(declared[name])) for name in sorted(names)}

    some = st.sets(st.sampled_from(sorted(declared)))
    part = make("Part", (Config,), say(set(declared)), declared)
    sections = {"part": type[part] | None, "twin": kinds[0]}
    top = make("Top", (Config,), {**say(set(declared)), "part": part, "twin": reader("o0")}, {**declared, **sections})
    made = [top]
    for i in range(draw(st.integers(1, 4))):
        bases = draw(st.permutations(made))[: 1 + i % 2]
        mixins = [type("Mixin", (), say(draw(some)))] if draw(st.booleans()) else []
        section = draw(st.none() | st.just(0).map(lambda _: make("Mine", (part,), say(draw(some)))))
        said = {**say(draw(some)), **({"part": section} if draw(st.booleans()) else {})}
        if draw(st.booleans()) and kinds[0] == kinds[-1]:
            said["o0"] = reader(f"o{len(kinds) - 1}")
        bases = sorted(bases, key=made.index, reverse=True)  # children before parents, as the MRO wants it
        made.append(make(f"C{i}", (*mixins, *bases), said))
    return made


@given(trees())
def test_the_first_class_in_the_mro_that_says_a_value_wins(made: list[Any]) -> None:
    for cls in made:
        config = resolve(cls)
        for name in cls.__options__:
            raw = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
            assert raw is history(cls, name)[0][0]
            found = getattr(config, name)
            if isinstance(raw, Derived):
                assert found == raw.function(config)
            elif isinstance(raw, type):
                assert type(found) is raw
            else:
                assert found == raw
        assert resolve(cls) == config
        assert hash(resolve(cls)) == hash(config)


@given(trees(), st.data())
def test_every_option_can_be_overridden_with_what_would_be_shown(made: list[Any], data: st.DataObject) -> None:
    cls = made[-1]
    row = data.draw(st.sampled_from([row for row in rows(cls) if row.option.section is None]))
    value = data.draw(values_of(row.option.hint))
    changed = override(cls, {row.path: parse(text_of(value), row.option.hint)})
    before, after = ({r.path: r.value for r in rows(c)} for c in (cls, changed))
    follow = {p for p in before if before[p] != after[p]} - {row.path}
    assert after[row.path] == value
    assert follow <= {"twin", "o0"}  # what derives from it
    assert before == {r.path: r.value for r in rows(cls)}


# --- the library's configs ------------------------------------------------------------------------

COMPLETE = override(TrainConfig, {"dataset.source": Path("/texts"), "model.path": Path("/m")})


@st.composite
def trainings(draw: st.DrawFn) -> Any:
    """Draw a training config: some sections swapped or off, some options changed, by class statements and flags."""
    cls = COMPLETE
    sections = {row.path: row.option for row in all_rows(cls) if row.option.section is not None}
    for path in sorted(draw(st.sets(st.sampled_from(sorted(sections))))):
        known = [*choices(sections[path].section).values(), *([None] if sections[path].optional else [])]
        if path not in ("dataset", "model"):
            cls = override(cls, {path: draw(st.sampled_from(known))})
    plain = {row.path: row.option.hint for row in rows(cls) if row.option.section is None}
    paths = draw(st.sets(st.sampled_from(sorted(plain)), max_size=8))
    changes = {path: draw(values_of(plain[path])) for path in sorted(paths)}
    top = {path: value for path, value in changes.items() if "." not in path}
    return override(make("Mine", (cls,), top), {path: value for path, value in changes.items() if path not in top})


def apply(changes: list[Change], cls: Any) -> Any:
    """Return the config that changes make of another one, through the code that replays records."""
    found = {entry.path: entry for entry in entries(cls, ROOT)}
    for change in changes:
        if change.b_origin:
            found[change.path] = attrs.evolve(next(iter(found.values())), path=change.path, value=change.b)
        else:
            del found[change.path]
    off = tuple(f"{path}." for path, entry in found.items() if entry.value is None)
    options = [attrs.asdict(entry) for path, entry in found.items() if not path.startswith(off)]
    return record.replay({"class": "TrainConfig", "own": [], "options": json.loads(json.dumps(options))}, ROOT)


@given(trainings(), trainings())
def test_a_difference_that_is_applied_leaves_none(a: Any, b: Any) -> None:
    wanted = entries(b, ROOT)
    made = apply(diff(entries(a, ROOT), wanted), a)
    assert not diff(entries(made, ROOT), wanted)
    assert record.fingerprint(made, ROOT) == record.fingerprint(b, ROOT)


@pytest.fixture(scope="module")
def flat() -> Iterator[Callable[[Any], Any]]:
    """Return what runs the module that `lc show --python` prints of a config, and returns the config in it."""
    workspace = types.ModuleType("workspace")
    workspace.ROOT = ROOT  # type: ignore[attr-defined]
    before = sys.modules.get("workspace")
    sys.modules["workspace"] = workspace

    def run(cls: Any) -> Any:
        module = types.ModuleType("flat")
        exec(codegen.module(cls, "flat", ROOT), vars(module))
        return module.Train

    yield run
    del sys.modules["workspace"]
    if before is not None:
        sys.modules["workspace"] = before


@given(trainings())
def test_a_flat_module_resolves_to_the_same_fingerprint(flat: Callable[[Any], Any], cls: Any) -> None:
    again = flat(cls)
    assert not diff(entries(again, ROOT), entries(cls, ROOT))
    assert record.fingerprint(again, ROOT) == record.fingerprint(cls, ROOT)
