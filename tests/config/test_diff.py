"""What differs: laws of a difference, and the two views of `lc show --diff`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import SGD, Adafactor, Cosine
from lovecraft.config.diff import Change, Entry, changed_from_defaults, changed_here, diff, entries
from lovecraft.config.load import load
from lovecraft.config.override import override
from lovecraft.errors import ConfigError

VALUES = st.one_of(st.none(), st.integers(0, 3), st.text(max_size=2))


def options() -> st.SearchStrategy[list[Entry]]:
    """Lists of entries over few paths and values, so that they often meet."""
    return st.dictionaries(st.sampled_from("abcdef"), VALUES).map(
        lambda found: [Entry(path, value, "type", f"at {path}") for path, value in found.items()]
    )


def applied(changes: list[Change], a: list[Entry]) -> dict[str, Any]:
    """Return the values of `a` after all changes: a side without origin lacks the option."""
    found = {entry.path: entry.value for entry in a}
    for change in changes:
        assert found.get(change.path) == change.a
        if change.b_origin:
            found[change.path] = change.b
        else:
            del found[change.path]
    return found


@given(options())
def test_nothing_differs_from_itself(a: list[Entry]) -> None:
    assert diff(a, a) == []


@given(options(), options())
def test_the_changes_applied_to_one_side_give_the_other(a: list[Entry], b: list[Entry]) -> None:
    assert applied(diff(a, b), a) == {entry.path: entry.value for entry in b}


@given(options(), options())
def test_a_difference_seen_from_the_other_side_is_turned_around(a: list[Entry], b: list[Entry]) -> None:
    there = {(c.path, repr(c.a), repr(c.b)) for c in diff(a, b)}
    back = {(c.path, repr(c.b), repr(c.a)) for c in diff(b, a)}
    assert there == back


def test_the_defaults_of_a_section_that_is_switched_off_are_left_out(workspace: Path) -> None:
    tiny = load("tiny").cls
    often, never = override(tiny, {"save.every": 5}), override(tiny, {"save": None})
    paths = [change.path for change in diff(entries(often, workspace), entries(never, workspace))]
    assert paths == ["save", "save.every"]
    assert [change.path for change in diff(entries(never, workspace), entries(tiny, workspace))] == ["save"]


def test_a_difference_names_both_origins(workspace: Path) -> None:
    tiny = load("tiny").cls
    other = override(tiny, {"optimizer": SGD, "batch_size": 5})
    found = {change.path: change for change in diff(entries(tiny, workspace), entries(other, workspace))}
    inside = [f"optimizer.{name}" for name in ("lr", "betas", "eps", "state_dtype")]
    assert list(found) == ["optimizer", *inside, "batch_size", "optimizer.momentum"]
    assert found["batch_size"] == Change("batch_size", 2, 5, "projects/tiny/default.py:8", "an override")
    assert (found["optimizer.betas"].b, found["optimizer.betas"].b_origin) == (None, "")
    assert (found["optimizer.momentum"].a, found["optimizer.momentum"].a_origin) == (None, "")


def test_entries_are_json(workspace: Path) -> None:
    found = {entry.path: entry for entry in entries(load("tiny").cls, workspace)}
    assert attrs.asdict(found["dataset.source"]) == {
        "path": "dataset.source",
        "value": "//texts",
        "type": "path",
        "origin": "projects/texts/default.py:7",
        "comment": "",
        "default": None,
    }
    assert attrs.asdict(found["dataset.validation"]) == {
        "path": "dataset.validation",
        "value": ["c.txt"],
        "type": "tuple of str or none",
        "origin": "projects/texts/default.py:8",
        "comment": "held out",
        "default": None,
    }
    assert (found["optimizer"].value, found["optimizer"].type) == ("AdamW", "OptimizerConfig")


def test_changes_from_the_defaults_are_exactly_what_is_not_the_default(workspace: Path) -> None:
    found = changed_from_defaults(entries(load("tiny").cls, workspace))
    assert [(change.path, change.a, change.b) for change in found] == [
        ("dataset.source", None, "//texts"),
        ("dataset.validation", None, ["c.txt"]),
        ("dataset.block_size", 512, 32),
        ("dataset.stride", 64, 8),
        ("model.path", None, "//models/tiny"),
        ("model.dtype", "auto", "float32"),
        ("optimizer.lr", 2e-5, 1e-3),
        ("schedule", "Cosine", "Constant"),
        ("max_steps", None, 4),
        ("batch_size", 8, 2),
        ("device", "auto", "cpu"),
    ]


def test_changes_from_the_defaults_show_what_an_override_of_a_library_class_says(workspace: Path) -> None:
    changed = override(load("tiny").cls, {"optimizer": Adafactor, "optimizer.lr": 0.5, "schedule": Cosine})
    found = {change.path: change for change in changed_from_defaults(entries(changed, workspace))}
    assert (found["optimizer.lr"].a, found["optimizer.lr"].b) == (1e-5, 0.5)
    assert (found["optimizer"].a, found["optimizer"].b) == ("AdamW", "Adafactor")
    assert "schedule" not in found


# --- what this file changed -------------------------------------------------------------------------


def here(cls: Any, root: Path) -> dict[str, tuple[Any, Any, str]]:
    """Return (before, now, where it was) of what the config's own file changed."""
    return {change.path: (change.a, change.b, change.a_origin) for change in changed_here(cls, root)}


def test_a_file_changed_what_it_and_its_sections_set(workspace: Path, define: Callable[..., Any]) -> None:
    cls = define(
        """
        from lovecraft import SGD, derived
        from projects.tiny import default

        class Optimizer(SGD):
            momentum = 0.5

        class Middle(default.Train):
            seed = 1

        class Train(Middle):
            optimizer = Optimizer
            max_steps = 4  # as it was

            @derived
            def batch_size(self) -> int:
                return self.dataset.block_size // 8
        """
    )
    found = here(cls, workspace)
    before, now, origin = found.pop("seed")
    assert (before, now) == (42, 1)
    assert origin.startswith("lovecraft/config/schema.py:")
    assert found == {
        "optimizer": ("AdamW", "SGD", "workspace.py:19"),
        "optimizer.lr": (1e-3, 1e-5, "workspace.py:14"),
        "optimizer.momentum": (0.0, 0.5, ""),
        "batch_size": (2, 4, "projects/tiny/default.py:8"),
    }


def test_a_section_swapped_for_one_of_another_file_is_a_change(workspace: Path, define: Callable[..., Any]) -> None:
    define("from projects.texts import default\n\nclass Dataset(default.Dataset):\n    block_size = 16\n", "k16")
    cls = define(
        "from projects.tiny import default\nfrom projects.p import k16\n\nclass Train(default.Train):\n"
        "    dataset = k16.Dataset\n",
        "big",
    )
    assert here(cls, workspace) == {"dataset.block_size": (32, 16, "projects/texts/default.py:9")}


def test_what_the_parent_leaves_open_is_compared_with_the_librarys_defaults(workspace: Path) -> None:
    found = here(load("tiny").cls, workspace)
    assert set(found) == {
        "dataset.source",
        "dataset.validation",
        "dataset.block_size",
        "dataset.stride",
        "max_steps",
        "batch_size",
        "device",
    }
    assert found["dataset.block_size"] == (512, 32, "")


def test_flags_count_as_changes_of_the_file(workspace: Path) -> None:
    cls = override(load("tiny").cls, {"dataset.block_size": 99, "optimizer.lr": 5.0, "batch_size": 8})
    found = here(cls, workspace)
    assert found["dataset.block_size"] == (512, 99, "")
    assert found["optimizer.lr"] == (1e-3, 5.0, "workspace.py:14")
    assert "batch_size" not in found  # back to what it was


def test_a_file_that_changes_nothing_has_no_changes(workspace: Path, define: Callable[..., Any]) -> None:
    assert here(define("from projects.tiny import default\n\nclass Train(default.Train):\n    pass\n"), workspace) == {}


def test_a_broken_config_has_no_difference_but_an_error(define: Callable[..., Any], workspace: Path) -> None:
    cls = define("from projects.tiny import default\n\nclass Train(default.Train):\n    seed = 'x'\n")
    with pytest.raises(ConfigError):
        changed_here(cls, workspace)
