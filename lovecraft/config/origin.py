"""Where values were written: a line of a file or of a notebook's cell, or the words of a flag."""

import linecache
import re
import sys
from typing import Any

import attrs

from lovecraft.config import source
from lovecraft.config.modules import shorten


@attrs.frozen
class Origin:
    """The place that gave a value: a line of a file, or the words of a flag."""

    file: str
    line: int = 0
    said: str = ""
    comment: str = ""
    """The reason that stood there, where the file is no longer read."""


def place(origin: Origin) -> str:
    """Write an origin as `file:line`, relative to the workspace or the library where it lies in one, or as the flag."""
    if origin.said:
        return origin.said
    file = _cell(origin.file) or shorten(origin.file)
    return f"{file}:{origin.line}" if origin.line else file


def _cell(file: str) -> str:
    """Return the name of the notebook's cell that `file` stands for, `Cell In[3]`; empty for a real file."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return " ".join(shell.compile.format_code_name(file) or ()) if shell is not None else ""


def file_of(module: str | None) -> str:
    """Return the file of a module by name; empty where it has none."""
    return getattr(sys.modules.get(module or ""), "__file__", None) or ""


def calling(depth: int = 2) -> Origin:
    """Return the line that called the function that calls this one."""
    frame = sys._getframe(depth)
    return Origin(frame.f_code.co_filename, frame.f_lineno)


def caller() -> str:
    """Return the place of that line."""
    return place(calling(3))


def of_annotation(start: Origin, name: str) -> Origin:
    """Return where `name: type` stands below the first line of a class; that line itself where it is not found."""
    for number, line in enumerate(linecache.getlines(start.file)[start.line :], start.line + 1):
        if re.match(rf"\s+{re.escape(name)}\s*:", line):
            return Origin(start.file, number)
    return start


# --- of a class's values ---------------------------------------------------------------------------


def named(cls: Any) -> Any:
    """Return the class itself, or the one that an anonymous override was made from."""
    return next(base for base in cls.__mro__ if not base.__dict__.get("__anonymous__"))


def origin_of(cls: type, name: str) -> Origin:
    """Return where the body of `cls` itself sets or declares `name`."""
    known = cls.__dict__.get("__origins__", {})
    file = file_of(cls.__module__)
    return known.get(name) or Origin(file or cls.__module__, source.line_of(cls, file, name) if file else 0)


def history(cls: Any, name: str) -> list[tuple[Any, Origin]]:
    """Return every raw value that `name` was given, the winning one first, with its origin."""
    return [(vars(base)[name], origin_of(base, name)) for base in cls.__mro__ if name in vars(base)]


def written(cls: Any, name: str = "") -> str:
    """Return the place where `name` stands in the class, an override's own class meant, else where the class begins."""
    own = named(cls).__origins__
    start = next(iter(own.values()), Origin(cls.__file__))
    return place(own.get(name) or (of_annotation(start, name) if name else start))
