"""How long a command takes that loads nothing heavy, next to the imports that it cannot do without."""

import argparse
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from bench.report import ROOT, Report, Result, alternate

LC = str(Path(sys.executable).parent / "lc")
IMPORTS = "import attrs, cattrs, rich"
COMMANDS = {
    IMPORTS: [sys.executable, "-c", IMPORTS],
    "lc --help": [LC, "--help"],
    "lc ls": [LC, "ls"],
    "lc show": [LC, "show", "finetune_lovecraft"],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--rounds", type=int, default=25)


def run(args: argparse.Namespace) -> Report:
    """Run each command as a process of its own, its output into a pipe."""
    contenders = {name: partial(_seconds, command) for name, command in COMMANDS.items()}
    alternate(contenders, 2)  # files into the page cache, bytecode onto the disk
    samples = alternate(contenders, args.rounds)
    results = [Result("start to end", name, [1000 * s for s in some]) for name, some in samples.items()]
    return Report("startup", "milliseconds, less is better", results, (IMPORTS,), ("bar: at most 2.5 ×",))


def _seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - begun
