"""What ends a training, as an error that says where and what to do, and as the run's status."""

import contextlib
import errno
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lovecraft.data.blocks import DOCUMENT, Blocks
from lovecraft.errors import RunError, TrainingFailed
from lovecraft.runs import Run
from lovecraft.train.control import DIVERGED, SPIKED

SMALLER = (
    "leave memory.checkpointing, offload, optimizer_in_backward and optimizer_device at auto, lower batch_size and "
    "raise accumulation, lower memory.loss_chunk or dataset.block_size, or take Adafactor; `lc plan` counts what each "
    "takes"
)
GENTLER = "lower optimizer.lr, lengthen schedule.warmup, or set max_grad_norm"
NAMED = 16  # blocks, or documents, of a step that an error names
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG)


class Diverged(TrainingFailed):
    """A loss, a gradient or a weight is not finite: going on, or starting again with the same options, is of no use."""


class Spiked(TrainingFailed):
    """A loss is `ratio` times the mean of those before it, more than `stop_on_spike` allows."""

    def __init__(self, message: str, *, hint: str, ratio: float) -> None:
        super().__init__(message, hint=hint)
        self.ratio = ratio


def refuse_nothing_to_learn(supervised: int, step: int, blocks: Blocks, numbers: Sequence[np.ndarray]) -> None:
    """Raise TrainingFailed when no token of a step is supervised: its loss would be 0 / 0."""
    if supervised == 0:
        raise TrainingFailed(
            f"step {step} supervises no token ({_batch(blocks, numbers)})", hint="raise dataset.min_length"
        )


def refuse_not_finite(
    loss: float, norm: float | None, step: int, blocks: Blocks, numbers: Sequence[np.ndarray]
) -> None:
    """Raise Diverged when a step's loss, or gradient norm if that is known already, is NaN or infinite."""
    if not (math.isfinite(loss) and math.isfinite(norm or 0.0)):
        gradients = "" if norm is None else f", the norm of the gradients {norm}"
        raise Diverged(
            f"step {step}: the loss is {loss}{gradients} ({_batch(blocks, numbers)}); nothing of the step is kept",
            hint=GENTLER,
        )


def refuse_spike(
    loss: float, mean: float | None, most: float | None, step: int, blocks: Blocks, numbers: Sequence[np.ndarray]
) -> None:
    """Raise Spiked when a step's loss is more than `most` times the running mean of those before it."""
    if mean and most is not None and loss > most * mean:
        raise Spiked(
            f"step {step}: the loss is {loss:.4f}, {loss / mean:.2f} times its running mean of {mean:.4f} "
            f"({_batch(blocks, numbers)}); nothing of the step is kept",
            hint=f"look at these documents; {GENTLER}; or raise stop_on_spike",
            ratio=loss / mean,
        )


def refuse_ruined(parameters: Mapping[str, Tensor], step: int) -> None:
    """Raise Diverged when a weight is not finite, which its tensor's sum shows without a copy."""
    for name, parameter in parameters.items():
        if not math.isfinite(parameter.detach().sum(dtype=torch.float32)):
            raise Diverged(f"after step {step}: {name} is not finite; it was not saved", hint=GENTLER)


@contextlib.contextmanager
def recorded(run: Run) -> Iterator[None]:
    """Turn running out of memory or disk into errors of ours, and write failures into the run's status."""
    try:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            raise TrainingFailed("out of memory", hint=SMALLER) from error
    except TrainingFailed as error:
        reason = DIVERGED if isinstance(error, Diverged) else SPIKED if isinstance(error, Spiked) else error.message
        ratio = {"ratio": error.ratio} if isinstance(error, Spiked) else {}
        run.say(**{**run.status, "status": "failed", "reason": reason, **ratio})
        raise
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise RunError(
            f"{run.directory} cannot be written: {error}",
            hint="free some space or make it writable, then give the same command: it goes on from the last checkpoint",
        ) from error


def _batch(blocks: Blocks, numbers: Sequence[np.ndarray]) -> str:
    """Name the blocks with these numbers and the documents that they come from."""
    chosen = sorted(int(number) for some in numbers for number in some)
    pieces = np.concatenate([blocks[number].pieces for number in chosen])
    names = sorted({blocks.documents[document].name for document in pieces[:, DOCUMENT]})
    return f"{_several('block', list(map(str, chosen)))} of {_several('document', names)}"


def _several(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{what}{'s' * (len(names) > 1)} {', '.join(names[:NAMED])}{more}"
