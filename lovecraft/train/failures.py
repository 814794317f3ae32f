"""What ends a training, as an error that says where and what to do, and as the run's status."""

import contextlib
import errno
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from lovecraft.data.blocks import DOCUMENT, Blocks
from lovecraft.errors import RunError, TrainingFailed
from lovecraft.runs import Run
from lovecraft.train.control import DIVERGED

SMALLER = (
    "lower batch_size and raise accumulation, set memory.checkpointing to block and memory.offload to block_inputs, "
    "lower memory.loss_chunk or dataset.block_size, or take Adafactor; `lc plan` counts what each takes"
)
GENTLER = "lower optimizer.lr, lengthen schedule.warmup, or set max_grad_norm"
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG)


class Diverged(TrainingFailed):
    """A loss, a gradient or a weight is not finite: going on, or starting again with the same options, is of no use."""


def refuse_nothing_to_learn(supervised: int, step: int, blocks: Blocks, numbers: Sequence[np.ndarray]) -> None:
    """Raise TrainingFailed when no token of a step is supervised: its loss would be 0 / 0."""
    if supervised == 0:
        raise TrainingFailed(
            f"step {step} supervises no token ({_documents(blocks, numbers)})", hint="raise dataset.min_length"
        )


def refuse_not_finite(loss: float, norm: float, step: int, blocks: Blocks, numbers: Sequence[np.ndarray]) -> None:
    """Raise Diverged when a step's loss or gradient norm is NaN or infinite."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise Diverged(
            f"step {step}: the loss is {loss}, the norm of the gradients {norm} ({_documents(blocks, numbers)}); "
            "the step was not applied",
            hint=GENTLER,
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
        reason = DIVERGED if isinstance(error, Diverged) else error.message
        run.say(**{**run.status, "status": "failed", "reason": reason})
        raise
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in UNWRITABLE:
            raise
        raise RunError(
            f"{run.directory} cannot be written: {error}",
            hint="free some space or make it writable, then give the same command: it goes on from the last checkpoint",
        ) from error


def _documents(blocks: Blocks, numbers: Sequence[np.ndarray]) -> str:
    """Name the documents that the blocks with these numbers come from."""
    pieces = np.concatenate([blocks[int(number)].pieces for some in numbers for number in some])
    names = sorted({blocks.documents[document].name for document in pieces[:, DOCUMENT]})
    return ("document " if len(names) == 1 else "documents ") + ", ".join(names)
