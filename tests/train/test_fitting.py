"""What is proposed fits, is small, and is spelled as flags."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lovecraft import Adafactor, AdamW, DatasetConfig, ModelConfig, TrainConfig
from lovecraft.cli.options import apply
from lovecraft.config.override import override
from lovecraft.config.resolve import resolve
from lovecraft.train import memory
from lovecraft.train.fitting import flags, smallest_changes
from tests.train.test_plan import mistral_7b

GPU = torch.device("cuda")


class Dataset(DatasetConfig):
    source = Path("/texts")
    block_size = 4096


class Model(ModelConfig):
    path = Path("/model")


class Train(TrainConfig):
    dataset = Dataset
    model = Model
    optimizer = Adafactor
    batch_size = 4


def planner(gib: float = 23.0, host: float | None = None) -> Callable[[TrainConfig], memory.Bytes]:
    limits = memory.Limits(int(gib * memory.GIB), None if host is None else int(host * memory.GIB))

    def plan(config: TrainConfig) -> memory.Bytes:
        dtype = torch.float32 if config.model.dtype == "float32" else torch.bfloat16
        return memory.choose(config, mistral_7b(4096), dtype, GPU, limits)

    return plan


PROPOSED = [
    ({"memory.checkpointing": "none"}, 23.0, "--memory.checkpointing auto"),
    ({"model.dtype": "float32"}, 30.0, "--model.dtype bfloat16"),
    ({"memory.optimizer_in_backward": "off"}, 23.0, "--memory.optimizer-in-backward auto"),
    ({"batch_size": 1, "accumulation": 4}, 23.0, "--batch-size 4 --accumulation 1"),
    ({"max_grad_norm": 1.0}, 23.0, "--max-grad-norm none"),
    ({"batch_size": 8}, 23.0, "--dataset.block-size 2048"),
    ({"optimizer": AdamW}, 23.0, "--optimizer Adafactor"),
]


@pytest.mark.parametrize(("changes", "gib", "wanted"), PROPOSED)
def test_each_proposal_fits_when_it_is_typed(
    changes: dict[str, object], gib: float, wanted: str, tmp_path: Path
) -> None:
    cls, plan = override(Train, changes), planner(gib, host=20)  # a host too small for any optimizer
    assert not plan(resolve(cls)).fits
    proposed = [flags(found) for found in smallest_changes(cls, plan)]
    assert wanted in proposed
    for words in proposed:
        assert plan(resolve(apply(cls, words.split(), tmp_path))).fits


def test_a_smaller_batch_keeps_the_blocks_of_a_step_and_is_no_smaller_than_it_must_be() -> None:
    cls, plan = override(Train, {"batch_size": 12, "optimizer": AdamW}), planner()
    found = next(changes for changes in smallest_changes(cls, plan) if "batch_size" in changes)
    assert found == {"batch_size": 6, "accumulation": 2}
    assert not plan(resolve(override(cls, {"batch_size": 12, "accumulation": 1}))).fits


def test_several_changes_are_proposed_together_only_where_none_is_enough_and_none_is_left_out_in_vain() -> None:
    cls = override(Train, {"memory.checkpointing": "none", "model.dtype": "float32", "batch_size": 2})
    plan = planner(23.0, host=20)
    (together,) = smallest_changes(cls, plan)
    assert len(together) > 1
    for path in together:
        fewer = {other: value for other, value in together.items() if other != path}
        assert not plan(resolve(override(cls, fewer))).fits


def test_where_nothing_helps_nothing_is_proposed() -> None:
    assert smallest_changes(Train, planner(8.0)) == []
