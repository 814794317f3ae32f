"""List projects and configs.

Modules are parsed, not imported, so that a broken one is listed with its error and the others still are. The config
that a project's bare name means is marked with `*`.
"""

import argparse

from lovecraft.cli import console
from lovecraft.config.load import Listed, default_of, find_root, listing
from lovecraft.errors import ConfigError

USAGE = "[PROJECT] [--json]"
EXAMPLE = "lc ls finetune_lovecraft"
TAKES_OPTIONS = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc ls`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one line a config; exit 1 when one is broken."""
    found = list(listing(find_root()))
    if args.target:
        project = args.target.strip("/").removeprefix("projects/")
        found = [item for item in found if item.name.startswith(project + "/")]
        if not found:
            raise ConfigError(f"no project {project!r}", hint="`lc ls` lists them all")
    names = [item.name for item in found]
    if args.json:
        console.out_json([_as_json(item, names) for item in found])
    else:
        rows = [(_mark(item, names), item.name, item.error or item.description) for item in found]
        console.table(rows, ("", "config", "description"), styles=("green", "bold", ""))
    return 1 if any(item.error for item in found) else 0


def _is_default(item: Listed, names: list[str]) -> bool:
    return default_of(item.name.partition("/")[0], names) == item.name


def _mark(item: Listed, names: list[str]) -> str:
    return "!" if item.error else "*" if _is_default(item, names) else " "


def _as_json(item: Listed, names: list[str]) -> dict[str, object]:
    return {
        "config": item.name,
        "description": item.description,
        "default": _is_default(item, names),
        "error": item.error or None,
    }
