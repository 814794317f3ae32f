"""List projects and configs.

Modules are parsed, not imported, so that a broken one is listed with its error and the others still are. The config
that the bare name of its project, or folder, means is marked with `*`. With --check each is also imported and resolved,
in a process of its own.
"""

import argparse
import os
import sys

import attrs

from lovecraft.cli import console
from lovecraft.config.load import Listed, default_of, find_root, listing
from lovecraft.config.names import did_you_mean
from lovecraft.errors import ConfigError

USAGE = "[PROJECT] [--check] [--json]"
EXAMPLE = "lc ls finetune_lovecraft"
TAKES_OPTIONS = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc ls`."""
    parser.add_argument("--check", action="store_true", help="also import and resolve each, in a process of its own")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one line a config; exit 1 when one is broken."""
    found = list(listing(find_root()))
    names = [item.name for item in found]
    if args.target:
        project = args.target.strip("/").removeprefix("projects/")
        inside = [item for item in found if f"{item.name}/".startswith(project + "/")]
        if not inside:
            close = did_you_mean(project, {item.name.partition("/")[0] for item in found})
            raise ConfigError(f"no project {project!r}{close}", hint="`lc ls` lists them all")
        found = inside
    if args.check:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            found = list(pool.map(_checked, found))
    if args.json:
        console.out_json([_as_json(item, names) for item in found])
    elif not found:
        console.say("no configs yet; `lc new project NAME` makes one")
    else:
        rows = [(_mark(item, names), item.name, item.error or item.description) for item in found]
        console.table(rows, ("", "config", "description"), styles=("green", "bold", ""))
    return 1 if any(item.error for item in found) else 0


def _checked(item: Listed) -> Listed:
    """Return a config with what `lc show` says is wrong with it, in one line, if anything is."""
    import subprocess

    if item.error:
        return item
    command = [sys.executable, "-P", "-m", "lovecraft", "show", item.name, "--json"]  # -P: whatever lies here
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        return item
    lines = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line and not line.startswith("hint:")]
    said = lines[-1] if lines[:1] and lines[0].startswith("Traceback") else "; ".join(lines)
    return attrs.evolve(item, error=said or "it ends the process")


def _is_default(item: Listed, names: list[str]) -> bool:
    return item.name in (
        default_of(item.name.partition("/")[0], names),
        default_of(item.name.rpartition("/")[0], names),
    )


def _mark(item: Listed, names: list[str]) -> str:
    return "!" if item.error else "*" if _is_default(item, names) else " "


def _as_json(item: Listed, names: list[str]) -> dict[str, object]:
    return {
        "config": item.name,
        "description": item.description,
        "default": _is_default(item, names),
        "error": item.error or None,
    }
