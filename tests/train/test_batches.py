import attrs
import numpy as np
import pytest
import torch

from lovecraft import SGD
from lovecraft.data.blocks import IGNORED
from lovecraft.runs import Run
from lovecraft.train import control, loop
from lovecraft.train.batches import collate, step_blocks, total, total_steps
from tests.train.bench import Bench, packed, rows

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
@pytest.mark.parametrize("size", [1, 3])
def test_planned_tokens_are_those_of_all_batches(bench: Bench, max_steps: int | None, size: int) -> None:
    config = bench.config(epochs=2.0, max_steps=max_steps)
    blocks = packed(bench.built(config).splits["train"], size)
    batches = [
        collate(blocks, some, CPU)
        for step in range(1, 1 + total_steps(config, len(blocks)))
        for some in step_blocks(config, len(blocks), step)
    ]
    assert total(config, blocks.lengths) == sum(batch.tokens for batch in batches)


# --- packed blocks ------------------------------------------------------------------------------------


def test_packed_blocks_become_one_row_without_filling(bench: Bench) -> None:
    pieces = bench.built(bench.config()).splits["train"]
    blocks = packed(pieces, 3)
    batch = collate(blocks, np.array([2, 0]), CPU)
    chosen = [pieces[i] for i in (6, 7, 8, 0, 1, 2)]
    lengths = [len(piece.input_ids) for piece in chosen]
    assert batch.lengths == lengths
    assert batch.tokens == sum(lengths)
    assert batch.input_ids.shape == batch.targets.shape == (1, batch.tokens)
    assert batch.input_ids[0].tolist() == [token for piece in chosen for token in piece.input_ids]
    assert batch.supervised == sum(int((piece.labels != IGNORED).sum()) for piece in chosen)
    for piece, targets in zip(chosen, batch.targets[0].split(lengths), strict=True):
        assert targets.tolist() == [*piece.labels[1:], IGNORED]  # the last token predicts nothing of the next piece


def test_blocks_of_one_piece_stay_rows_of_their_own(bench: Bench) -> None:
    blocks = bench.built(bench.config()).splits["train"]
    assert collate(blocks, np.array([0, 1]), CPU).lengths is None
    assert collate(packed(blocks, 1), np.array([0, 1]), CPU).input_ids.shape[0] == 2


def train_packed(bench: Bench, run: Run, *, size: int = 3, **changes: object) -> list[dict[str, object]]:
    config = bench.config(**changes)
    built = bench.built(config)
    splits = {**built.splits, "train": packed(built.splits["train"], size)}
    loop.train(config, run, attrs.evolve(built, splits=splits), bench.tokenizer)
    return [row for row in rows(run) if "lr" in row]


def test_packing_changes_neither_loss_nor_gradient_of_the_same_pieces(bench: Bench) -> None:
    whole = {"batch_size": 100, "optimizer": SGD, "optimizer__lr": 0.01, "max_steps": 3}
    found = [train_packed(bench, bench.run(str(size)), size=size, **whole) for size in (1, 2, 5)]
    accumulated = {**whole, "batch_size": 1, "accumulation": 100}
    found.append(train_packed(bench, bench.run("accumulated"), size=4, **accumulated))
    for other in found[1:]:
        for ours, theirs in zip(other, found[0], strict=True):
            assert ours["tokens"] == theirs["tokens"]
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)


def test_memory_options_do_not_change_a_bit_of_a_packed_run(bench: Bench) -> None:
    plain = train_packed(bench, bench.run("1"), memory__checkpointing="none")
    assert plain == train_packed(bench, bench.run("2"), memory__checkpointing="block")
    assert plain == train_packed(bench, bench.run("3"), memory__offload="block_inputs")


def test_a_packed_run_resumed_is_as_if_it_had_never_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = bench.run("whole"), bench.run("parts")
    train_packed(bench, whole, model__dtype="bfloat16")
    take_step = loop.take_step

    def stopping(t: loop.Training) -> dict[str, object]:
        row = take_step(t)
        if row["step"] == 3:
            control.request(parts.directory, "stop")
        return row

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", stopping)
        assert len(train_packed(bench, parts, model__dtype="bfloat16")) == 3
    train_packed(bench, parts, model__dtype="bfloat16")
    assert rows(parts) == rows(whole)
    weights = [next(run.directory.glob("checkpoints/*6/model.safetensors")) for run in (parts, whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
