import numpy as np
import pytest
import torch

from lovecraft.data.blocks import IGNORED
from lovecraft.train.batches import collate, step_blocks, total_steps, total_tokens
from tests.train.bench import Bench

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"epochs": 1.0, "max_steps": None}, 4),  # 10 blocks, 3 a step: the last takes one
        ({"epochs": 3.0, "max_steps": None}, 12),
        ({"epochs": 0.5, "max_steps": None}, 2),
        ({"epochs": 3.0, "max_steps": 5}, 5),
        ({"epochs": 1.0, "max_steps": 100}, 4),
        ({"epochs": 1.0, "max_steps": None, "accumulation": 2}, 2),
        ({"epochs": 1e-9, "max_steps": None}, 1),
    ],
)
def test_steps_end_with_the_epochs_or_at_max_steps(bench: Bench, changes: dict[str, object], steps: int) -> None:
    assert total_steps(bench.config(batch_size=3, **changes), 10) == steps


def test_each_epoch_takes_every_block_once_in_an_order_of_its_own(bench: Bench) -> None:
    config = bench.config(batch_size=3, accumulation=2, epochs=2.0, max_steps=None)
    assert total_steps(config, 20) == 8
    taken = [np.concatenate(step_blocks(config, 20, step)) for step in range(1, 9)]
    assert [len(some) for some in taken] == [6, 6, 6, 2] * 2
    first, second = (np.concatenate(some).tolist() for some in (taken[:4], taken[4:]))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


def test_a_step_falls_into_passes_of_the_batch_size(bench: Bench) -> None:
    config = bench.config(batch_size=2, accumulation=3, epochs=1.0, max_steps=None)
    assert [len(some) for some in step_blocks(config, 11, 1)] == [2, 2, 2]
    assert [len(some) for some in step_blocks(config, 11, 2)] == [2, 2, 1]


def test_the_order_follows_the_seed(bench: Bench) -> None:
    def order(seed: int) -> list[list[int]]:
        return [some.tolist() for some in step_blocks(bench.config(batch_size=5, accumulation=2, seed=seed), 20, 1)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_targets_are_the_labels_of_the_next_position_and_filling_is_ignored(bench: Bench) -> None:
    blocks = bench.built(bench.config()).splits["train"]
    lengths = [len(blocks[i].input_ids) for i in range(len(blocks))]
    short, long = int(np.argmin(lengths)), int(np.argmax(lengths))
    assert lengths[short] < lengths[long]
    batch = collate(blocks, np.array([short, long]), CPU)
    assert batch.input_ids.shape == batch.targets.shape == (2, lengths[long])
    assert batch.input_ids[1].tolist() == blocks[long].input_ids.tolist()
    assert batch.targets[0].tolist()[: lengths[short] - 1] == blocks[short].labels.tolist()[1:]
    assert set(batch.targets[0].tolist()[lengths[short] - 1 :]) == {IGNORED}
    assert batch.tokens == lengths[short] + lengths[long]
    assert batch.supervised == int((blocks[short].labels != IGNORED).sum() + (blocks[long].labels != IGNORED).sum())


@pytest.mark.parametrize("max_steps", [None, 3, 7])
def test_planned_tokens_are_those_of_all_batches(bench: Bench, max_steps: int | None) -> None:
    config = bench.config(epochs=2.0, max_steps=max_steps)
    blocks = bench.built(config).splits["train"]
    batches = [
        collate(blocks, some, CPU)
        for step in range(1, 1 + total_steps(config, len(blocks)))
        for some in step_blocks(config, len(blocks), step)
    ]
    assert total_tokens(config, blocks) == sum(batch.tokens for batch in batches)
