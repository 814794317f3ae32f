"""An update in backward takes the same step to the bit, holds one gradient at a time, saves nothing that is ruined."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lovecraft import SGD, Adafactor, AdamW
from lovecraft.errors import TrainingFailed
from lovecraft.runs import Run
from lovecraft.train import in_backward, loop, state
from lovecraft.train.in_backward import InBackward
from tests.train.bench import Bench, rows

ON = {"memory__optimizer_in_backward": "on"}


def saved(run: Run) -> dict[str, Tensor]:
    """Return the weights and the optimizer's state of a run's newest checkpoint."""
    directory = state.checkpoint_directory(run)
    assert directory is not None
    return load_file(directory / "model.safetensors") | load_file(directory / "trainer" / "optimizer.safetensors")


def assert_same(one: Run, other: Run) -> None:
    assert rows(one) == rows(other)
    theirs = saved(other)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in saved(one).items())


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": SGD},
        {"optimizer": AdamW, "optimizer__weight_decay": 0.1},
        {"optimizer": Adafactor, "memory__loss_chunk": 7},
        {"optimizer": Adafactor, "model__dtype": "bfloat16", "memory__offload": "block_inputs"},
        {"optimizer": AdamW, "model__dtype": "bfloat16", "optimizer__rounding": "master"},
        {"optimizer": AdamW, "model__dtype": "bfloat16", "memory__checkpointing": "block"},
    ],
)
def test_it_is_the_ordinary_step_to_the_bit_with_a_tied_head(bench: Bench, changes: dict[str, Any]) -> None:
    ordinary, hooked = bench.run("1"), bench.run("2")
    bench.train(bench.config(**changes, memory__optimizer_in_backward="off", max_steps=3), ordinary)
    bench.train(bench.config(**changes, **ON, max_steps=3), hooked)
    assert_same(ordinary, hooked)


def test_a_resumed_run_is_the_same_whichever_way_it_goes_on(bench: Bench) -> None:
    whole, parts = bench.run("1"), bench.run("2")
    bench.train(bench.config(**ON, eval=None), whole)
    bench.train(bench.config(**ON, max_steps=3, eval=None), parts)
    bench.train(bench.config(eval=None), parts)
    assert_same(whole, parts)


def test_each_parameter_has_one_gradient_a_step_and_no_two_are_there_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, names = [], []
    take = InBackward._take

    def spied(self: InBackward, index: int, name: str, parameter: Tensor) -> None:
        alive.append(sum(p.grad.nbytes for p in self.parameters.values() if p.grad is not None))
        names.append(name)
        take(self, index, name, parameter)

    monkeypatch.setattr(InBackward, "_take", spied)
    outcome = bench.train(bench.config(**ON, max_steps=1, memory__loss_chunk=5), bench.run())
    parameters = dict(outcome.model.named_parameters())
    assert sorted(names) == sorted(parameters)
    assert max(alive) == in_backward.gradient_bytes(parameters)


def test_auto_updates_in_backward_where_only_that_fits(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    from lovecraft.models import read_architecture
    from lovecraft.train import memory

    arch, room = read_architecture(bench.model_dir), memory.Limits(1 << 50)
    options: dict[str, Any] = {"memory__checkpointing": "block", "optimizer": SGD, "eval": None, "max_steps": 1}
    config, cpu = bench.config(**options), torch.device("cpu")
    wanted = memory.table(config, arch, torch.float32, cpu, ("block", "none", "in_backward"), room).peak
    assert wanted < memory.table(config, arch, torch.float32, cpu, ("block", "none", "after"), room).peak
    bench.train(bench.config(**options, memory__limit=(wanted + 1) / memory.GIB), bench.run())
    assert "update in backward" in capfd.readouterr().err


def test_a_loss_that_is_not_finite_stops_before_backward(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cross_entropy = loop.linear_cross_entropy
    monkeypatch.setattr(loop, "linear_cross_entropy", lambda *words: cross_entropy(*words) * torch.nan)
    monkeypatch.setattr(InBackward, "_take", lambda *_: pytest.fail("a weight was updated"))
    with pytest.raises(TrainingFailed, match=r"step 1: the loss is nan \("):
        bench.train(bench.config(**ON), bench.run())


def test_a_gradient_that_is_not_finite_stops_before_anything_is_saved(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, take, run = iter(range(1 << 20)), InBackward._take, bench.run()

    def ruined(self: InBackward, index: int, name: str, parameter: Tensor) -> None:
        if next(calls) == 2 * len(self.parameters) + 3:  # in step 3
            assert parameter.grad is not None
            parameter.grad.view(-1)[0] = torch.inf
        take(self, index, name, parameter)

    monkeypatch.setattr(InBackward, "_take", ruined)
    with pytest.raises(TrainingFailed, match=r"step 3: .* norm of the gradients (inf|nan)") as caught:
        bench.train(bench.config(**ON, save__every=1), run)
    assert "nothing of the step is kept" in caught.value.message
    assert (run.status["status"], run.status["reason"]) == ("failed", "not finite")
    assert list(state.checkpoints(run.directory)) == [1, 2]
    assert all(tensor.isfinite().all() for tensor in saved(run).values())
