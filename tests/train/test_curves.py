"""Loss curves: every point is drawn where its numbers say."""

import xml.etree.ElementTree as ElementTree

import pytest

from lovecraft.train import curves

ROWS = [
    {"step": 0, "split": "validation", "loss": 4.0, "tokens": 9},
    *[{"step": i, "loss": 4.0 - 0.1 * i, "lr": 1e-3} for i in range(1, 11)],
    {"step": 10, "split": "validation", "loss": 3.5, "tokens": 9},
]


def test_smoothing_has_no_bias_at_its_start():
    constant = [(i, 2.5) for i in range(1, 20)]

    assert [loss for _, loss in curves.smoothed(constant)] == pytest.approx([2.5] * 19)


def test_the_svg_has_a_dot_for_each_evaluation_and_a_point_for_each_step():
    drawing = ElementTree.fromstring(curves.svg(ROWS, "a & b"))
    tag = "{http://www.w3.org/2000/svg}"

    assert [title.text for title in drawing.iter(f"{tag}title")] == ["step 0: 4.0000", "step 10: 3.5000"]
    train, smooth, held_out = [len(line.get("points").split()) for line in drawing.iter(f"{tag}polyline")]
    assert (train, smooth, held_out) == (10, 10, 2)


def test_the_text_spans_the_losses_and_marks_both_kinds():
    lines = curves.text(ROWS).splitlines()

    assert lines[0].startswith("  4.000 │o")
    assert "*" in "".join(lines)
    assert lines[11].startswith("  3.")


def test_one_row_is_enough_to_draw():
    assert "step 1" in curves.text(ROWS[1:2])
    assert ElementTree.fromstring(curves.svg(ROWS[1:2], "x")) is not None
