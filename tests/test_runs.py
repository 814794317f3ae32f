"""Runs on disk: numbers, names, status, and which run is the same."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft import override
from lovecraft.config import record
from lovecraft.config.load import load
from lovecraft.errors import ConfigError, RunError
from lovecraft.runs import Run, create, list_runs, newest, newest_same

CONFIG = "tiny/default"


@pytest.fixture
def made(workspace: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that makes a record of the workspace's training config, with changes and inputs."""

    def one(inputs: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
        return record.make(override(load("tiny").cls, changes), CONFIG, workspace, inputs or {"corpus": "a"})

    return one


Made = Callable[..., dict[str, Any]]


def test_runs_are_numbered_and_never_overwritten(workspace: Path, made: Made) -> None:
    runs = [create(workspace, CONFIG, made()) for _ in range(3)]
    assert [run.name for run in runs] == [f"{CONFIG}/{n}" for n in ("001", "002", "003")]
    assert runs[0].directory == workspace / "runs" / "tiny" / "default" / "001"
    assert runs[0].record == record.read(runs[0].directory / "record.json")


def test_a_number_is_not_used_again_while_a_later_run_is_there(workspace: Path, made: Made) -> None:
    first, _ = create(workspace, CONFIG, made()), create(workspace, CONFIG, made())
    (first.directory / "record.json").unlink()
    first.directory.rmdir()
    assert create(workspace, CONFIG, made()).name == f"{CONFIG}/003"


def test_a_directory_that_another_process_made_is_passed_over(
    workspace: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace / "runs" / "tiny" / "default"
    (folder / "001").mkdir(parents=True)
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(()))  # as if it had been made after the look
    assert create(workspace, CONFIG, made()).name == f"{CONFIG}/002"


def test_runs_are_listed_by_name_and_number(workspace: Path, made: Made) -> None:
    for number in (2, 10, 9, 1000, 999):
        directory = workspace / "runs" / "tiny" / "default" / f"{number:03d}"
        record.write(directory / "record.json", made())
    create(workspace, "texts/default", made())
    assert [run.name for run in list_runs(workspace)] == [
        "texts/default/001",
        *(f"{CONFIG}/{n}" for n in ("002", "009", "010", "999", "1000")),
    ]
    assert len(list_runs(workspace, "tiny")) == len(list_runs(workspace, CONFIG)) == 5
    assert list_runs(workspace, "nothing") == []
    newest_run = newest(workspace, CONFIG)
    assert newest_run is not None
    assert newest_run.name == f"{CONFIG}/1000"


def test_what_is_no_run_is_not_listed(workspace: Path, made: Made) -> None:
    run = create(workspace, CONFIG, made())
    (run.directory.parent / "002").mkdir()  # not begun
    (run.directory.parent / "003_kept").mkdir()
    (run.directory.parent / "003_kept" / "record.json").write_text("{}")
    (run.directory / "checkpoints" / "step").mkdir(parents=True)
    (run.directory / "checkpoints" / "step" / "record.json").write_text("{}")
    assert [found.name for found in list_runs(workspace)] == [run.name]


def test_runs_of_a_config_in_a_folder_below_are_not_its_own(workspace: Path, made: Made) -> None:
    inner = create(workspace, f"{CONFIG}/deeper", made())
    assert newest(workspace, CONFIG) is None
    assert newest_same(workspace, CONFIG, inner.record["fingerprint"], {"corpus": "a"}) is None
    assert [found.name for found in list_runs(workspace, CONFIG)] == [inner.name]


def test_the_same_run_has_the_same_fingerprint_and_the_same_inputs(workspace: Path, made: Made) -> None:
    first = create(workspace, CONFIG, made())
    again = create(workspace, CONFIG, made(device="cuda"))  # without effect on the result
    other = create(workspace, CONFIG, made(seed=1))
    elsewhere = create(workspace, CONFIG, made({"corpus": "b"}))
    wanted = first.record["fingerprint"]
    assert newest_same(workspace, CONFIG, wanted, {"corpus": "a"}) == again
    assert newest_same(workspace, CONFIG, wanted, {"corpus": "b"}) == elsewhere
    assert newest_same(workspace, CONFIG, other.record["fingerprint"], {"corpus": "a"}) == other
    assert newest_same(workspace, CONFIG, wanted, {"corpus": "c"}) is None
    assert newest_same(workspace, "texts/default", wanted, {"corpus": "a"}) is None


def test_a_run_says_its_status_and_is_believed(workspace: Path, made: Made) -> None:
    run = create(workspace, CONFIG, made())
    assert run.status == {}
    run.say(status="running", step=3)
    assert run.status == {"status": "running", "step": 3}
    run.say(status="finished")
    assert Run(run.directory).status == {"status": "finished"}


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_damaged_status_says_nothing(workspace: Path, made: Made, text: str) -> None:
    run = create(workspace, CONFIG, made())
    (run.directory / "status.json").write_text(text)
    assert run.status == {}


def test_a_damaged_record_is_named(workspace: Path, made: Made) -> None:
    run = create(workspace, CONFIG, made())
    (run.directory / "record.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(ConfigError, match=r"001/record.json: not a record"):
        _ = run.record


def test_a_damaged_run_is_listed_but_neither_the_newest_nor_the_same(workspace: Path, made: Made) -> None:
    sound, broken = create(workspace, CONFIG, made()), create(workspace, CONFIG, made())
    (broken.directory / "record.json").write_text("{")
    assert sound.damage == ""
    assert "002/record.json" in broken.damage
    assert list_runs(workspace) == [sound, broken]
    assert newest(workspace, CONFIG) == newest_same(workspace, CONFIG, sound.record["fingerprint"], {"corpus": "a"})
    assert newest(workspace, CONFIG) == sound


def test_a_run_outside_of_a_workspace_is_named_by_its_directory(tmp_path: Path) -> None:
    assert Run(tmp_path / "copied" / "004").name == "004"
    assert Run(Path("/a/runs/b/runs/p/c/001")).name == "p/c/001"


def test_a_run_of_a_project_that_is_called_runs_has_its_whole_name(workspace: Path, made: Made) -> None:
    assert create(workspace, "runs/runs", made()).name == "runs/runs/001"


def test_a_place_that_cannot_be_written_is_an_error(workspace: Path, made: Made) -> None:
    (workspace / "runs").write_text("a file")
    with pytest.raises(RunError, match=r"cannot make a run's directory: (Not a directory|File exists)") as error:
        create(workspace, CONFIG, made())
    assert "runs/ writable" in error.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_place_is_an_error(workspace: Path, made: Made) -> None:
    (workspace / "runs").mkdir(mode=0o500)
    with pytest.raises(RunError, match="Permission denied"):
        create(workspace, CONFIG, made())
