"""Sinks: the rows of metrics.jsonl, each once, wherever a run is stopped; one that breaks breaks alone."""

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from lovecraft.errors import ConfigError, RunError
from lovecraft.runs import Run
from lovecraft.train import sinks
from lovecraft.train.control import request
from lovecraft.train.metrics import read
from tests.train.bench import Bench
from tests.train.test_resume import after


class FakeWandb:
    """Takes what wandb would; `broken` rows raise."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.codes: list[int] = []
        self.broken = False
        self.__spec__ = SimpleNamespace(name="wandb")

    def init(self, **words: Any) -> "FakeWandb":
        print("wandb says something on stdout")
        self.begun.append(words)
        return self

    def Settings(self, **words: Any) -> dict[str, Any]:
        return words

    def log(self, values: dict[str, float], step: int) -> None:
        if self.broken:
            raise ConnectionError("no network")
        self.rows.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    """Stand in for wandb."""
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    return fake


def recorded(bench: Bench, name: str = "001") -> Run:
    """Return a run with the little of a record that a sink reads."""
    run = bench.run(name)
    content = {"format": 1, "created": "2026-11-25T00:00:00+00:00", "fingerprint": name}
    (run.directory / "record.json").write_text(json.dumps(content))
    return run


@pytest.fixture(autouse=True)
def records_are_read_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "record", property(lambda run: json.loads((run.directory / "record.json").read_text())))


def as_sent(run: Run) -> list[tuple[int, dict[str, float]]]:
    return [(row["step"], sinks.numbers(row)) for row in read(run.directory)]


def test_a_sink_gets_the_rows_of_the_metrics_file(
    bench: Bench, wandb: FakeWandb, capfd: pytest.CaptureFixture[str]
) -> None:
    run = recorded(bench)
    bench.train(bench.config(log__sinks=("wandb",), log__every=2, eval__every=3), run)
    assert wandb.rows == as_sent(run)
    assert wandb.rows[0][1].keys() == {f"validation/{n}" for n in ("loss", "tokens", "perplexity", "bits_per_byte")}
    assert "train/loss" in wandb.rows[1][1]
    assert wandb.codes == [0]
    [begun] = wandb.begun
    assert (begun["project"], begun["name"], begun["resume"]) == ("tiny", "tiny/default/001", "allow")
    assert begun["config"]["dataset"]["block_size"] == 24
    json.dumps(begun["config"])
    assert capfd.readouterr().out == "", "stdout is for the run's directory alone"


def test_a_resumed_run_sends_no_row_twice_and_keeps_its_name(
    bench: Bench, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = recorded(bench), bench.config(log__sinks=("wandb",), save__every=2)
    with monkeypatch.context() as patch:
        after(patch, 5, lambda: request(run.directory, "abort"))
        bench.train(config, run)
    assert [step for step, _ in wandb.rows] == [0, 1, 2, 3, 4, 5]
    bench.train(config, run)  # from step 4: step 5 comes again
    assert [(step, values.get("train/loss")) for step, values in wandb.rows] == [
        (row["step"], row["loss"] if "lr" in row else None) for row in read(run.directory)
    ]
    assert len({begun["id"] for begun in wandb.begun}) == 1
    assert sinks.id_of(run) != sinks.id_of(recorded(bench, "002"))


def test_a_sink_that_comes_later_gets_the_earlier_rows_first(
    bench: Bench, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded(bench)
    with monkeypatch.context() as patch:
        after(patch, 3, lambda: request(run.directory, "abort"))
        bench.train(bench.config(save__every=2), run)
    bench.train(bench.config(save__every=2, log__sinks=("wandb",)), run)
    assert wandb.rows == as_sent(run)


def test_a_sink_that_breaks_is_warned_of_once_and_the_training_goes_on(
    bench: Bench, wandb: FakeWandb, capfd: pytest.CaptureFixture[str]
) -> None:
    run = recorded(bench)
    wandb.broken = True
    assert bench.train(bench.config(log__sinks=("wandb",)), run).step == 6
    assert capfd.readouterr().err.count("wandb takes no more rows: no network; the training goes on") == 1
    assert len(read(run.directory)) == 8


def test_a_failed_training_is_a_failed_run_there(
    bench: Bench, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lovecraft.errors import TrainingFailed
    from tests.train.test_loop import poison

    poison(monkeypatch, step=3)
    with pytest.raises(TrainingFailed):
        bench.train(bench.config(log__sinks=("wandb",)), recorded(bench))
    assert wandb.codes == [1]


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        bench.train(bench.config(log__sinks=("trackio",)), recorded(bench))
    assert caught.value.hint == "pip install 'lovecraft-lc[trackio]'"


def test_a_sink_that_cannot_be_opened_is_an_error_before_the_first_step(
    bench: Bench, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "init", lambda **_: 1 / 0)
    run = recorded(bench)
    with pytest.raises(RunError, match="wandb cannot be opened: division by zero") as caught:
        bench.train(bench.config(log__sinks=("wandb",)), run)
    assert "WANDB_MODE=offline" in caught.value.hint
    assert read(run.directory) == []


def test_tensorboard_shows_each_step_once_over_a_resume(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, config = recorded(bench), bench.config(log__sinks=("tensorboard",), save__every=2)
    with monkeypatch.context() as patch:
        after(patch, 5, lambda: request(run.directory, "abort"))
        bench.train(config, run)
    bench.train(config, run)
    found = EventAccumulator(str(run.directory / "tensorboard"))
    found.Reload()
    shown = [(event.step, event.value) for event in found.Scalars("train/loss")]
    assert shown == [(row["step"], pytest.approx(row["loss"])) for row in read(run.directory) if "lr" in row]
    assert [event.step for event in found.Scalars("validation/perplexity")] == [0, 6]
