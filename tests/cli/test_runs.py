"""`lc runs`: what runs there are and how they stand."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft.runs import Run
from lovecraft.train import loop
from lovecraft.train.control import only_one, request
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
    names = "run config path status reason checkpoints step steps loss started seconds bytes"
    assert list(row) == names.split()
    assert (row["path"], row["reason"]) == (str(workspace / "runs" / "tiny" / "default" / "001"), "")
    assert (row["run"], row["config"], row["status"]) == ("tiny/default/001", "tiny/default", "finished")
    assert (row["step"], row["steps"]) == (4, 4)
    assert row["bytes"] > 1000
    assert [row] == json.loads(lc("runs", "tiny/default/001", "--json").out)
    assert [row] == json.loads(lc("runs", "tiny", "--json").out)
    head, line = lc("runs").out.splitlines()
    assert head.split()[:2] == ["run", "status"]
    assert line.split()[:3] == ["tiny/default/001", "finished", "4/4"]


def test_one_run_is_shown_with_its_path_its_checkpoints_and_why_it_stopped(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = workspace / "runs" / "tiny" / "default" / "001"
    take_step = loop.take_step

    def aborted(t: loop.Training) -> dict[str, Any]:
        row = take_step(t)
        if row["step"] == 3:
            request(directory, "abort")
        return row

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", aborted)
        lc("train", "tiny", "--save.every", "2")
    _, line, _, *rest = lc("runs", "tiny/default/001").out.splitlines()
    assert line.split()[:3] == ["tiny/default/001", "stopped", "2/4"], "where the same command goes on"
    assert [row.split() for row in rest] == [["path", str(directory)], ["checkpoints", "2"], ["reason", "abort"]]
    assert "at step 2 of 4 (steps up to 3 were not saved)" in lc("train", "tiny", "--save.every", "2").err


def test_the_time_a_run_began_is_short_and_local(lc: Lc) -> None:
    lc("train", "tiny")
    [row] = json.loads(lc("runs", "--json").out)
    local = datetime.datetime.fromisoformat(row["started"]).astimezone()
    assert f"  {local:%m-%d %H:%M}  " in lc("runs").out


def test_a_broken_record_is_listed_with_its_path_and_stops_no_training(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    record = workspace / "runs" / "tiny" / "default" / "001" / "record.json"
    record.write_text("{")
    done = lc("runs")
    assert done.code == 0
    assert done.out.splitlines()[1].split()[:2] == ["tiny/default/001", "broken"]
    assert str(record) in done.err
    assert json.loads(lc("runs", "--json").out)[0]["started"] is None
    trained = lc("train", "tiny")
    assert trained.code == 0
    assert str(record) in trained.err
    assert "run tiny/default/002" in trained.err


@pytest.mark.parametrize("word", ["tiny", "tiny/default"])
def test_a_config_without_runs_is_no_mistake(lc: Lc, word: str) -> None:
    done = lc("runs", word)
    assert (done.code, done.out) == (0, "")
    assert f"no runs of {word} yet; `lc train {word}`" in done.err
    assert lc("runs", word, "--plot").code == 0


def test_a_plot_fits_the_terminal(lc: Lc, monkeypatch: pytest.MonkeyPatch) -> None:
    lc("train", "tiny")
    for columns, width in ((60, 59), (80, 79), (200, 81)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert max(map(len, lc("runs", "tiny", "--plot").out.splitlines())) == width


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
