"""Curves: every point is drawn where its numbers say."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft.train import curves, drawing

ROWS = [
    {"step": 0, "split": "validation", "loss": 4.0, "tokens": 9},
    *[
        {"step": i, "loss": 4.0 - 0.1 * i, "lr": 1e-3, "grad_norm": 2.0, "tokens_per_second": 12_000.0}
        for i in range(1, 11)
    ],
    {"step": 10, "split": "validation", "loss": 3.5, "tokens": 9},
]
RUNS = [("p/c/001", ROWS), ("p/c/002", ROWS[:6])]
SVG = "{http://www.w3.org/2000/svg}"


def drawn(runs: curves.Runs, title: str = "a & b") -> ElementTree.Element:
    return ElementTree.fromstring(drawing.svg(runs, title))


def test_smoothing_has_no_bias_at_its_start():
    constant = [{"step": i, "loss": 2.5} for i in range(1, 20)]

    assert [loss for _, loss in curves.curve("x", constant).mean] == pytest.approx([2.5] * 19)


def test_held_out_losses_are_those_of_one_split():
    other = [{"step": 3, "split": "test", "loss": 9.0, "tokens": 9}]
    assert curves.curve("x", other + ROWS).held_out == [(0, 4.0), (10, 3.5)]


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(2, 8))
def test_ticks_are_few_even_and_around_all(one: float, other: float, most: int):
    low, high = sorted((one, other))
    marks = curves.ticks(low, high, most)
    assert 2 <= len(marks) <= most + 2
    steps = [b - a for a, b in itertools.pairwise(marks)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-4)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (2e-5, "2e-5"), (1.5, "1.5"), (1200, "1.2k"), (20_000, "20k"), (3e6, "3M")]
)
def test_numbers_are_short(value: float, text: str):
    assert curves.number(value) == text


def test_the_svg_has_a_dot_for_each_evaluation_and_a_point_for_each_step():
    picture = drawn(RUNS[:1])
    titles = [title.text for title in picture.iter(f"{SVG}title")]
    assert titles == ["p/c/001, step 0: 4.0000", "p/c/001, step 10: 3.5000"]
    lines = [(line.get("class"), len(str(line.get("points")).split())) for line in picture.iter(f"{SVG}polyline")]
    assert lines == [("raw", 10), ("mean", 10), ("held", 2), ("thin", 10), ("thin", 10), ("thin", 10)]
    said = [text.text for text in picture.iter(f"{SVG}text")]
    assert {"a & b", "loss, nats a token", "learning rate", "gradient norm", "tokens a second", "step"} <= set(said)


def test_a_point_lies_where_the_ticks_of_its_axes_say():
    picture = drawn(RUNS[:1])
    at = {text.text: (float(text.get("x", 0)), float(text.get("y", 0)) - 4) for text in picture.iter(f"{SVG}text")}
    end = list(picture.iter(f"{SVG}circle"))[1]
    assert float(end.get("cy", 0)) == pytest.approx((at["3.4"][1] + at["3.6"][1]) / 2)


def test_nothing_leaves_the_picture():
    wild = [{**row, "loss": 99.0} if row["step"] == 5 else row for row in ROWS]
    picture = drawn([("x", wild)])
    _, _, width, height = map(float, str(picture.get("viewBox")).split())
    for line in picture.iter(f"{SVG}polyline"):
        for x, y in (map(float, point.split(",")) for point in str(line.get("points")).split()):
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_several_runs_have_a_colour_and_a_line_of_the_legend_each():
    picture = drawn(RUNS)
    colours = {line.get("stroke") for line in picture.iter(f"{SVG}polyline") if line.get("class") == "mean"}
    assert len(colours) == 2
    said = " ".join(str(text.text) for text in picture.iter(f"{SVG}text"))
    assert "p/c/001: training 3.3" in said
    assert "p/c/002: training 3.6" in said


def test_a_very_long_run_is_thinned():
    rows = [{"step": i, "loss": 2.0 + i % 7, "lr": 1e-3} for i in range(1, 100_001)]
    assert len(drawing.svg([("x", rows)], "x")) < 100_000


def test_the_text_spans_the_losses_and_marks_both_kinds():
    lines = curves.text(RUNS[:1], 60).splitlines()
    assert lines[0].startswith("      4 ┤o")
    assert re.search("[\u2801-\u28ff]", "".join(lines))
    assert "step 10" in lines[15]
    assert "held out 3.5000 (o)" in lines[16]
    assert lines[17].strip().startswith("learning rate")
    assert max(map(len, lines)) <= 60 + 9


def test_of_several_runs_each_has_a_letter():
    lines = curves.text(RUNS, 40).splitlines()
    box = "".join(line[9:] for line in lines[:14])
    assert ("a" in box, "b" in box) == (True, True)
    assert lines[-2].split()[:2] == ["a", "p/c/001:"]
    assert lines[-1].split()[:2] == ["b", "p/c/002:"]


@pytest.mark.parametrize("rows", [ROWS[1:2], [{**row, "loss": 2.0} for row in ROWS], ROWS[:2]])
def test_one_row_or_one_value_is_enough_to_draw(rows: list[dict[str, object]]):
    assert "step" in curves.text([("x", rows)])
    assert drawn([("x", rows)]) is not None
