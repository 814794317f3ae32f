"""What a person sees of a training, on stderr: a live bar at a terminal, a plain line every few seconds elsewhere."""

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

LINE_SECONDS = 5.0
WIDE = 100  # columns; a narrower terminal shows neither lr nor memory
SMOOTHING = 0.9  # of the loss that is shown beside the step's own


class Display:
    """Shows the rows of steps as they come, of `total` steps, and lines of text between them."""

    def __init__(self, total: int, step: int) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        whole = Column(no_wrap=True)
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(table_column=whole),
            BarColumn(None),
            TextColumn("{task.fields[row]}"),
            TimeRemainingColumn(table_column=whole),
        )
        self._bar = Progress(*columns, console=self._console, expand=True, refresh_per_second=2)
        self._task = self._bar.add_task("", total=total, completed=step, row="")
        self._total, self._first = total, step
        self._smooth: float | None = None
        self._started = self._last = time.monotonic()

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False)

    def show(self, row: dict[str, Any]) -> None:
        """Show a training row of metrics.jsonl."""
        loss = row["loss"]
        self._smooth = loss if self._smooth is None else SMOOTHING * self._smooth + (1 - SMOOTHING) * loss
        narrow = self._console.is_terminal and self._console.width < WIDE
        lr, memory = ("", "") if narrow else (f"lr {row['lr']:.1e} · ", f" · {row['memory'] / 1e9:.1f} GB")
        text = f"loss {loss:.3f} (ema {self._smooth:.3f}) · {lr}{row['tokens_per_second']:,.0f} tok/s{memory}"
        self._bar.update(self._task, completed=row["step"], row=text)
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._last >= LINE_SECONDS or row["step"] == self._total):
            self._last = now
            left = (now - self._started) / (row["step"] - self._first) * (self._total - row["step"])
            self.say(f"step {row['step']}/{self._total} · {text} · {left:,.0f} s left")
