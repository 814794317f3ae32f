"""A resolved config as one flat Python module: every value written out, nothing inherited from other projects.

Options that users declare themselves are read by their own derived values only, which are resolved here, and left out.
"""

import json
from pathlib import Path
from typing import Any

from lovecraft.config import base, schema
from lovecraft.config.resolve import Row, rows


def module(cls: Any, name: str, root: Path) -> str:
    """Return the source of a module whose last class resolves to the same values as `cls`."""
    found = [row for row in rows(cls) if not row.own]
    sections: dict[str, Any] = {}
    bodies: dict[str, list[str]] = {}
    _collect(cls, "", sections, bodies, {row.path: row for row in found}, root)
    classes = [_class(path, kind, bodies[path]) for path, kind in reversed(sections.items())]
    kinds = sorted({base.library_class(kind).__name__ for kind in sections.values()})
    text = "\n\n\n".join(classes)
    imports = ["from pathlib import Path\n"] if "Path(" in text else []
    imports.append(f"from lovecraft import {', '.join(kinds)}")
    imports += ["from workspace import ROOT"] if "ROOT /" in text else []
    return f'"""{name}, every value written out."""\n\n' + "\n".join(imports) + f"\n\n\n{text}\n"


def _collect(
    cls: Any, path: str, sections: dict[str, Any], bodies: dict[str, list[str]], found: dict[str, Row], root: Path
) -> None:
    """Fill in the class of every section by its path, outer before inner, and the lines of its body."""
    sections[path] = cls
    lines = bodies[path] = []
    for name, option in cls.__options__.items():
        inner = f"{path}.{name}" if path else name
        section = next((raw for raw, _ in base.history(cls, name)), None) if option.section else None
        if section is not None:
            lines.append(f"{name} = {_class_name(inner)}")
            _collect(section if isinstance(section, type) else type(section), inner, sections, bodies, found, root)
        elif inner in found:
            lines.append(f"{name} = {_literal(found[inner].value, root)}")


def _class(path: str, kind: Any, body: list[str]) -> str:
    head = f"class {_class_name(path) if path else base.named(kind).__name__}({base.library_class(kind).__name__}):"
    return "\n".join([head, *(f"    {line}" for line in body or ["pass"])])


def _class_name(path: str) -> str:
    """Name the class of a section after its path; where the library has a class of that name, `…Options`."""
    name = "".join(part.title() for part in path.replace(".", "_").split("_"))
    return f"{name}Options" if hasattr(schema, name) else name


def _literal(value: Any, root: Path) -> str:
    if isinstance(value, Path):
        inside = value.is_relative_to(root) and "ROOT" in (root / "workspace.py").read_text(encoding="utf-8")
        return (
            f"ROOT / {_literal(value.relative_to(root).as_posix(), root)}"
            if inside
            else f"Path({_literal(str(value), root)})"
        )
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return "(" + ", ".join(_literal(item, root) for item in value) + ("," if len(value) == 1 else "") + ")"
    return repr(value)
