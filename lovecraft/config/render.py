"""Configs and differences as plain text: aligned columns, stable when piped."""

import contextlib
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs

from lovecraft.config import base, values
from lovecraft.config.base import Config, Derived
from lovecraft.config.diff import Change, Entry
from lovecraft.config.resolve import Row


def columns(lines: Iterable[Sequence[str]], gap: str = "  ") -> str:
    """Align cells into columns; the last cell of a line is never padded."""
    table = [list(line) for line in lines]
    count = max((len(line) for line in table), default=0)
    widths = [max((len(line[i]) for line in table if i < len(line) - 1), default=0) for i in range(count)]
    padded = (gap.join([*(c.ljust(widths[i]) for i, c in enumerate(line[:-1])), line[-1]]).rstrip() for line in table)
    return "\n".join(padded)


def table(options: Iterable[Entry]) -> str:
    """Return an option a line: its value, where it comes from, and the comment there as the reason."""
    lines = [(e.path, text_of(e.value, kind=e.type), e.origin, e.comment) for e in options]
    return columns([("option", "value", "origin", "reason"), *lines])


def breaks(paths: Sequence[str]) -> list[bool]:
    """Return before which of the options' paths another section begins; those of no section are one, too."""
    sections = {path.partition(".")[0] for path in paths if "." in path}
    heads = [head if (head := path.partition(".")[0]) in sections else "" for path in paths]
    return [False, *(one != other for one, other in pairwise(heads))]


def text_of(value: Any, root: Path | None = None, kind: str = "") -> str:
    """Write a value for people, as a flag takes it: `none`, paths below the root as `//…`, tuples with commas.

    Where that would not do it is JSON: a list with texts that hold commas, a text with line breaks, an empty one, and
    of an option of the type that is named `kind`, `str` or `str or none`, the text "none".
    """
    if value is None:
        return "none"
    value = values.export(value, root)
    if isinstance(value, list | tuple):
        items = [text_of(item, root) for item in value]
        plain = value and not any(not item or item != item.strip() or set(item) & set(',"[(') for item in items)
        return ", ".join(items) if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        plain = value and value.isprintable() and value[0] != '"'
        return (
            value
            if plain and not (value.lower() == "none" and kind.startswith("str"))
            else json.dumps(value, ensure_ascii=False)
        )
    return str(value).lower() if isinstance(value, bool) else str(value)


def chain(row: Row, root: Path | None) -> list[dict[str, Any]]:
    """Return every value that an option was given, the winning one first, as JSON: value, origin, comment.

    A section's value is its library class's name; that of a derived value which another one hides is null.
    """
    found = []
    for i, (raw, origin) in enumerate(row.history):
        value: Any = (None if i else row.value) if isinstance(raw, Derived) else raw
        if row.option.section is None and value is not None:
            with contextlib.suppress(ValueError):  # one that is overridden may be wrong
                value = values.structure(value, row.option.hint)
        if isinstance(value, type | Config):
            value = base.library_class(value if isinstance(value, type) else type(value)).__name__
        comment = attrs.evolve(row, history=row.history[i:]).comment
        found.append({"value": values.export(value, root), "origin": base.place(origin), "comment": comment})
    return found


def why(row: Row, root: Path | None) -> list[tuple[str, str, str, str]]:
    """Return a line for each value that an option was given, the winning one first: value, origin, reason."""
    lines: list[tuple[str, str, str, str]] = []
    for (raw, _), link in zip(row.history, chain(row, root), strict=True):
        text = "derived" if isinstance(raw, Derived) and lines else text_of(link["value"]) + _alias(raw)
        reason = f"# {link['comment']}" if link["comment"] else ""
        lines.append((row.path if not lines else "  was", text, link["origin"], reason))
    return lines


def _alias(raw: Any) -> str:
    """Return the name that users gave the class of a section, where they did."""
    if not isinstance(raw, type) or (own := base.named(raw)) is base.library_class(raw):
        return ""
    return f", as {own.__module__.removeprefix('projects.').replace('.', '/')}:{own.__qualname__}"


def changes(found: Iterable[Change], a: str = "-", b: str = "+") -> str:
    """Return each change as a heading and two lines, each with its origin."""
    lines = []
    for change in found:
        lines.append(change.path)
        sides = ((a, change.a, change.a_origin), (b, change.b, change.b_origin))
        lines += [f"{sign} {text_of(v)}  {origin}".rstrip() for sign, v, origin in sides if origin]
    return "\n".join(lines)
