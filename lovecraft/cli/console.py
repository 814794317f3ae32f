"""Where words go: data to stdout, talk to stderr. Colour and tables only at a terminal that wants them."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from lovecraft.config.diff import Change
from lovecraft.config.render import columns, text_of
from lovecraft.errors import LovecraftError

NAMES = ("config", "option", "origin", "run")  # columns that are read as one word, and copied: never broken into lines


def out(text: str) -> None:
    """Print data to stdout."""
    print(text, flush=True)


def out_json(value: Any) -> None:
    """Print a value to stdout as JSON."""
    out(json.dumps(value, indent=2, ensure_ascii=False))


def write(path: Path, text: str, *, parents: bool = False) -> None:
    """Write a file for the user, with `parents` its directory too. Raises LovecraftError when it cannot be written."""
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LovecraftError(f"{path} cannot be written: {error.strerror}") from None


def say(text: str = "") -> None:
    """Tell the user something on stderr."""
    print(text, file=sys.stderr, flush=True)


def fancy(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that wants colour (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(
    rows: Sequence[Sequence[str]],
    heads: Sequence[str],
    *,
    styles: Sequence[str] = (),
    right: Sequence[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Print rows of text to `stream`, or stdout: a rich table at a terminal, else aligned columns under a heading line.

    `styles` are rich styles by column; `right` names the columns of numbers, which stand flush right.
    """
    stream = stream or sys.stdout
    if not fancy(stream):
        print(columns([heads, *rows]), file=stream, flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for i, head in enumerate(heads):
        grid.add_column(
            head,
            style=styles[i] if i < len(styles) else "",
            justify="right" if head in right else "left",
            overflow="ellipsis" if head in NAMES else "fold",
            no_wrap=head in NAMES,
        )
    for row in rows:
        grid.add_row(*row)
    Console(file=stream, highlight=False).print(grid, markup=False)


def changes(found: Sequence[Change], stream: TextIO | None = None) -> None:
    """Print what changed, an option a line: its value, what it was, and where the value comes from."""
    rows = [(c.path, text_of(c.b), text_of(c.a), c.b_origin) for c in found]
    table(rows, ("option", "value", "was", "origin"), styles=("bold", "cyan", "dim", "dim"), stream=stream)


def size(count: float) -> str:
    """Write a number of bytes for people: 269.0 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """Write a time span for people: 4.2 s, 3 min 05 s, 2 h 04 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
