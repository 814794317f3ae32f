"""metrics.jsonl: one row for each logged step and each evaluation, appended as it happens."""

import contextlib
import json
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

NAME = "metrics.jsonl"
SMOOTHING = 0.9  # of the running mean of the loss


class Sink(Protocol):
    """What takes rows besides the file."""

    def write(self, row: dict[str, Any]) -> None:
        """Take a row."""


class Metrics:
    """The open metrics file of a run, cut to its first `keep` bytes: what lies behind came after the checkpoint.

    What is written goes to the `sinks`, too.
    """

    def __init__(self, directory: Path, keep: int, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = sinks
        self._file: IO[bytes] = (directory / NAME).open("ab")
        self._file.truncate(min(keep, self._file.tell()))
        self.evaluations = [row for row in read(directory) if "split" in row]

    def write(self, **row: Any) -> None:
        """Append a row; other processes see it at once."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        if "split" in row:
            self.evaluations.append(row)
        for sink in self._sinks:
            sink.write(row)

    def sync(self) -> int:
        """Bring all rows to disk and return the file's length."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(directory: Path) -> list[dict[str, Any]]:
    """Return all rows of a run so far, up to one that is still being written or that a power failure cut short."""
    rows = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        rows.extend(json.loads(line) for line in (directory / NAME).read_text(encoding="utf-8").split("\n")[:-1])
    return rows


def newest(directory: Path, steps: int) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Return a run's last `steps` training rows, newest first, and its last evaluation, parsing nothing else."""
    training: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        lines = (directory / NAME).read_text(encoding="utf-8").split("\n")[-2::-1]
        training.extend(json.loads(line) for line in islice((line for line in lines if '"split"' not in line), steps))
        return training, next((json.loads(line) for line in lines if '"split"' in line), None)
    return training, None


def running_mean(mean: float | None, loss: float, step: int) -> float:
    """Return the exponential mean of a step's loss and those before it, corrected for its start."""
    return loss if mean is None else mean + (1 - SMOOTHING) / (1 - SMOOTHING**step) * (loss - mean)


def best_step(evaluations: list[dict[str, Any]]) -> int | None:
    """Return the step with the lowest held-out loss; None without any.

    The loss before the first step does not count, nor one of other text than the last: a resume may change the split.
    """
    same = [row for row in evaluations if row["step"] and _measured(row) == _measured(evaluations[-1])]
    return min(same, key=lambda row: row["loss"])["step"] if same else None


def fruitless(evaluations: list[dict[str, Any]]) -> int:
    """Return how many evaluations came after the one with the lowest loss."""
    best = best_step(evaluations)
    return 0 if best is None else sum(row["step"] > best for row in evaluations)


def _measured(row: dict[str, Any]) -> tuple[str, int]:
    return row["split"], row["tokens"]
