"""Print a resolved config: every option, its value, where it comes from, and the comment there as the reason.

Of a run it prints what the run recorded; of a model directory its family, size, context and bytes.
"""

import argparse
import shutil
import sys
from typing import Any

import attrs

from lovecraft.cli import console, options, target
from lovecraft.config import diff, record, render
from lovecraft.config.diff import Entry
from lovecraft.config.load import Loaded
from lovecraft.config.resolve import Row, all_rows
from lovecraft.errors import ConfigError

USAGE = "CONFIG|RUN|MODEL [--diff[=parent]] [--why OPTION] [--json | --python] [--option value …]"
EXAMPLE = "lc show finetune_lovecraft --dataset.block-size 8192 --diff"
NARROW = 100  # columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc show`."""
    parser.add_argument(
        "--diff",
        nargs="?",
        const="default",
        metavar="parent",
        help="only what differs from the library's defaults; =parent: what this file changed; =CONFIG: from another",
    )
    parser.add_argument("--why", metavar="OPTION", help="every value that an option was given, the winning one first")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--python", action="store_true", help="print one flat module that resolves to the same values")


def run(args: argparse.Namespace) -> int:
    """Print the config, the run or the model that is named."""
    run_directory = target.find_run(args.target)
    model = None if run_directory else target.find_model(args.target)
    if model is not None:
        from lovecraft.cli.model_card import card

        if args.diff or args.why or args.python or args.options:
            raise ConfigError(f"{args.target} is a model, which has no options", hint="of a model only --json is known")
        return card(model, as_json=args.json)
    if args.why:
        _why(target.load_config(args), args.why)
    elif args.diff:
        _diff(args)
    elif args.python:
        from lovecraft.config.codegen import module

        loaded = target.load_config(args)
        console.out(module(loaded.cls, loaded.name, loaded.root).rstrip("\n"))
    elif args.json:
        console.out_json(as_json(args))
    else:
        _table(target.entries(args))
    return 0


def _table(entries: list[Entry]) -> None:
    """Print an option a line; where four columns would be slivers, the reason stands below the origin."""
    heads, lines = ["option", "value", "origin", "reason"], []
    narrow = console.fancy(sys.stdout) and shutil.get_terminal_size().columns < NARROW
    for e in entries:
        line = [e.path, render.text_of(e.value), e.origin, e.comment]
        lines.append([*line[:2], "\n# ".join(filter(None, line[2:]))] if narrow else line)
    console.table(lines, heads[:3] if narrow else heads, styles=("bold", "cyan", "dim", "italic"))


def as_json(args: argparse.Namespace) -> dict[str, Any]:
    """Return the documented JSON shape of a resolved config."""
    if found := target.recorded(args):
        return {name: found[name] for name in ("config", "fingerprint", "options")}
    loaded = target.load_config(args)
    return {
        "config": loaded.name,
        "fingerprint": record.fingerprint(loaded.cls, loaded.root),
        "options": [attrs.asdict(entry) for entry in diff.entries(loaded.cls, loaded.root)],
    }


def _why(loaded: Loaded, option: str) -> None:
    found: dict[str, Row] = {row.path: row for row in all_rows(loaded.cls)}
    path = option.removeprefix("--").replace("-", "_")
    if path not in found:
        close = " or ".join(options.nearest(path, found))
        raise ConfigError(f"no option {path!r} in {loaded.name}" + (f"; did you mean {close}?" if close else ""))
    console.out(render.why(found[path], loaded.root))


def _diff(args: argparse.Namespace) -> None:
    if args.diff == "default":
        changes = diff.changed_from_defaults(target.entries(args))
    elif args.diff == "parent":
        loaded = target.load_config(args)
        changes = diff.changed_here(loaded.cls, loaded.root)
    else:
        other = argparse.Namespace(target=args.diff, options=[])
        changes = diff.diff(target.entries(other), target.entries(args))
    if args.json:
        console.out_json([attrs.asdict(change) for change in changes])
    elif changes:
        console.changes(changes)
    else:
        console.say("no difference")
