"""Where words go: data to stdout, talk to stderr. Colour only at a terminal that wants it."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TextIO

import attrs

from lovecraft.config import render
from lovecraft.config.diff import Change
from lovecraft.config.render import columns, text_of
from lovecraft.errors import LovecraftError

Cells = Sequence[tuple[str, str]]  # what stands in a line, each with its style
STYLES = {
    "dim": "2",
    "bold": "1",
    "green": "32",
    "cyan": "36",
    "red": "31",
    "yellow": "33",
    "value": "1;36",
    "reason": "3;32",
}  # the codes of a terminal
NARROW = 30  # characters of a last column in which texts are broken into lines
WIDE = 32  # characters of a value that do not push what follows it onto the next line


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


def ask(question: str) -> str:
    """Return the line that is typed, "" at the end of the input. A question that is broken off ends its line."""
    sys.stderr.write(question)
    sys.stderr.flush()
    line = ""
    try:
        line = sys.stdin.readline()
    finally:  # Ctrl-C too
        if question and not line:
            say()
    return line


def fancy(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that wants colour (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(
    rows: Sequence[Sequence[str]],
    heads: Sequence[str],
    *,
    styles: Sequence[str | Mapping[str, str]] = (),
    right: Sequence[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Print rows of text to `stream`, or stdout, under a heading line: styled at a terminal.

    `styles` are those of the columns, or of the texts in them; `right` names the columns that stand flush right.
    """
    stream = stream or sys.stdout
    if not fancy(stream):
        print(columns([heads, *rows]), file=stream, flush=True)
        return
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines: list[Cells] = []
    for i, row in enumerate((heads, *rows)):
        texts = [text.rjust(widths[n]) if heads[n] in right else text for n, text in enumerate(row)]
        looks = (*styles, *[""] * (len(heads) - len(styles))) if i else ["dim"] * len(heads)
        cells = zip(texts, looks, strict=True)
        lines.append([(text, look if isinstance(look, str) else look.get(text, "")) for text, look in cells])
    flow(lines, stream, heads.index("origin") if "origin" in heads else 0)


def changes(found: Sequence[Change], stream: TextIO | None = None, *, of_defaults: bool = False) -> None:
    """Print what changed, an option a line: its value, what it was, and where the value comes from.

    A side that lacks the option has no origin; neither have the library's defaults.
    """
    rows = [
        (c.path, text_of(c.b) if c.b_origin else "–", text_of(c.a) if c.a_origin or of_defaults else "–", c.b_origin)
        for c in found
    ]
    table(rows, ("option", "value", "was", "origin"), styles=("bold", "value", "dim", "dim"), stream=stream)


def told(found: Sequence[Change], show: Callable[[Sequence[Change]], None], *, as_json: bool) -> None:
    """Print what differs, as JSON or as `show` does, or say that nothing does."""
    if as_json:
        out_json([attrs.asdict(change) for change in found])
    elif found:
        show(found)
    else:
        say("no difference")


def both(found: Sequence[Change]) -> None:
    """Print each option that differs, and below it both values with their origins."""
    if not fancy(sys.stdout):
        out(render.changes(found))
        return
    for c in found:
        sides = [("-", "dim", c.a, c.a_origin), ("+", "value", c.b, c.b_origin)]
        lines = [[(sign, look), (text_of(value), look), (at, "dim")] for sign, look, value, at in sides if at]
        flow([[(c.path, "bold")]], sys.stdout)
        flow(lines, sys.stdout, origin=2)


def chain(lines: Sequence[tuple[str, str, str, str]], sentence: str) -> None:
    """Print the values that an option was given, and the sentence that documents it."""
    if not fancy(sys.stdout):
        out("\n".join(filter(None, (columns(lines), sentence))))
        return
    flow([list(zip(line, ("bold", "value", "dim", "reason"), strict=True)) for line in lines], sys.stdout, origin=2)
    flow([[(sentence, "")]], sys.stdout)


def flow(lines: Sequence[Cells], stream: TextIO, origin: int = 0) -> None:
    """Print lines of styled cells at a terminal, aligned; a cell that has no room stands below, and none is cut.

    `origin` is the column of the places, if there is one, for which the values before it leave room.
    """
    from shutil import get_terminal_size

    width = get_terminal_size().columns
    widest = [max(len(line[i][0]) for line in lines if line) for i in range(len(max(lines, key=len)))]
    for i in range(1, origin):
        room = (width - widest[0] - widest[origin] - 2 * origin) // (origin - 1)
        widest[i] = max(8, min(widest[i], room, WIDE))
    starts = [0, *accumulate(w + 2 for w in widest[:-1])]
    print("\n".join("".join(_flowing(line, starts, width)) for line in lines), file=stream, flush=True)


def _flowing(line: Cells, starts: Sequence[int], width: int) -> Iterator[str]:
    from textwrap import wrap

    at = -2
    for i, (text, style) in enumerate(line):
        if not text:
            continue
        start, parts = starts[i], [text]
        if i == len(line) - 1 and at + 2 <= start <= width - NARROW:
            parts = wrap(text, width - start, break_on_hyphens=False)
        elif start < at + 2 or (i and start + len(text) > width):
            below = [s for s in (starts[i - 1], starts[1], 4) if s and s + len(text) <= width]
            start, at = below[0] if below else 4, -1
            parts = wrap(text, max(20, width - start), break_on_hyphens=False)
            yield "\n"
        yield " " * (start - max(at, 0))
        yield f"\n{' ' * start}".join(f"\033[{STYLES[style]}m{part}\033[0m" if style else part for part in parts)
        at = start + len(parts[-1])


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
