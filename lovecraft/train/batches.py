"""Which blocks each optimizer step takes, and the tensors they become: pure functions of the step's number.

An epoch visits every block once; its last step takes what is left. So the position in the data is the step, and a
resumed run needs no other state.
"""

import functools
import math

import attrs
import numpy as np
import torch
from torch import Tensor

from lovecraft.config.schema import TrainConfig
from lovecraft.data.blocks import IGNORED, Blocks, order


@attrs.frozen
class Batch:
    """What one forward pass takes.

    Rows shorter than the longest are filled up at their ends, where nobody looks. Where a block holds several pieces,
    all pieces of all blocks make one row, without filling.
    """

    input_ids: Tensor
    """(B, T) int64."""

    targets: Tensor
    """(B, T) int64: at each position the label of the next, -100 where nothing is to be predicted."""

    tokens: int
    """Tokens in the blocks, without the filling."""

    supervised: int
    """Targets other than -100."""

    lengths: list[int] | None
    """The pieces of the one row, as the network takes them; None where each row is one piece."""


def total_steps(config: TrainConfig, blocks: int) -> int:
    """Return the optimizer steps of a run: `epochs` over `blocks` blocks or `max_steps`, whichever ends first."""
    steps = max(1, math.ceil(round(config.epochs * _steps_per_epoch(config, blocks), 6)))  # 0.1 * 30 is not above 3
    return steps if config.max_steps is None else min(steps, config.max_steps)


def total(config: TrainConfig, amounts: np.ndarray) -> float:
    """Return the sum of the blocks' `amounts` (blocks,) over a run, each as often as its block is taken."""
    blocks = len(amounts)
    epochs, rest = divmod(total_steps(config, blocks), _steps_per_epoch(config, blocks))
    last = _epoch(config, blocks, epochs)[: rest * _per_step(config)]
    return (epochs * amounts.sum() + amounts[last].sum()).item()


def step_blocks(config: TrainConfig, blocks: int, step: int) -> list[np.ndarray]:
    """Return the numbers of the blocks of step `step` (the first is 1), one array for each forward pass."""
    epoch, place = divmod(step - 1, _steps_per_epoch(config, blocks))
    chosen = _epoch(config, blocks, epoch)[place * _per_step(config) :][: _per_step(config)]
    return np.split(chosen, range(config.batch_size, len(chosen), config.batch_size))


def largest(config: TrainConfig, blocks: Blocks) -> np.ndarray:
    """Return the numbers of the blocks that make the largest batch there may be: the longest ones."""
    return np.argsort(-blocks.lengths, kind="stable")[: config.batch_size]


def largest_tokens(config: TrainConfig, blocks: Blocks) -> int:
    """Return the tokens of the largest batch, its filling included, as if none of it were packed or all of it."""
    return len(largest(config, blocks)) * int(blocks.lengths.max())


def collate(blocks: Blocks, numbers: np.ndarray, device: torch.device) -> Batch:
    """Return the blocks with these numbers as one batch on `device`."""
    chosen = [blocks[int(number)] for number in numbers]
    lengths = [length for block in chosen for length in block.lengths]
    rows = [(block.input_ids, block.labels) for block in chosen]
    packed = len(lengths) > len(chosen)
    if packed:  # a piece's first label is -100, so the token before it, another document's, predicts nothing
        rows = [tuple(np.concatenate(side) for side in zip(*rows, strict=True))]
    shape = len(rows), max(len(ids) for ids, _ in rows)
    input_ids, targets = np.zeros(shape, np.int64), np.full(shape, IGNORED)
    for row, (ids, labels) in enumerate(rows):
        input_ids[row, : len(ids)] = ids
        targets[row, : len(labels) - 1] = labels[1:]
    return Batch(
        input_ids=torch.from_numpy(input_ids).to(device),
        targets=torch.from_numpy(targets).to(device),
        tokens=sum(lengths),
        supervised=int((targets != IGNORED).sum()),
        lengths=lengths if packed else None,
    )


def is_due(every: int | None, step: int) -> bool:
    """Say whether something that is done `every` so many steps, or never, is done after this one."""
    return every is not None and step % every == 0


def _per_step(config: TrainConfig) -> int:
    return config.batch_size * config.accumulation


def _steps_per_epoch(config: TrainConfig, blocks: int) -> int:
    return math.ceil(blocks / _per_step(config))


def _epoch(config: TrainConfig, blocks: int, epoch: int) -> np.ndarray:
    return _cached_order(blocks, config.seed, epoch, config.dataset.shuffle)


@functools.lru_cache(maxsize=2)
def _cached_order(blocks: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    return order(blocks, seed, epoch, shuffle)
