"""What a person sees of a training, on stderr: a live bar at a terminal, a plain line every few seconds elsewhere."""

import datetime
import textwrap
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

LINE_SECONDS = 5.0
NARROWEST_BAR = 5
UNKNOWN = "–:––:––"  # as wide as a time


class Display:
    """Shows the rows of steps as they come, of `total` steps, and lines of text between them.

    `ideal` is the seconds that a token's model FLOPs take at the machine's full rate, from which MFU follows.
    """

    def __init__(self, total: int, step: int, ideal: float) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        whole = Column(no_wrap=True)
        columns = (
            MofNCompleteColumn(table_column=whole),
            BarColumn(None),
            TextColumn("{task.fields[row]}", table_column=whole, markup=False),
        )
        self._bar = Progress(*columns, console=self._console, expand=True, refresh_per_second=2)
        self._task = self._bar.add_task("", total=total, completed=step, row="")
        self._total, self._ideal = total, ideal
        self._began = self._last = time.monotonic()
        self._first: tuple[int, float] | None = None  # step and time of the first row

    def __enter__(self) -> "Display":
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False)

    def sample(self, title: str, prompt: str, said: str) -> None:
        """Print how the model continues a prompt, under a title; a terminal's lines break between words."""
        self.say(title)
        if self._live:
            text = Padding(Text.assemble((prompt, "bold"), said), (0, 0, 0, 2), expand=False)
            self._console.print(text, soft_wrap=False)
        else:
            self.say(textwrap.indent(prompt + said, "  "))

    def show(self, row: dict[str, Any], mean: float) -> None:
        """Show a training row of metrics.jsonl, and the running mean of the loss."""
        now, step = time.monotonic(), row["step"]
        parts = (  # each with its rank: where there is no room, those of the highest are left out
            (0, f"loss {row['loss']:.3f}"),
            (2, f"ema {mean:.3f}"),
            (6, f"lr {row['lr']:.1e}"),
            (3, f"{row['tokens_per_second']:,.0f} tok/s"),
            (4, f"mfu {row['tokens_per_second'] * self._ideal:.0%}"),
            (5, f"{row['memory'] / 1e9:.1f} GB"),
            (7, _clock(now - self._began)),
            (1, f"{self._left(step, now)} left"),
        )
        if self._live:
            around = 2 * len(str(self._total)) + len("/") + NARROWEST_BAR + 2
            self._bar.update(self._task, completed=step, row=_fitting(parts, self._console.width - around))
        elif now - self._last >= LINE_SECONDS or step == self._total:
            self._last = now
            self.say(f"step {step}/{self._total} · {_fitting(parts, 1000)}")

    def _left(self, step: int, now: float) -> str:
        """Return the time that is left if the rest takes as long a step as this process took since its first."""
        if step == self._total:
            return _clock(0)
        if self._first is None:
            self._first = step, now
            return UNKNOWN
        first, at = self._first
        return _clock((now - at) / (step - first) * (self._total - step))


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _fitting(parts: Sequence[tuple[int, str]], room: int) -> str:
    """Join the parts of the lowest ranks that fit into `room` columns, in their order."""
    text = ""
    for most in range(1, len(parts) + 1):
        longer = " · ".join(part for rank, part in parts if rank < most)
        text = longer if len(longer) <= room or not text else text
    return text
