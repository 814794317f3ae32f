"""List runs, those of a project or a config, or one with its checkpoints.

A run whose process is gone without a word counts as stopped: the same `lc train` goes on with it.
"""

import argparse
import datetime
import shutil
import sys
from pathlib import Path
from typing import Any

from lovecraft.cli import console, target
from lovecraft.config.load import find_root
from lovecraft.errors import RunError
from lovecraft.runs import Run, checkpoints, list_runs

USAGE = "[RUN|CONFIG|PROJECT] [--json] [--plot [FILE.svg]]"
EXAMPLE = "lc runs finetune_lovecraft"
TAKES_OPTIONS = False
STATUSES = {"running": "cyan", "finished": "green", "stopped": "yellow", "failed": "red", "broken": "red"}
LEAST = ("size", "started", "tok/s", "time")  # columns that a narrow terminal does not show, in that order
RECENT = 50  # rows from which the time that is left follows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc runs`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--plot",
        nargs="?",
        const="",
        metavar="FILE.svg",
        help="draw the curves of one run or several, here or in a file",
    )


def run(args: argparse.Namespace) -> int:
    """Print one line a run."""
    named = _named(args.target)
    if args.plot is not None and named:
        return _plot(named, args)
    found = [describe(one) for one in named]
    if args.json:
        console.out_json(found)
        return 0
    if not found:
        of, config = (f" of {args.target}", args.target) if args.target else ("", "CONFIG")
        console.say(f"no runs{of} yet; `lc train {config}` makes one")
        return 0
    _table([_cells(row) for row in found])
    if target.find_run(args.target):
        console.out("")
        steps = ", ".join(map(str, found[0]["checkpoints"])) or "none"
        for what, said in (("path", found[0]["path"]), ("checkpoints", steps), ("reason", found[0]["reason"] or "–")):
            console.out(f"{what:<13}{said}")
    for one in named:
        if one.damage:
            console.say(one.damage)
    return 0


def _table(rows: list[dict[str, str]]) -> None:
    """Print the columns that say something; at a narrow terminal, those that fit."""
    heads = [head for head in rows[0] if any(row[head] for row in rows)]
    widths = {head: max(len(head), *(len(row[head]) for row in rows)) for head in heads}
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for head in LEAST:
        if width and head in heads and sum(widths[h] + 2 for h in heads) - 2 > width:
            heads.remove(head)
    right = [head for head in heads if head not in ("run", "status", "started")]
    console.table([[row[head] for head in heads] for row in rows], heads, styles=("bold", STATUSES), right=right)


def _plot(named: list[Run], args: argparse.Namespace) -> int:
    """Draw the curves of the newest of the runs; print the file's path where one was named."""
    from lovecraft.train import curves, metrics

    runs = [(one.name, metrics.read(one.directory)) for one in named]
    runs = [(name, rows) for name, rows in runs if curves.series(rows, "loss")]
    if not runs:
        raise RunError(f"{named[-1].name} has no steps to draw yet")
    most = len(curves.LETTERS)
    if len(runs) > most:
        console.say(f"only the newest {most} of {len(runs)} runs are drawn")
    runs = runs[-most:]
    title = runs[0][0] if len(runs) == 1 else args.target or "all runs"
    if not args.plot:
        width = max(20, min(100, shutil.get_terminal_size().columns - curves.LABEL - 3))
        console.out(f"{title}\n{curves.text(runs, width)}")
        return 0
    from lovecraft.train.drawing import svg

    console.write(Path(args.plot), svg(runs, title))
    console.out(args.plot)
    return 0


def describe(one: Run) -> dict[str, Any]:
    """Return the documented JSON object of a run. `loss` is the newest held-out one, else the newest step's."""
    from lovecraft.train import metrics

    steps, measured = metrics.newest(one.directory, RECENT)
    newest, status, whole = steps[0] if steps else None, status_of(one), one.status.get("steps")
    left = None
    if status == "running" and whole and len(steps) > 1:
        a_step = (steps[0]["seconds"] - steps[-1]["seconds"]) / max(1, steps[0]["step"] - steps[-1]["step"])
        left = round(a_step * (whole - steps[0]["step"]), 1)
    last = measured or newest
    return {
        "run": one.name,
        "config": one.name.rpartition("/")[0] if one.damage else one.record["config"],
        "path": str(one.directory),
        "status": status,
        "reason": one.status.get("reason", ""),
        "checkpoints": list(checkpoints(one.directory)),
        "step": newest["step"] if newest else 0,
        "steps": whole,
        "loss": last["loss"] if last else None,
        "started": None if one.damage else one.record["created"],
        "seconds": newest["seconds"] if newest else 0.0,
        "bytes": sum(file.stat().st_size for file in one.directory.rglob("*") if file.is_file()),
        "tokens_per_second": newest["tokens_per_second"] if newest else None,
        "seconds_left": left,
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


def _cells(row: dict[str, Any]) -> dict[str, str]:
    kept = row["step"] if row["status"] in ("running", "finished") else max(row["checkpoints"], default=0)
    step = f"{kept}/{row['steps'] or '?'}"  # where the same command goes on
    loss = "–" if row["loss"] is None else f"{row['loss']:.4f}"
    began = datetime.datetime.fromisoformat(row["started"]).astimezone() if row["started"] else None
    runs = row["status"] == "running"
    return {
        "run": row["run"],
        "status": row["status"],
        "step": step,
        "loss": loss,
        "tok/s": f"{row['tokens_per_second']:,.0f}" if runs and row["tokens_per_second"] else "",
        "left": console.duration(row["seconds_left"]) if row["seconds_left"] is not None else "",
        "started": f"{began:%m-%d %H:%M}" if began else "–",
        "time": console.duration(row["seconds"]),
        "size": console.size(row["bytes"]),
    }
