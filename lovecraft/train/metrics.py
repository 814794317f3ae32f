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

    def write(self, **row: Any) -> None:
        """Append a row; other processes see it at once."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()

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
