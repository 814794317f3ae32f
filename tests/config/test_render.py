"""Configs and differences as plain text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft.config import render
from lovecraft.config.base import Origin
from lovecraft.config.diff import Change, entries
from lovecraft.config.load import load
from lovecraft.config.override import override
from lovecraft.config.resolve import rows


def test_columns_are_aligned_and_the_last_is_never_padded() -> None:
    lines = [("a", "bbb", "c"), ("aaa", "b", "cccccc"), ("a", "b", "")]
    assert render.columns(lines) == "a    bbb  c\naaa  b    cccccc\na    b"
    assert render.columns([("a", "long last cell"), ("a", "b", "c")]) == "a  long last cell\na  b  c"
    assert render.columns([]) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "true"),
        (4e-6, "4e-06"),
        (1.0, "1.0"),
        ("a b", "a b"),
        ((), "[]"),
        (("a, b", "c"), '["a, b", "c"]'),
        (("",), '[""]'),
        ("", '""'),
        ("a\nb", '"a\\nb"'),
        (("a", "b"), "a, b"),
        ([0.9, 0.999], "0.9, 0.999"),
        (Path("/w/models/a"), "//models/a"),
        (Path("/x"), "/x"),
    ],
)
def test_values_are_written_for_people(value: Any, text: str) -> None:
    assert render.text_of(value, Path("/w")) == text


def test_a_text_none_is_in_quotes_where_it_is_no_choice(workspace: Path) -> None:
    assert [render.text_of("none", kind=kind) for kind in ("str", "str or none", "one of 'none', 'all'", "")] == [
        '"none"',
        '"none"',
        "none",
        "none",
    ]
    cls = override(load("tiny").cls, {"dataset.text_field": "none"})
    shown = {line.split()[0]: line.split()[1] for line in render.table(entries(cls, workspace)).splitlines()}
    assert (shown["dataset.text_field"], shown["dataset.packing"], shown["max_minutes"]) == ('"none"', "none", "none")


def test_why_shows_values_as_they_count(workspace: Path) -> None:
    cls = override(override(load("tiny").cls, {"epochs": "x"}), {"epochs": 5})
    lines = why(cls, "epochs", workspace)
    assert [line.split()[:3] for line in lines[:3]] == [
        ["epochs", "5.0", "an"],
        ["was", "x", "an"],
        ["was", "1.0", lines[2].split()[2]],
    ]


def test_a_path_is_absolute_where_there_is_no_workspace() -> None:
    assert render.text_of(Path("/w/a")) == "/w/a"


def test_sections_begin_where_the_first_part_of_the_path_changes() -> None:
    paths = ["data", "data.a", "data.b.c", "save", "log.x", "seed", "steps"]  # save is switched off
    assert render.breaks(paths) == [False, False, False, True, True, True, False]


def why(cls: Any, path: str, root: Path) -> list[str]:
    """Return the lines that explain one option."""
    return render.columns(render.why(next(row for row in rows(cls) if row.path == path), root)).splitlines()


def test_why_lists_every_value_the_winning_one_first(workspace: Path, define: Callable[..., Any]) -> None:
    cls = define(
        """
        from lovecraft import SGD, derived
        from projects.tiny import default

        class Train(default.Train):
            @derived
            def batch_size(self) -> int:
                return super().batch_size * 2
        """
    )
    flag = {"batch_size": Origin("", said="--batch-size 9")}
    lines = why(override(cls, {"batch_size": 9}, flag), "batch_size", workspace)
    assert [line.split()[-3:] for line in lines[:3]] == [
        ["9", "--batch-size", "9"],
        ["was", "derived", "projects/p/c.py:6"],
        ["was", "2", "projects/tiny/default.py:8"],
    ]
    assert why(cls, "batch_size", workspace)[0].split() == ["batch_size", "4", "projects/p/c.py:6"]


def test_why_of_a_section_names_library_classes(workspace: Path) -> None:
    lines = why(load("tiny").cls, "schedule", workspace)
    assert lines[0].split() == ["schedule", "Constant", "workspace.py:20"]
    assert lines[1].split()[:2] == ["was", "Cosine"]


def test_why_of_a_path_writes_it_relative_to_the_workspace(workspace: Path) -> None:
    assert why(load("tiny").cls, "model.path", workspace)[0].split()[1] == "//models/tiny"


CHANGES = [
    Change("a", 1, 2, "x.py:1", "--a 2"),
    Change("only_a", "v", None, "x.py:2", ""),
    Change("only_b", None, ["p", "q"], "", "y.py:3"),
    Change("off", "Save", None, "x.py:4", "--save none"),
]


def test_changes_are_headings_with_a_line_for_each_side_that_has_the_option() -> None:
    assert render.changes(CHANGES).splitlines() == [
        "a",
        "- 1  x.py:1",
        "+ 2  --a 2",
        "only_a",
        "- v  x.py:2",
        "only_b",
        "+ p, q  y.py:3",
        "off",
        "- Save  x.py:4",
        "+ none  --save none",
    ]
    assert render.changes([]) == ""
