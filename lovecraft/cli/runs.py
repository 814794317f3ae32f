"""List runs, those of a project or a config, or one.

A run whose process is gone without a word counts as stopped: the same `lc train` goes on with it.
"""

import argparse
from pathlib import Path
from typing import Any

from lovecraft.cli import console, target
from lovecraft.config.load import find_root
from lovecraft.errors import RunError
from lovecraft.runs import Run, list_runs

USAGE = "[RUN|CONFIG|PROJECT] [--json] [--plot [FILE.svg]]"
EXAMPLE = "lc runs finetune_lovecraft"
TAKES_OPTIONS = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc runs`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--plot", nargs="?", const="", metavar="FILE.svg", help="draw the loss curves of one run, here or into a file"
    )


def run(args: argparse.Namespace) -> int:
    """Print one line a run."""
    if args.plot is not None:
        return _plot(_named(args.target)[-1], args.plot)
    found = [describe(one) for one in _named(args.target)]
    if args.json:
        console.out_json(found)
        return 0
    if not found:
        console.say("no runs yet; `lc train CONFIG` makes one")
        return 0
    heads = ("run", "status", "step", "loss", "started", "time", "size")
    console.table([_cells(row) for row in found], heads, styles=("bold",), right=("step", "loss", "time", "size"))
    return 0


def _plot(one: Run, file: str) -> int:
    """Draw the curves of a run, the newest of those named; print the file's path where one was named."""
    from lovecraft.train import curves, metrics

    rows = metrics.read(one.directory)
    if not curves.training_losses(rows):
        raise RunError(f"{one.name} has no steps to draw yet")
    if not file:
        console.out(f"{one.name}\n{curves.text(rows)}")
        return 0
    try:
        Path(file).write_text(curves.svg(rows, one.name), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{file} cannot be written: {error.strerror}") from None
    console.out(file)
    return 0


def describe(one: Run) -> dict[str, Any]:
    """Return the documented JSON object of a run. `loss` is the newest held-out one, else the newest step's."""
    from lovecraft.train import metrics

    rows = metrics.read(one.directory)
    steps = [row for row in rows if "lr" in row]
    losses = [row["loss"] for row in rows if "split" in row] or [row["loss"] for row in steps]
    record = one.record
    return {
        "run": one.name,
        "config": record["config"],
        "status": status_of(one),
        "step": steps[-1]["step"] if steps else 0,
        "steps": one.status.get("steps"),
        "loss": losses[-1] if losses else None,
        "started": record["created"],
        "seconds": steps[-1]["seconds"] if steps else 0.0,
        "bytes": sum(file.stat().st_size for file in one.directory.rglob("*") if file.is_file()),
    }


def status_of(one: Run) -> str:
    """Return running, finished, stopped or failed."""
    from lovecraft.train.control import is_running

    said = one.status.get("status", "stopped")
    return "stopped" if said == "running" and not is_running(one.directory) else said


def _named(word: str | None) -> list[Run]:
    if found := target.find_run(word):
        return [Run(found)]
    runs = list_runs(find_root(), word or "")
    if word and not runs:
        raise RunError(f"no run {word!r}", hint="`lc runs` lists them all")
    return runs


def _cells(row: dict[str, Any]) -> list[str]:
    step = f"{row['step']}/{row['steps'] or '?'}"
    loss = "–" if row["loss"] is None else f"{row['loss']:.4f}"
    return [
        row["run"],
        row["status"],
        step,
        loss,
        row["started"],
        console.duration(row["seconds"]),
        console.size(row["bytes"]),
    ]
