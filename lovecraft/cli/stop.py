"""Ask a running training to save and stop after its current step.

`lc train` with the same config goes on from there. The request is a file in the run's directory.
"""

import argparse

from lovecraft.cli import console, target
from lovecraft.config.load import find_root
from lovecraft.errors import RunError
from lovecraft.runs import Run, list_runs

USAGE = "RUN|CONFIG [--save | --abort] [--json]"
EXAMPLE = "lc stop finetune_lovecraft/default/001"
TAKES_OPTIONS = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc stop`."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--save", action="store_true", help="save and go on")
    how.add_argument("--abort", action="store_true", help="stop without saving")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Leave the request for the process that trains the run."""
    from lovecraft.train.control import is_running, request

    found = target.find_run(args.target)
    runs = [Run(found)] if found else list_runs(find_root(), args.target or "")
    running = [one for one in runs if is_running(one.directory)]
    if not running:
        raise RunError(f"no run of {args.target or 'this workspace'} is running", hint="`lc runs` lists them all")
    if len(running) > 1:
        names = ", ".join(one.name for one in running)
        raise RunError("more than one run is running", hint=f"name one: {names}")
    what = "save" if args.save else "abort" if args.abort else "stop"
    request(running[0].directory, what)
    if args.json:
        console.out_json({"run": running[0].name, "request": what, "pid": running[0].status.get("pid")})
    else:
        told = {"save": "save and go on", "abort": "stop without saving", "stop": "save and stop"}[what]
        console.say(f"{running[0].name} will {told} after its current step")
    return 0
