"""Configs and differences as plain text: aligned columns, stable when piped."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lovecraft.config import base, values
from lovecraft.config.diff import Change
from lovecraft.config.resolve import Row


def columns(lines: Iterable[Sequence[str]], gap: str = "  ") -> str:
    """Align cells into columns; the last cell of a line is never padded."""
    table = [list(line) for line in lines]
    count = max((len(line) for line in table), default=0)
    widths = [max((len(line[i]) for line in table if i < len(line) - 1), default=0) for i in range(count)]
    padded = (gap.join([*(c.ljust(widths[i]) for i, c in enumerate(line[:-1])), line[-1]]).rstrip() for line in table)
    return "\n".join(padded)


def text_of(value: Any, root: Path | None = None) -> str:
    """Write a value for people: `none`, paths below the root as `//…`, tuples separated by commas."""
    if value is None:
        return "none"
    value = values.export(value, root)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(text_of(item, root) for item in value) or "()"
    return str(value)


def why(row: Row, root: Path | None) -> str:
    """Return the whole chain of values that an option was given, the winning one first."""
    lines = []
    for raw, origin in row.history:
        value = row.value if isinstance(raw, base.Derived) else raw
        written = "derived" if isinstance(raw, base.Derived) and lines else _spell(value, root)
        lines.append((row.path if not lines else "  was", written, base.place(origin)))
    return "\n".join(filter(None, (columns(lines), row.sentence)))


def _spell(value: Any, root: Path | None) -> str:
    if not isinstance(value, type):
        return text_of(value, root)
    own, library = base.named(value), base.library_class(value).__name__
    module = own.__module__.removeprefix("projects.").replace(".", "/")
    return library if own is base.library_class(own) else f"{library}, as {module}:{own.__qualname__}"


def changes(found: Iterable[Change], a: str = "-", b: str = "+") -> str:
    """Return each change as a heading and two lines, each with its origin."""
    lines = []
    for change in found:
        lines.append(change.path)
        sides = ((a, change.a, change.a_origin), (b, change.b, change.b_origin))
        lines += [f"{sign} {text_of(v)}  {origin}".rstrip() for sign, v, origin in sides if origin]
    return "\n".join(lines)
