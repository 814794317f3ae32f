"""A profile of a few steps."""

import json

import pytest

from lovecraft.train.trace import NAME
from tests.train.bench import Bench, rows


def test_the_steps_after_the_first_are_traced_and_change_nothing(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    run, plain = bench.run(), bench.run("plain")
    bench.train(bench.config(log__profile=2, max_steps=4), run)
    err = capfd.readouterr().err
    events = json.loads((run.directory / NAME).read_text())["traceEvents"]
    assert sum(event["name"] == "aten::embedding" for event in events) == 2, "once a forward pass"
    assert "share" in err
    assert "aten::mm" in err
    assert str(run.directory / NAME) in err
    bench.train(bench.config(max_steps=4), plain)
    assert rows(run) == rows(plain)


def test_a_training_that_ends_before_leaves_what_there_is(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    run = bench.run()
    bench.train(bench.config(log__profile=9, max_steps=2, eval=None), run)
    assert json.loads((run.directory / NAME).read_text())["traceEvents"]


def test_one_step_makes_no_trace(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    run = bench.run()
    bench.train(bench.config(log__profile=1, max_steps=1, eval=None), run)
    assert not (run.directory / NAME).exists()
    assert "no trace" in capfd.readouterr().err
