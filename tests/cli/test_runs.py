"""`lc runs`: what runs there are and how they stand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft.runs import Run
from lovecraft.train.control import only_one
from tests.tiny import tiny_model_dir

Lc = Callable[..., Any]


@pytest.fixture(autouse=True)
def model(workspace: Path) -> Path:
    """Put the workspace's model in its place."""
    return tiny_model_dir(workspace / "models" / "tiny", max_position_embeddings=128)


def test_without_runs_it_says_how_to_make_one(lc: Lc) -> None:
    done = lc("runs")
    assert (done.code, done.out) == (0, "")
    assert "lc train" in done.err
    assert json.loads(lc("runs", "--json").out) == []


def test_runs_are_listed_in_the_documented_shape(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    [row] = json.loads(lc("runs", "--json").out)
    assert list(row) == ["run", "config", "status", "step", "steps", "loss", "started", "seconds", "bytes"]
    assert (row["run"], row["config"], row["status"]) == ("tiny/default/001", "tiny/default", "finished")
    assert (row["step"], row["steps"]) == (4, 4)
    assert row["bytes"] > 1000
    assert [row] == json.loads(lc("runs", "tiny/default/001", "--json").out)
    assert [row] == json.loads(lc("runs", "tiny", "--json").out)
    head, line = lc("runs").out.splitlines()
    assert head.split()[:2] == ["run", "status"]
    assert line.split()[:3] == ["tiny/default/001", "finished", "4/4"]


def test_a_run_whose_process_is_gone_counts_as_stopped(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    run = Run(workspace / "runs" / "tiny" / "default" / "001")
    run.say(status="running", steps=4, pid=1)
    with only_one(run.directory):
        assert json.loads(lc("runs", "--json").out)[0]["status"] == "running"
    assert json.loads(lc("runs", "--json").out)[0]["status"] == "stopped"


def test_an_unknown_run_is_refused(lc: Lc) -> None:
    done = lc("runs", "nowhere")
    assert done.code == 2
    assert "nowhere" in done.err


def test_it_needs_no_torch(lc: Lc, workspace: Path) -> None:
    import subprocess
    import sys

    lc("train", "tiny")
    code = "import sys; from lovecraft.cli import main; main(['runs']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=workspace, check=True)
    assert done.stdout.splitlines()[-1] == "False"
