"""A resolved config as one flat Python module: every value written out, nothing inherited from other projects.

Options that users declare themselves are read by their own derived values only, which are resolved here, and left out.
The comment that gives the reason for a value stays beside it.
"""

import ast
import importlib
from pathlib import Path
from typing import Any

from lovecraft.config import base, schema
from lovecraft.config.load import KINDS
from lovecraft.config.resolve import Row, all_rows

WIDTH = 120
INDENT = "    "


def module(cls: Any, name: str, root: Path) -> str:
    """Return the source of a module whose config resolves to the same values as `cls`."""
    found = {row.path: row for row in all_rows(cls) if not row.own}
    top = getattr(importlib.import_module("workspace"), "ROOT", None)
    bodies: dict[str, list[str]] = {"": []}
    kinds = {"": base.library_class(cls).__name__}
    for path, row in found.items():
        section, _, option = path.rpartition(".")
        if row.option.section is not None and row.value is not None:
            bodies[path], kinds[path] = [], row.value
            bodies[section].append(_line(option, _class_name(path), row))
        else:
            bodies[section].append(_line(option, _literal(row.value, top, len(option) + 3), row))
    names = {path: _class_name(path) if path else _root_name(cls) for path in bodies}
    classes = [f"class {names[path]}({kinds[path]}):\n" + "\n".join(bodies[path]) for path in reversed(bodies)]
    text = "\n\n\n".join(classes)
    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    imports = ["from pathlib import Path\n"] if "Path" in used else []
    imported = sorted({*kinds.values()}, key=lambda kind: (not kind.isupper(), kind))
    imports.append(f"from lovecraft import {', '.join(imported)}")
    imports += ["from workspace import ROOT"] if "ROOT" in used else []
    return f'"""{name}, every value written out."""\n\n' + "\n".join(imports) + f"\n\n\n{text}\n"


def _root_name(cls: Any) -> str:
    """Return the name by which `lc` takes a config of its kind for the module's."""
    return next((name for name, kind in KINDS.items() if issubclass(cls, kind)), base.named(cls).__name__)


def _class_name(path: str) -> str:
    """Name the class of a section after its path; where the library has a class of that name, `…Options`."""
    name = "".join(part.title() for part in path.replace(".", "_").split("_"))
    return f"{name}Options" if hasattr(schema, name) else name


def _line(name: str, value: str, row: Row) -> str:
    """Return the assignment; its comment stands above it where the line would be too long with it."""
    line = f"{INDENT}{name} = {value}"
    if not row.comment:
        return line
    if len(line) + len(row.comment) + 4 <= WIDTH and "\n" not in line:
        return f"{line}  # {row.comment}"
    return f"{INDENT}# {row.comment}\n{line}"


def _literal(value: Any, top: Any, before: int = 0, depth: int = 1) -> str:
    """Write a value as Python; a tuple that would be too long behind `before` columns takes a line for each item."""
    if isinstance(value, Path):
        if not (isinstance(top, Path) and value.is_relative_to(top)):
            return f"Path({_text(str(value))})"
        return f"ROOT / {_text(value.relative_to(top).as_posix())}" if value != top else "ROOT"
    if isinstance(value, str):
        return _text(value)
    if not isinstance(value, tuple):
        return repr(value).replace("e+", "e")
    line = "(" + ", ".join(_literal(item, top) for item in value) + ("," if len(value) == 1 else "") + ")"
    if not value or len(INDENT) * depth + before + len(line) <= WIDTH:
        return line
    items = [f"{INDENT * (depth + 1)}{_literal(item, top, 1, depth + 1)},\n" for item in value]
    return "(\n" + "".join(items) + f"{INDENT * depth})"


def _text(value: str) -> str:
    """Write a string in double quotes, or in single ones where that saves backslashes, as formatters do."""
    body = repr('"' + value)[2:-1]  # for the sake of that quote it is in single ones
    if value.count('"') > value.count("'"):
        return f"'{body}'"
    return '"' + body.replace("\\'", "'").replace('"', '\\"') + '"'
