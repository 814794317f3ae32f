"""Print what differs between two configs, runs or records, each value with its origin."""

import argparse

from lovecraft.cli import console, target
from lovecraft.errors import ConfigError

USAGE = "A B [--json]"
EXAMPLE = "lc diff finetune_lovecraft quickstart"
TAKES_OPTIONS = False
BARE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc diff`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the differences; exit 1 when there are any."""
    if len(args.bare) != 2:
        raise ConfigError("lc diff takes two configs, runs or records", hint=f"for example: {EXAMPLE}")
    a, b = (argparse.Namespace(target=word, options=[]) for word in args.bare)
    changes = target.differences(a, b)
    console.told(changes, console.both, as_json=args.json)
    return 1 if changes else 0
