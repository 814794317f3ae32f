"""Runs on disk: `runs/<project>/<config>/<NNN>/`, numbered, never overwritten, each with its `record.json`."""

import json
import re
from pathlib import Path
from typing import Any

import attrs

from lovecraft.config import record as records
from lovecraft.errors import ConfigError, RunError

STATUS = "status.json"


@attrs.frozen
class Run:
    """One run's directory."""

    directory: Path

    @property
    def name(self) -> str:
        """`project/config/NNN`."""
        tops = [folder for folder in self.directory.parents if folder.name == "runs"]  # a project may be called so
        top = next((folder for folder in tops if (folder.parent / "workspace.py").is_file()), None)
        return self.directory.relative_to(top or next(iter(tops), self.directory.parent)).as_posix()

    @property
    def record(self) -> dict[str, Any]:
        """The run's record, read from disk. Raises ConfigError if it is damaged."""
        return records.read(self.directory / records.NAME)

    @property
    def damage(self) -> str:
        """What is wrong with the run's record, with its path; empty if nothing is."""
        try:
            _ = self.record
        except ConfigError as error:
            return error.message
        return ""

    @property
    def status(self) -> dict[str, Any]:
        """What the run last said of itself; empty before its first word."""
        try:
            return dict(json.loads((self.directory / STATUS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # absent or damaged: the run has said nothing
            return {}

    def say(self, **status: Any) -> None:
        """Write the run's status."""
        from lovecraft.files import write_atomic

        write_atomic(self.directory / STATUS, json.dumps(status, indent=2) + "\n")


def list_runs(root: Path, config: str = "") -> list[Run]:
    """Return all runs of a workspace, or those of a project or a config, by name and number."""
    found = [p.parent for p in (root / "runs" / config).rglob(f"*/{records.NAME}") if p.parent.name.isdigit()]
    return [Run(directory) for directory in sorted(found, key=lambda d: (d.parent, int(d.name)))]


def newest(root: Path, config: str) -> Run | None:
    """Return the run of a config with the highest number, damaged ones left out."""
    return next((run for run in reversed(_runs_of(root, config)) if not run.damage), None)


def newest_same(root: Path, config: str, fingerprint: str, inputs: dict[str, str]) -> Run | None:
    """Return the newest run of a config that has the same fingerprint and the same inputs, damaged ones left out."""
    for run in reversed(_runs_of(root, config)):
        if not run.damage and (record := run.record)["fingerprint"] == fingerprint and record["inputs"] == inputs:
            return run
    return None


def checkpoints(run: Path) -> dict[int, Path]:
    """Return a run's checkpoints by step, oldest first. Half-written ones have other names."""
    found = [(re.fullmatch(r"step-(\d+)", p.name), p) for p in (run / "checkpoints").glob("step-*")]
    return {int(match[1]): path for match, path in sorted(found, key=lambda pair: pair[1].name) if match}


def _runs_of(root: Path, config: str) -> list[Run]:
    """Return the runs of exactly this config: another may lie in a folder below it."""
    return [run for run in list_runs(root, config) if run.directory.parent == root / "runs" / config]


def create(root: Path, config: str, record: dict[str, Any]) -> Run:
    """Make the directory of the next run of a config and write its record.

    Raises RunError when the directory cannot be written.
    """
    parent = root / "runs" / config
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(p.name) for p in parent.iterdir() if p.name.isdigit()), default=0)
        while True:
            try:
                directory = parent / f"{number:03d}"
                directory.mkdir()
                break
            except FileExistsError:  # another process took the number
                number += 1
        records.write(directory / records.NAME, record)
    except OSError as error:
        raise RunError(
            f"{parent}: cannot make a run's directory: {error.strerror}", hint="make runs/ writable, or free some space"
        ) from None
    return Run(directory)
