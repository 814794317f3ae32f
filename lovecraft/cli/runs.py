"""List runs, those of a project or a config, or one with its checkpoints.

A run whose process is gone without a word counts as stopped: the same `lc train` goes on with it.
"""

import argparse
import datetime
import shutil
from pathlib import Path
from typing import Any

from lovecraft.cli import console, target
from lovecraft.config.load import find_root
from lovecraft.errors import RunError
from lovecraft.runs import Run, checkpoints, list_runs

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
    named = _named(args.target)
    if args.plot is not None and named:
        return _plot(named[-1], args.plot)
    found = [describe(one) for one in named]
    if args.json:
        console.out_json(found)
        return 0
    if not found:
        of, config = (f" of {args.target}", args.target) if args.target else ("", "CONFIG")
        console.say(f"no runs{of} yet; `lc train {config}` makes one")
        return 0
    heads = ("run", "status", "step", "loss", "started", "time", "size")
    console.table([_cells(row) for row in found], heads, styles=("bold",), right=("step", "loss", "time", "size"))
    if target.find_run(args.target):
        console.out("")
        steps = ", ".join(map(str, found[0]["checkpoints"])) or "none"
        for what, said in (("path", found[0]["path"]), ("checkpoints", steps), ("reason", found[0]["reason"] or "–")):
            console.out(f"{what:<13}{said}")
    for one in named:
        if one.damage:
            console.say(one.damage)
    return 0


def _plot(one: Run, file: str) -> int:
    """Draw the curves of a run, the newest of those named; print the file's path where one was named."""
    from lovecraft.train import curves, metrics

    rows = metrics.read(one.directory)
    if not curves.training_losses(rows):
        raise RunError(f"{one.name} has no steps to draw yet")
    if not file:
        width = max(20, min(72, shutil.get_terminal_size().columns - 10))
        console.out(f"{one.name}\n{curves.text(rows, width)}")
        return 0
    console.write(Path(file), curves.svg(rows, one.name))
    console.out(file)
    return 0


def describe(one: Run) -> dict[str, Any]:
    """Return the documented JSON object of a run. `loss` is the newest held-out one, else the newest step's."""
    from lovecraft.train import metrics

    rows = metrics.read(one.directory)
    steps = [row for row in rows if "lr" in row]
    losses = [row["loss"] for row in rows if "split" in row] or [row["loss"] for row in steps]
    return {
        "run": one.name,
        "config": one.name.rpartition("/")[0] if one.damage else one.record["config"],
        "path": str(one.directory),
        "status": status_of(one),
        "reason": one.status.get("reason", ""),
        "checkpoints": list(checkpoints(one.directory)),
        "step": steps[-1]["step"] if steps else 0,
        "steps": one.status.get("steps"),
        "loss": losses[-1] if losses else None,
        "started": None if one.damage else one.record["created"],
        "seconds": steps[-1]["seconds"] if steps else 0.0,
        "bytes": sum(file.stat().st_size for file in one.directory.rglob("*") if file.is_file()),
    }


def status_of(one: Run) -> str:
    """Return running, finished, stopped, failed, or broken if its record cannot be read."""
    from lovecraft.train.control import is_running

    if one.damage:
        return "broken"
    said = one.status.get("status", "stopped")
    return "stopped" if said == "running" and not is_running(one.directory) else said


def _named(word: str | None) -> list[Run]:
    if found := target.find_run(word):
        return [Run(found)]
    root = find_root()
    runs = list_runs(root, word or "")
    if word and not runs and not any((root / "projects" / f"{word}{end}").exists() for end in ("", ".py")):
        raise RunError(f"no run {word!r}", hint="`lc runs` lists them all")
    return runs


def _cells(row: dict[str, Any]) -> list[str]:
    kept = row["step"] if row["status"] in ("running", "finished") else max(row["checkpoints"], default=0)
    step = f"{kept}/{row['steps'] or '?'}"  # where the same command goes on
    loss = "–" if row["loss"] is None else f"{row['loss']:.4f}"
    return [
        row["run"],
        row["status"],
        step,
        loss,
        f"{datetime.datetime.fromisoformat(row['started']).astimezone():%m-%d %H:%M}" if row["started"] else "–",
        console.duration(row["seconds"]),
        console.size(row["bytes"]),
    ]
