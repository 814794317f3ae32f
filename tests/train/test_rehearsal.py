"""The rehearsal runs the largest batch and leaves no trace."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lovecraft import Adafactor
from lovecraft.errors import TrainingFailed
from lovecraft.train import loop, rehearsal
from lovecraft.train.batches import largest
from lovecraft.train.setup import Training
from tests.train.bench import Bench
from tests.train.test_in_backward import assert_same


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulation": 2, "model__dtype": "bfloat16"},
        {"memory__optimizer_in_backward": "on", "optimizer": Adafactor},
        {"memory__optimizer_device": "host", "accumulation": 2},
        {"memory__offload": "block_inputs"},
    ],
)
def test_a_training_is_the_same_to_the_bit_with_and_without(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    plain, rehearsed = bench.run("1"), bench.run("2")
    bench.train(bench.config(**changes, max_steps=3), plain)
    ran: list[int] = []

    def spied(t: Training) -> None:
        rehearsal._run(t)
        assert all(parameter.grad is None for parameter in t.parameters.values())
        ran.append(int(t.blocks.lengths[largest(t.config, t.blocks)].min()))

    monkeypatch.setattr(loop, "rehearse", spied)
    bench.train(bench.config(**changes, max_steps=3), rehearsed)
    assert ran == [24]  # tokens: two whole blocks
    assert_same(plain, rehearsed)


def test_running_out_of_memory_in_it_names_the_knobs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(kind: type[Exception]) -> Callable[[Training], None]:
        def rehearse(_: Training) -> None:
            raise kind

        return rehearse

    for number, kind in enumerate((torch.OutOfMemoryError, MemoryError)):
        monkeypatch.setattr(loop, "rehearse", too_large(kind))
        with pytest.raises(TrainingFailed, match="out of memory") as caught:
            bench.train(bench.config(), bench.run(str(number)))
        assert "memory.checkpointing" in caught.value.hint


def test_on_a_cpu_there_is_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_run", lambda _: pytest.fail("rehearsed"))
    bench.train(bench.config(max_steps=1), bench.run())
