"""`lc runs`: what runs there are and how they stand."""

import datetime
import json
import sys
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
    names += " tokens_per_second seconds_left"
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
    for columns, width in ((60, 59), (80, 79), (200, 109)):
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


def test_several_runs_are_drawn_in_one_picture(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    lc("train", "tiny", "--seed", "7")
    done = lc("runs", "tiny", "--plot")
    assert [line.split()[:2] for line in done.out.splitlines()[-2:]] == [
        ["a", "tiny/default/001:"],
        ["b", "tiny/default/002:"],
    ]
    file = workspace / "curves.svg"
    assert lc("runs", "tiny", "--plot", str(file)).out == f"{file}\n"
    assert "tiny/default/002" in file.read_text()
    assert "tiny/default/002" not in lc("runs", "tiny/default/001", "--plot").out


def test_a_running_one_says_how_fast_it_is_and_what_is_left(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    run = Run(workspace / "runs" / "tiny" / "default" / "001")
    steps = [{"step": s, "loss": 2.0, "lr": 1.0, "tokens_per_second": 512.0, "seconds": 3.0 * s} for s in (1, 2, 3)]
    (run.directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    run.say(status="running", steps=103, pid=1)
    with only_one(run.directory):
        [row] = json.loads(lc("runs", "--json").out)
        head, line = lc("runs").out.splitlines()
    assert (row["tokens_per_second"], row["seconds_left"]) == (512.0, 300.0)
    assert head.split()[4:6] == ["tok/s", "left"]
    assert "512    5 min 00 s" in line
    assert json.loads(lc("runs", "--json").out)[0]["seconds_left"] is None, "it is not running any more"


@pytest.mark.parametrize(("columns", "last"), [(200, "size"), (80, "time"), (60, "loss")])
def test_a_narrow_terminal_shows_fewer_columns_and_each_run_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, last: str
) -> None:
    from rich.text import Text

    from lovecraft.cli import runs

    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    cells = ("finetune_lovecraft/default/00", "100/12000", "2.1234", "", "", "11-25 06:00", "12 min 05 s", "269.0 MB")
    names = ("run", "step", "loss", "tok/s", "left", "started", "time", "size")
    rows = [
        {"run": f"{cells[0]}{i}", "status": status, **dict(zip(names[1:], cells[1:], strict=True))}
        for i, status in enumerate(("finished", "failed"))
    ]
    runs._table(rows)
    shown = capsys.readouterr().out
    lines = Text.from_ansi(shown).plain.splitlines()
    assert len(lines) == 3
    assert lines[0].split()[-1] == last
    assert max(map(len, lines)) <= columns
    assert "\x1b[32mfinished" in shown
    assert "\x1b[31mfailed" in shown
