"""The language: overriding, sections, derived values, instances, and what is refused where a class is defined."""

import copy
import dataclasses
import functools
import inspect
import pickle
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import SGD, AdamW, Config, DatasetConfig, TrainConfig, derived, override, resolve
from lovecraft.config.values import gt, le, quiet
from lovecraft.errors import ConfigError

HERE = Path(__file__).relative_to(Path(__file__).parents[2]).as_posix()


def even(value: int) -> bool:
    """Check a number."""
    return value % 2 == 0


def low(value: str) -> bool:
    """Check a text."""
    return value.islower()


class Inner(Config):
    """A section."""

    size: Annotated[int, gt(0)] = 4
    """How large."""

    name: str = "inner"
    """What it is called."""

    @derived
    def twice(self) -> int:
        """Two times the size."""
        return self.size * 2

    def label(self) -> str:
        return f"{self.name}-{self.twice}"


class Other(Inner):
    """Another kind of the same section."""

    extra: float = 1.5
    """Only here."""


class Outer(Config):
    """A config with sections."""

    inner: type[Inner] = Inner
    """A section."""

    spare: type[Inner] | None = None
    """A section that may be off."""

    count: Annotated[int, gt(0)] = 3
    """A number."""

    rate: float = 1
    """A rate."""

    words: tuple[str, ...] = ("a",)
    """Words."""

    loud: Annotated[bool, quiet] = False
    """Without effect on the result."""

    @derived
    def total(self) -> int:
        """How much in all."""
        return self.count * self.inner.size

    @derived
    def half(self) -> float:
        """Half of the total."""
        return self.total / 2


def line_of(marker: str) -> int:
    """Return the number of the line of this file that ends with the comment `# marker`."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.endswith(f"# {marker}"))


def refused(define_class: Callable[[], Any]) -> str:
    """Return the message with which a class statement is refused."""
    with pytest.raises(ConfigError) as error:
        define_class()
    return error.value.message


# --- overriding -------------------------------------------------------------------------------------


def test_a_subclass_overrides_by_assignment() -> None:
    class Mine(Outer):
        count = 5

    assert resolve(Mine).count == 5
    assert resolve(Outer).count == 3


def test_what_is_not_overridden_is_inherited_through_every_step() -> None:
    class One(Outer):
        count = 5

    class Two(One):
        rate = 2

    class Three(Two):
        pass

    assert (resolve(Three).count, resolve(Three).rate) == (5, 2.0)


def test_an_override_inherits_type_and_checks() -> None:
    class Mine(Outer):
        count = 0  # too few

    assert f"{HERE}:{line_of('too few')}: count: must be more than 0, got 0" in refused(lambda: resolve(Mine))


def test_options_keep_the_order_of_their_first_declaration() -> None:
    class Mine(Outer):
        last: int = 1
        half = 3.0
        inner = Other

    assert list(Mine.__options__) == [*Outer.__options__, "last"]
    assert [field.name for field in attrs.fields(Mine)] == list(Mine.__options__)


def test_a_plain_mixin_overrides_by_its_place_in_the_mro() -> None:
    class Big:
        count = 100

    class First(Big, Outer):
        pass

    class Own(Big, Outer):
        count = 7

    assert (resolve(First).count, resolve(Own).count) == (100, 7)


def test_a_diamond_follows_the_mro() -> None:
    class Left(Outer):
        count = 10
        rate = 10.0

    class Right(Outer):
        count = 20
        words = ("right",)

    class Both(Left, Right):
        pass

    class Reversed(Right, Left):
        pass

    assert (resolve(Both).count, resolve(Both).words, resolve(Both).rate) == (10, ("right",), 10.0)
    assert resolve(Reversed).count == 20


@given(st.data())
def test_every_value_is_that_of_the_first_class_in_the_mro_that_sets_it(data: st.DataObject) -> None:
    names = ("count", "seed", "depth")

    def fill(namespace: dict[str, Any]) -> None:
        namespace["__module__"] = __name__
        for name in data.draw(st.sets(st.sampled_from(names))):
            namespace[name] = data.draw(st.integers(1, 99))

    class Top(Config):
        count: int = 1
        seed: int = 1
        depth: int = 1

    made: list[Any] = [Top]
    for i in range(data.draw(st.integers(1, 5))):
        bases = data.draw(st.permutations(made))[: 1 + i % 2]
        bases = sorted(bases, key=made.index, reverse=True)  # children before parents, as the MRO wants it
        made.append(types.new_class(f"C{i}", tuple(bases), exec_body=fill))

    for cls in made:
        for name in names:
            assert getattr(resolve(cls), name) == next(vars(base)[name] for base in cls.__mro__ if name in vars(base))


def test_a_class_statement_may_stand_for_a_section() -> None:
    class Mine(Outer):
        class inner(Inner):
            size = 9

        class spare(Outer.inner):
            size = 8

    config = resolve(Mine)
    assert (config.inner.size, config.total) == (9, 27)
    assert config.spare is not None
    assert config.spare.size == 8


def test_reading_goes_through_sections_on_the_class_and_on_the_instance() -> None:
    class Mine(Outer):
        inner = Other

    assert Mine.inner.size == 4
    assert resolve(Mine).inner.size == 4
    assert isinstance(resolve(Mine).inner, Other)


def test_assignments_under_if_and_several_at_once_count() -> None:
    class Mine(Outer):
        if True:
            count = 8
        rate, words = 2, ("x", "y")

    config = resolve(Mine)
    assert (config.count, config.rate, config.words) == (8, 2.0, ("x", "y"))


def test_generic_classes_can_be_mixed_in() -> None:
    T = TypeVar("T")

    class Mine(Outer, Generic[T]):
        count = 2

    assert resolve(Mine).count == 2


def test_a_new_annotation_declares_a_new_option() -> None:
    class Mine(Outer):
        tokens: int = 100
        _private = 1

        @derived
        def count(self) -> int:
            return self.tokens // 10

    assert resolve(Mine).count == 10
    assert "_private" not in Mine.__options__
    assert resolve(override(Mine, {"tokens": 50})).count == 5


def test_repeating_the_plain_type_keeps_the_checks_and_marks_of_the_declaration() -> None:
    class Mine(Outer):
        count: int = -1
        loud: bool = True

    assert "count: must be more than 0" in refused(lambda: resolve(Mine))
    assert Mine.__options__["loud"].quiet


def test_the_checks_of_an_annotation_that_repeats_an_option_come_on_top() -> None:
    class Few(Outer):
        count: Annotated[int, le(4)] = 2

    class Pairs(Outer):
        words: tuple[Annotated[str, low], ...] = ("a",)
        count: Annotated[int, even] = 2

    class Both(Few, Pairs):
        pass

    for cls, count, message in (
        (Few, 5, "at most 4, got 5"),
        (Few, 0, "more than 0"),
        (Both, 6, "at most 4"),
        (Both, 3, "does not pass even, got 3"),
        (Pairs, 6, ""),
    ):
        changed = override(cls, {"count": count})
        assert (message in refused(lambda: resolve(changed))) if message else resolve(changed).count == 6  # noqa: B023
    assert "does not pass low" in refused(lambda: resolve(override(Both, {"words": ("A",)})))
    assert "'small' in Annotated is no check" in refused(lambda: declare("count", Annotated[int, "small"]))


# --- derived ----------------------------------------------------------------------------------------


def test_a_derived_value_follows_every_later_override() -> None:
    class Mine(Outer):
        count = 10

    assert resolve(Mine).total == 40
    assert resolve(override(Mine, {"inner.size": 7})).total == 70
    assert resolve(override(Mine, {"inner.size": 7})).half == 35.0


def test_a_derived_value_takes_super() -> None:
    class Mine(Outer):
        @derived
        def total(self) -> int:
            return super().total + 1

    class Deeper(Mine):
        count = 10

        @derived
        def total(self) -> int:
            return super().total * 2

    assert resolve(Mine).total == 13
    assert resolve(Deeper).total == 82
    assert resolve(Deeper).half == 41.0


def test_a_derived_value_takes_super_of_a_plain_value() -> None:
    class Mine(Outer):
        @derived
        def count(self) -> int:
            return super().count + self.inner.size

    assert resolve(Mine).total == 7 * 4


def test_a_section_reached_through_super_is_that_of_the_instance() -> None:
    class Mine(Outer):
        inner = Other

        @derived
        def count(self) -> int:
            return super().inner.size + super().inner.twice + type(self).inner.size

    assert resolve(Mine).count == 4 + 8 + 4
    assert resolve(override(Outer, {"inner.size": 5})).total == 15
    Deeper = override(Mine, {"inner": Inner, "inner.size": 5})
    assert resolve(Deeper).count == 5 + 10 + 4  # what the class says stays


def test_an_option_that_is_called_is_told_to_be_a_value() -> None:
    class Mine(Outer):
        @derived
        def count(self) -> int:
            return super().count()  # type: ignore[operator] # called

    class Other(Outer):
        @derived
        def count(self) -> int:
            return len(3)  # type: ignore[arg-type]

    message = (
        f"{HERE}:{line_of('called')}: count: 'int' object is not callable; an option is a value: read it without ()"
    )
    assert refused(lambda: resolve(Mine)) == message
    with pytest.raises(TypeError, match="has no len"):
        resolve(Other)


def test_what_a_derived_value_prints_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    class Mine(Outer):
        @derived
        def count(self) -> int:
            print("computing")
            return 2

    before = sys.stdout
    assert (resolve(Mine).total, Mine.count) == (8, 2)
    assert sys.stdout is before
    assert capsys.readouterr() == ("", "computing\ncomputing\n")


def test_a_plain_value_overrides_a_derived_one() -> None:
    class Mine(Outer):
        total = 5

    assert (resolve(Mine).total, resolve(Mine).half) == (5, 2.5)
    assert resolve(override(Outer, {"total": 6})).half == 3.0


def test_a_derived_value_can_be_read_on_the_class_for_a_late_binding_free_use() -> None:
    assert Outer.total == 12
    assert Outer.inner.twice == 8


def test_a_derived_value_sees_normalised_values_also_on_the_class() -> None:
    class Mine(Outer):
        rate = 2
        spare = None

        @derived
        def words(self) -> tuple[str, ...]:
            return (repr(self.rate), repr(self.spare))

    assert Mine.words == resolve(Mine).words == ("2.0", "None")


def test_methods_and_derived_values_of_sections_have_a_proper_self() -> None:
    class Mine(Outer):
        inner = Other

        @derived
        def words(self) -> tuple[str, ...]:
            return (self.inner.label(),)

    assert resolve(Mine).words == ("inner-8",)
    assert resolve(override(Mine, {"inner.size": 1, "inner.name": "x"})).words == ("x-2",)
    assert Mine.words == ("inner-8",)


def test_a_derived_value_is_checked_and_normalised_with_its_place() -> None:
    class Mine(Outer):
        @derived
        def count(self) -> int:  # wrong
            return 2.5  # type: ignore[return-value]

    class Whole(Outer):
        @derived
        def rate(self) -> float:
            return 2

    assert f"{HERE}:{line_of('wrong')}: count: expected int, got float 2.5" in refused(lambda: resolve(Mine))
    assert type(resolve(Whole).rate) is float


def test_a_derived_value_is_computed_once() -> None:
    seen = []

    class Mine(Outer):
        @derived
        def count(self) -> int:
            seen.append(1)
            return 2

    config = resolve(Mine)
    assert (config.count, config.total, len(seen)) == (2, 8, 1)


def test_a_cycle_names_its_values_and_their_places() -> None:
    class Mine(Outer):
        @derived
        def count(self) -> int:  # first
            return int(self.rate)

        @derived
        def rate(self) -> float:  # second
            return self.count

    lines = refused(lambda: resolve(Mine)).splitlines()
    assert f"{HERE}:{line_of('first')}: count: derived values form a cycle: count -> rate -> count" in lines
    assert f"{HERE}:{line_of('second')}: rate: derived values form a cycle: rate -> count -> rate" in lines


def test_threads_that_resolve_the_same_class_see_no_cycle() -> None:
    barrier, found = threading.Barrier(4, timeout=5), []

    class Mine(Outer):
        @derived
        def count(self) -> int:
            barrier.wait()  # all are inside at once
            return 2

    def work() -> None:
        found.append(resolve(Mine).total)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [8] * 4


def test_a_function_of_any_name_can_be_made_derived() -> None:
    class Mine(Outer):
        count = derived(lambda self: self.inner.size + 1)

    assert (resolve(Mine).count, resolve(Mine).total, Mine.count) == (5, 20, 5)


def test_a_failed_cycle_leaves_no_trace() -> None:
    class Mine(Outer):
        @derived
        def count(self) -> int:
            return self.count

    refused(lambda: resolve(Mine))
    assert "cycle: count -> count" in refused(lambda: resolve(Mine))
    assert resolve(Outer).total == 12


# --- instances --------------------------------------------------------------------------------------


class Sized(Outer):
    """A class that pickle finds by name."""

    count = 6

    @derived
    def rate(self) -> float:
        return self.total / 4


@pytest.mark.parametrize("changes", [{}, {"count": 2}, {"inner": Other, "inner.extra": 2.5, "rate": 8.0}])
def test_instances_pickle_copy_compare_and_hash_also_with_overrides(changes: dict[str, Any]) -> None:
    config = resolve(override(Sized, changes))
    again = resolve(override(Sized, changes))
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config) == again
    assert hash(config) == hash(again) == hash(pickle.loads(pickle.dumps(config)))
    assert pickle.loads(pickle.dumps(config)).total == config.total
    assert type(config) is Sized


def test_instances_differ_by_class_and_by_value() -> None:
    class Same(Sized):
        pass

    assert resolve(Sized) != resolve(Same)
    assert resolve(Sized) != resolve(override(Sized, {"inner.size": 5}))
    assert resolve(Sized) != "Sized"


def test_a_value_derived_or_written_is_the_same_value() -> None:
    written = resolve(override(Sized, {"rate": 6.0}))
    assert written == resolve(Sized)
    assert hash(written) == hash(resolve(Sized))


def test_an_instance_is_frozen() -> None:
    config = resolve(Outer)
    with pytest.raises(ConfigError, match=rf"{HERE}:\d+: a resolved Outer is frozen; 'count' cannot be set"):
        config.count = 4  # type: ignore[misc]
    with pytest.raises(ConfigError, match="cannot lose 'count'"):
        del config.count
    with pytest.raises(ConfigError, match="'nothing' cannot be set"):
        config.nothing = 4  # type: ignore[attr-defined]
    assert config == resolve(Outer)


def test_an_instance_shows_its_values() -> None:
    assert repr(resolve(Inner)) == "Inner(size=4, name='inner', twice=8)"


def test_calling_a_class_gives_the_resolved_instance_with_changes() -> None:
    assert Outer(count=7).total == 28
    assert Outer(count=7) == resolve(override(Outer, {"count": 7}))
    with pytest.raises(ConfigError, match="Outer has no option 'cout'; did you mean 'count'"):
        Outer(cout=7)
    with pytest.raises(TypeError):
        Outer(3)  # type: ignore[call-arg]


def test_attrs_helpers_work_on_instances() -> None:
    assert attrs.asdict(resolve(Inner)) == {"size": 4, "name": "inner", "twice": 8}
    assert attrs.evolve(resolve(Inner), size=5).size == 5


# --- sealing and refusals ---------------------------------------------------------------------------


def test_a_class_cannot_be_changed() -> None:
    class Mine(Outer):
        pass

    message = rf"{HERE}:\d+: .*Mine is a config; subclass it to change 'count'"
    with pytest.raises(ConfigError, match=message):
        Mine.count = 4  # type: ignore[misc]
    with pytest.raises(ConfigError, match="Mine is a config; it cannot lose 'count'"):
        del Mine.count
    assert resolve(Mine).count == 3


def test_a_typo_is_refused_with_its_line_and_a_suggestion() -> None:
    def statement() -> None:
        class Mine(Outer):
            cuont = 4  # typo

    assert refused(statement) == (
        f"{HERE}:{line_of('typo')}: test_a_typo_is_refused_with_its_line_and_a_suggestion.<locals>.statement.<locals>."
        "Mine has no option 'cuont'; did you mean 'count'?"
    )


def test_all_strangers_of_a_class_are_reported_at_once() -> None:
    class Mixin:
        rat = 3

    def statement() -> None:
        class Mine(Mixin, Outer):
            coun = 1
            inne = Inner
            import os

            other = 3

    lines = refused(statement).splitlines()
    assert [line.partition("has no ")[2].partition(";")[0].removeprefix("option ") for line in lines] == [
        "'rat'",
        "'coun'",
        "section 'inne'",
        "'os'",
        "'other'",
    ]
    assert lines[2].endswith("did you mean 'inner'?")
    assert "it has count, half, inner" in lines[3]


def test_a_stranger_in_a_plain_mixin_names_its_line() -> None:
    class Mixin:
        def other(self) -> None:
            counts = 1
            assert counts

        if True:
            counts = 3  # in the mixin

    message = refused(lambda: types.new_class("Mine", (Mixin, Outer)))
    assert message == f"{HERE}:{line_of('in the mixin')}: Mine has no option 'counts'; did you mean 'count'?"


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, bytearray(b"a")], ids=["list", "dict", "set", "bytearray"])
def test_a_mutable_value_is_refused(value: Any) -> None:
    def body(namespace: dict[str, Any]) -> None:
        namespace["words"] = value

    message = refused(lambda: types.new_class("Mine", (Outer,), exec_body=body))
    assert f"Mine.words is a {type(value).__name__}, which classes would share; write a tuple" in message


@pytest.mark.parametrize("kind", ["property", "method", "static", "cached"])
def test_what_shadows_an_option_is_refused_with_the_word_derived(define: Callable[..., Any], kind: str) -> None:
    decorator = {
        "property": "@property",
        "method": "# none",
        "static": "@staticmethod",
        "cached": "@functools.cached_property",
    }
    arguments = "" if kind == "static" else "self"
    text = f"""
        import functools
        import workspace

        class Train(workspace.Train):
            {decorator[kind]}
            def batch_size({arguments}):
                return 3
    """
    message = refused(lambda: define(text))
    assert message == (
        "projects/p/c.py:6: Train.batch_size is an option; write @derived above the method that computes it"
    )


def test_helpers_that_shadow_nothing_are_welcome() -> None:
    class Mine(Outer):
        @property
        def label(self) -> str:
            return f"{self.count} of {self.total}"

        def twice(self) -> int:
            return 2 * self.count

        @staticmethod
        def fixed() -> int:
            return 1

    assert (resolve(Mine).label, resolve(Mine).twice(), Mine.fixed()) == ("3 of 12", 6, 1)


@pytest.mark.parametrize(
    "decorate", [attrs.define, attrs.frozen, attrs.define(slots=False), attrs.mutable, dataclasses.dataclass]
)
def test_a_decorator_is_refused(decorate: Callable[[type], type]) -> None:
    class Mine(Outer):
        count = 4

    with pytest.raises(ConfigError, match=rf"^{HERE}:\d+: .*Mine: a config class takes no decorator$") as error:
        decorate(Mine)
    assert error.value.hint


def test_a_class_that_type_makes_is_refused_with_its_place() -> None:
    message = refused(lambda: type("Mine", (Outer,), {"count": 4}))  # made by type
    assert message == f"{HERE}:{line_of('made by type')}: Mine: a config class cannot be made by type()"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Meta", Path, "has no section 'Meta'; it has inner, spare"),
        ("CONST", 5, "has no option 'CONST'; a constant is called _CONST"),
        ("inne", Inner, "has no section 'inne'; did you mean 'inner'?"),
    ],
)
def test_what_a_stranger_may_have_been_is_said(name: str, value: object, message: str) -> None:
    found = refused(lambda: types.new_class("Mine", (Outer,), exec_body=lambda body: body.update({name: value})))
    assert found.endswith(message)


def test_a_section_cannot_be_derived() -> None:
    def statement() -> None:
        class Mine(Outer):
            @derived
            def inner(self) -> type[Inner]:
                return Other

    assert "Mine.inner is a section and cannot be derived; assign a class, one that derives from Inner" in refused(
        statement
    )


def test_a_class_takes_no_instance_for_a_section() -> None:
    def statement() -> None:
        class Mine(Outer):
            inner = Inner(size=3)  # type: ignore[assignment]

    assert "Mine.inner is an instance; assign the class, and subclass it to change what it says" in refused(statement)


def test_an_annotation_cannot_change_the_type_of_an_option() -> None:
    def statement() -> None:
        class Mine(Outer):
            count: str = "3"  # type: ignore[assignment] # other type

    assert refused(statement) == f"{HERE}:{line_of('other type')}: count: it is declared as int; drop the annotation"


@pytest.mark.parametrize(
    "hint", [dict[str, int], list[int], int | str, Any, complex, tuple[complex, ...], ClassVar[int]]
)
def test_an_option_of_a_type_without_a_strict_rule_is_refused(hint: Any) -> None:
    def body(namespace: dict[str, Any]) -> None:
        namespace["__annotations__"] = {"fresh": hint}
        namespace["fresh"] = None

    assert "fresh: an option cannot be of type" in refused(lambda: types.new_class("Mine", (Outer,), exec_body=body))


def test_a_new_derived_value_must_say_its_type() -> None:
    def statement() -> None:
        class Mine(Outer):
            @derived
            def fresh(self):
                return 3

    assert (
        "fresh: an option cannot be of type Any; write its type: `name: int`, and of a derived value `-> int`"
        in refused(statement)
    )


def test_an_unknown_annotation_names_its_place(define: Callable[..., Any]) -> None:
    text = """
        import workspace

        class Train(workspace.Train):
            fresh: "Nothing" = 3
            later: type["Train"]
    """
    assert refused(lambda: define(text)).splitlines() == [
        f"projects/p/c.py:{line}: {name}: its annotation names {unknown!r}, unknown where the class begins; "
        "define or import it above"
        for line, name, unknown in ((4, "fresh", "Nothing"), (5, "later", "Train"))
    ]


def test_postponed_annotations_are_understood(define: Callable[..., Any]) -> None:
    text = """
        from __future__ import annotations
        from pathlib import Path
        import workspace
        from lovecraft import Save, derived
        from projects.texts.default import Dataset

        class Train(workspace.Train):
            dataset = Dataset
            backup: type[Save] | None = None
            where: Path | None = None

            @derived
            def fresh(self) -> int:
                return 3 if self.backup is self.where else 4
    """
    config = resolve(define(text))
    assert (config.backup, config.where, config.fresh) == (None, None, 3)


def declare(name: str, hint: Any, value: Any = attrs.NOTHING, base: Any = Outer) -> Any:
    """Declare one more option in a class of its own."""

    def body(namespace: dict[str, Any]) -> None:
        namespace.update({"__module__": __name__, "__annotations__": {name: hint}})
        if value is not attrs.NOTHING:
            namespace[name] = value

    return types.new_class("Mine", (base,), exec_body=body)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("help", "--help is a flag of lc itself; choose another name"),
        ("dry_run", "--dry-run is a flag of lc itself; choose another name"),
        ("no_loud", "--no-loud would mean two options; choose another name"),
        ("Count", "it differs from count only in case; choose another name"),
        ("max-steps", "an option's name begins with a letter and has only a-z, 0-9 and _"),
        ("größe", "'ö' is latin small letter o with diaeresis, 'ß' is latin small letter sharp s; "),
        ("cоunt", "'о' is cyrillic small letter o; an option's name has only a-z, 0-9 and _"),
    ],
)
def test_a_name_that_cannot_be_a_flag_of_its_own_is_refused(name: str, message: str) -> None:
    found = refused(lambda: declare(name, int, 3))
    assert found.startswith(f"{HERE}:")
    assert f" {name}: {message}" in found


def test_an_option_is_refused_where_its_negation_is_one() -> None:
    assert "loud: --no-loud would mean two options" in refused(
        lambda: declare("loud", bool, True, base=declare("no_loud", bool, True, base=Inner))
    )


def test_a_letter_that_only_looks_right_is_named() -> None:
    def statement() -> None:
        class Mine(Outer):
            cоunt = 4

    assert "Mine has no option 'cоunt': 'о' is cyrillic small letter o" in refused(statement)


def test_a_required_option_may_follow_one_with_a_default() -> None:
    mine = declare("more", int)
    assert "more: required; set it in Mine" in refused(lambda: resolve(mine))
    assert resolve(override(mine, {"more": 2})).more == 2


def test_every_wrong_declaration_is_reported_with_its_line(define: Callable[..., Any]) -> None:
    text = """
        from typing import Annotated, ClassVar, Final
        import attrs
        import workspace
        from lovecraft import Save

        class Train(workspace.Train):
            one: ClassVar[int] = 1
            two: Final = 2
            three: list[int] = [3]
            four: Annotated[int, attrs.validators.in_((1, 2))] = 4
            five: Save = Save
            six: "int |" = 6
            seven: int = attrs.field(default=7)
            seeed = 8
            __slots__ = ()

            def __init__(self) -> None: ...
    """
    found = [line.removeprefix("projects/p/c.py:") for line in refused(lambda: define(text)).splitlines()]
    lines = [line.partition(": ")[0] for line in found]
    assert lines == ["7", "8", "9", "10", "11", "12", "13", "14", "15", "17"]
    assert found[0].endswith("ClassVar; write a constant above the class, or with a name that begins with _")
    assert found[2].endswith("an option cannot be of type list; write tuple[X, ...]")
    assert "is no check; write gt, ge, le, fraction, or a function that takes the value" in found[3]
    assert found[4].endswith("five: it is a section; write type[Save]")
    assert "six: its annotation 'int |' is no type" in found[5]
    assert found[6].endswith("Train.seven is a field of attrs or dataclasses; write the plain default")
    assert found[9].endswith("Train.__init__ has no place in a config; write @derived, or a method with a plain name")


def test_special_methods_of_a_plain_mixin_are_refused() -> None:
    @dataclasses.dataclass
    class Mixin:
        count: int = 5

    assert "Mine.__eq__ has no place in a config" in refused(lambda: types.new_class("Mine", (Mixin, Outer)))


@pytest.mark.parametrize("what", [property(lambda self: 3), staticmethod(int), lambda self, other: 3, 3])
def test_derived_takes_a_method(what: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{HERE}:\d+: derived takes a method; write `def name\(self\) -> type`"):
        derived(what)


def test_derived_takes_no_parentheses() -> None:
    def statement() -> None:
        @derived()  # type: ignore[call-arg] # with some
        def one(self: Any) -> int:
            return 1

    message = f"{HERE}:{line_of('with some')}: derived takes no parentheses; write `def name(self) -> type` below it"
    assert refused(statement) == message


def test_an_annotation_gives_a_derived_function_its_type() -> None:
    assert resolve(declare("more", float, derived(lambda self: self.count))).more == 3.0


def test_a_check_of_ones_own_raises_or_returns_false() -> None:
    def even(value: int) -> bool:
        return value % 2 == 0

    def small(value: int) -> None:
        if value > 9:
            raise ValueError(f"{value} is much")

    mine = declare("more", Annotated[int, even, small], 2)
    assert resolve(mine).more == 2
    assert "more: does not pass even, got 3" in refused(lambda: resolve(override(mine, {"more": 3})))
    assert "more: 12 is much" in refused(lambda: resolve(override(mine, {"more": 12})))


def test_what_a_cached_property_keeps_changes_no_instance() -> None:
    class Mine(Outer):
        @functools.cached_property
        def label(self) -> str:
            return "x" * self.count

    one, other = resolve(Mine), resolve(override(Mine, {"count": 3}))
    assert one.label == "xxx"
    assert (one, hash(one), repr(one)) == (other, hash(other), repr(other))


def test_a_class_of_a_notebook_names_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(file: str) -> tuple[str, str] | None:
        return ("Cell", "In[3]") if file == "/tmp/ipykernel_1/2.py" else None

    shell = types.SimpleNamespace(compile=types.SimpleNamespace(format_code_name=name))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    text = "class Mine(Outer):\n    count = 7  # lucky\n    seeed = 3\n"
    with pytest.raises(ConfigError, match=r"^Cell In\[3\]:3: Mine has no option 'seeed'"):
        exec(compile(text, "/tmp/ipykernel_1/2.py", "exec"), {"Outer": Outer, "__name__": "__main__"})
    assert refused(lambda: types.new_class("Mine", (Outer,), exec_body=lambda body: body.update(x=1)))


def test_the_library_declares_every_option_with_type_and_sentence() -> None:
    from lovecraft.config import schema
    from lovecraft.config.source import sentence

    kinds = [kind for kind in vars(schema).values() if inspect.isclass(kind) and issubclass(kind, Config)]
    missing = [
        f"{kind.__name__}.{name}"
        for kind in kinds
        for name in kind.__options__
        if not sentence(kind, name).endswith(".")
    ]
    assert not missing


def test_library_sections_are_swappable_for_users_subclasses() -> None:
    class Mine(AdamW):
        lr = 1

    class Train(TrainConfig):
        optimizer = Mine
        save = None

    assert Train.optimizer.lr == 1
    assert issubclass(Train.optimizer, AdamW)
    assert not issubclass(Train.optimizer, SGD)
    assert DatasetConfig.__options__["source"].section is None
