"""What differs between two configs, runs or records, with both origins."""

from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

import attrs

from lovecraft.config import base, values
from lovecraft.config.resolve import Row, rows, rows_so_far


@attrs.frozen
class Entry:
    """One option as a record holds it: everything in JSON form."""

    path: str
    value: Any
    type: str
    origin: str
    comment: str = ""
    default: Any = None


@attrs.frozen
class Change:
    """An option that differs. A side that lacks the option has value None and no origin."""

    path: str
    a: Any
    b: Any
    a_origin: str
    b_origin: str


def entries(config: Any, root: Path | None) -> list[Entry]:
    """Return the resolved options of a config class, or of an instance, in their JSON form."""
    return [entry(row, root) for row in rows(config)]


def entry(row: Row, root: Path | None) -> Entry:
    """Return a row in its JSON form."""
    return Entry(
        path=row.path,
        value=values.export(row.value, root),
        type=values.name_type(row.option.hint),
        origin=base.place(row.origin),
        comment=row.comment,
        default=values.export(row.default, root),
    )


def diff(a: Iterable[Entry], b: Iterable[Entry]) -> list[Change]:
    """Return the options whose values differ, in the order of `a`, then those that only `b` has.

    The defaults of a section that is switched off on the other side are left out.
    """
    left, right = {e.path: e for e in a}, {e.path: e for e in b}
    changes = []
    for path in left | right:
        here, there = (side.get(path) or Entry(path, None, "", "") for side in (left, right))
        both = path in left and path in right
        if here.value != there.value if both else not _follows(path, left, right):
            changes.append(_change(here, there))
    return changes


def _change(a: Entry, b: Entry) -> Change:
    return Change(b.path, a.value, b.value, a.origin, b.origin)


def _follows(path: str, left: dict[str, Entry], right: dict[str, Entry]) -> bool:
    """Return whether an option of one side has its default, and its section is switched off on the other side."""
    there, off = (left, right) if path in left else (right, left)
    sections = (off.get(section) for section in accumulate(path.split(".")[:-1], "{}.{}".format))
    return there[path].value == there[path].default and any(s is not None and s.value is None for s in sections)


def changed_here(cls: Any, root: Path | None) -> list[Change]:
    """Return what a config's file, and the flags after it, changed in the class of another file that it starts from.

    What that class lacks, as the options of a section that it leaves open, is compared with the library's default.
    """
    own = base.named(cls)
    parent = next(c for c in own.__mro__ if isinstance(c, base._Meta) and c.__file__ != own.__file__)
    before = {row.path: entry(row, root) for row in rows_so_far(parent)}
    pairs = [(before.get(e.path) or _default(e), e) for e in entries(cls, root)]
    return [_change(was, e) for was, e in pairs if was.value != e.value]


def changed_from_defaults(options: Iterable[Entry]) -> list[Change]:
    """Return what differs from the library's defaults, as changes from the default to the value."""
    return [_change(_default(e), e) for e in options if e.value != e.default]


def _default(e: Entry) -> Entry:
    return attrs.evolve(e, value=e.default, origin="")
