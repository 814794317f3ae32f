"""`lc stop`: asking a running training through its directory."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lovecraft.runs import Run
from lovecraft.train.control import only_one, take_request

Lc = Callable[..., Any]


def make(workspace: Path, number: str) -> Run:
    run = Run(workspace / "runs" / "tiny" / "default" / number)
    run.directory.mkdir(parents=True)
    (run.directory / "record.json").write_text("{}")
    return run


@pytest.fixture
def running(workspace: Path) -> Iterator[Run]:
    """A run that a process, this one, is training, beside one that is over."""
    make(workspace, "001")
    run = make(workspace, "002")
    with only_one(run.directory):
        run.say(status="running", pid=4242)
        yield run


@pytest.mark.parametrize(("flags", "asked"), [([], "stop"), (["--save"], "save"), (["--abort"], "abort")])
def test_the_request_lies_in_the_directory_of_the_run(lc: Lc, running: Run, flags: list[str], asked: str) -> None:
    assert lc("stop", "tiny/default/002", *flags).code == 0
    assert take_request(running.directory) == asked


def test_a_config_means_its_running_run(lc: Lc, running: Run) -> None:
    done = lc("stop", "tiny", "--json")
    assert json.loads(done.out) == {"run": "tiny/default/002", "request": "stop", "pid": 4242}
    assert take_request(running.directory) == "stop"


def test_what_does_not_run_cannot_be_stopped(lc: Lc, running: Run) -> None:
    done = lc("stop", "tiny/default/001")
    assert done.code == 2
    assert "running" in done.err
    assert lc("stop", "nowhere").code == 2


def test_of_several_running_ones_one_must_be_named(lc: Lc, running: Run, workspace: Path) -> None:
    with only_one(make(workspace, "003").directory):
        done = lc("stop", "tiny")
    assert done.code == 2
    assert "tiny/default/002, tiny/default/003" in done.err


def test_save_and_abort_exclude_each_other(lc: Lc, running: Run) -> None:
    assert lc("stop", "tiny", "--save", "--abort").code == 2
