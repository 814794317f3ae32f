"""metrics.jsonl: one row for each logged step and each evaluation, appended as it happens."""

import json
import os
from pathlib import Path
from typing import IO, Any

NAME = "metrics.jsonl"


class Metrics:
    """The open metrics file of a run, cut to its first `keep` bytes: what lies behind came after the checkpoint."""

    def __init__(self, directory: Path, keep: int) -> None:
        self._file: IO[bytes] = (directory / NAME).open("ab")
        self._file.truncate(min(keep, self._file.tell()))
        self.evaluations = [row for row in read(directory) if "split" in row]

    def write(self, **row: Any) -> None:
        """Append a row; other processes see it at once."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        if "split" in row:
            self.evaluations.append(row)

    def sync(self) -> int:
        """Bring all rows to disk and return the file's length."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(directory: Path) -> list[dict[str, Any]]:
    """Return all rows of a run so far; a last one that is still being written is left out."""
    try:
        lines = (directory / NAME).read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines[:-1]]


def best_step(evaluations: list[dict[str, Any]]) -> int | None:
    """Return the step with the lowest held-out loss; None without any.

    The loss before the first step does not count, nor one of other text than the last: a resume may change the split.
    """
    same = [row for row in evaluations if row["step"] and _measured(row) == _measured(evaluations[-1])]
    return min(same, key=lambda row: row["loss"])["step"] if same else None


def _measured(row: dict[str, Any]) -> tuple[str, int]:
    return row["split"], row["tokens"]
