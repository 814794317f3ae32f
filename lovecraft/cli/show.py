"""Print a resolved config: every option, its value, where it comes from, and the comment there as the reason.

Of a run it prints what the run recorded; of a model directory its family, size, context and bytes.
"""

import argparse
import sys
from functools import partial
from itertools import accumulate
from typing import Any

import attrs

from lovecraft.cli import console, target
from lovecraft.config import base, diff, record, render
from lovecraft.config.diff import Entry
from lovecraft.config.load import Loaded
from lovecraft.config.names import nearest
from lovecraft.config.resolve import Row, all_rows
from lovecraft.errors import ConfigError

USAGE = "CONFIG|RUN|MODEL [--diff[=parent]] [--why OPTION] [--json | --python] [--option value …]"
EXAMPLE = "lc show finetune_lovecraft --dataset.block-size 8192 --diff"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc show`."""
    parser.add_argument(
        "--diff",
        nargs="?",
        const="default",
        metavar="parent|CONFIG",
        help="only what differs from the library's defaults; =parent: what this file changed; =CONFIG: from another",
    )
    parser.add_argument("--why", metavar="OPTION", help="every value that an option was given, the winning one first")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--python", action="store_true", help="print one flat module that resolves to the same values")


def run(args: argparse.Namespace) -> int:
    """Print the config, the run or the model that is named."""
    run_directory = target.find_run(args.target)
    model = None if run_directory else target.find_model(args.target, weights=False)
    if model is not None:
        from lovecraft.cli.model_card import card

        if args.diff or args.why or args.python or args.options:
            raise ConfigError(f"{args.target} is a model, which has no options", hint="of a model only --json is known")
        return card(args.target, model, as_json=args.json)
    if sum((args.why is not None, args.diff is not None, args.python)) > 1 or (args.json and args.python):
        raise ConfigError(
            "--why, --diff and --python are three different answers", hint="give one; --json goes with any but --python"
        )
    if args.why is not None:
        _why(target.load_config(args), args)
    elif args.diff is not None:
        _diff(args)
    elif args.python:
        from lovecraft.config.codegen import module

        loaded = target.load_config(args)
        console.out(module(loaded.cls, loaded.name, loaded.root).rstrip("\n"))
    elif args.json:
        console.out_json(as_json(args))
    else:
        _table(target.entries(args)[1])
    return 0


def _table(entries: list[Entry]) -> None:
    """Print an option a line; at a terminal sections stand apart, and what differs from the default stands out."""
    if not console.fancy(sys.stdout):
        console.out(render.table(entries))
        return
    shown: list[console.Cells] = []
    for e, apart in zip(entries, render.breaks([e.path for e in entries]), strict=True):
        bold, value, dim = ("bold", "value", "") if e.value != e.default else ("", "", "dim")
        reason = f"# {e.comment}" if e.comment else ""
        shown += [[]] if apart else []
        shown.append([(e.path, bold), (render.text_of(e.value), value), (e.origin, dim), (reason, "reason")])
    console.flow(shown, sys.stdout, origin=2)


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


def _why(loaded: Loaded, args: argparse.Namespace) -> None:
    found: dict[str, Row] = {row.path: row for row in all_rows(loaded.cls)}
    path = args.why.removeprefix("--").replace("-", "_")
    if path not in found:
        sections = [found[part] for part in accumulate(path.split("."), "{}.{}".format) if part in found]
        if sections and sections[-1].option.section and sections[-1].value is None:
            off = sections[-1]
            raise ConfigError(f"no option {path!r}: {off.path} is switched off by {base.place(off.origin)}")
        close = " or ".join(nearest(path, found, "."))
        raise ConfigError(f"no option {path!r} in {loaded.name}" + (f"; did you mean {close}?" if close else ""))
    if args.json:
        console.out_json(render.chain(found[path], loaded.root))
    else:
        console.chain(render.why(found[path], loaded.root), found[path].sentence)


def _diff(args: argparse.Namespace) -> None:
    if args.diff == "default":
        changes = diff.changed_from_defaults(target.entries(args)[1])
    elif args.diff == "parent":
        loaded = target.load_config(args)
        changes = diff.changed_here(loaded.cls, loaded.root)
    else:
        changes = target.differences(argparse.Namespace(target=args.diff, options=[]), args)
    show = partial(console.changes, of_defaults=args.diff == "default")
    console.told(changes, show, as_json=args.json)
