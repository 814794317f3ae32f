"""`lc diff`: what differs between configs, runs and records, with both origins, and the exit code."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft.cli import console
from lovecraft.config import record
from lovecraft.config.load import load

Command = Callable[..., Any]


@pytest.fixture
def long(workspace: Path, write: Callable[[str, str], Path]) -> str:
    """Write a config that differs from `tiny` in two options, and in nothing else."""
    write(
        "projects/tiny/long.py",
        """
        from lovecraft import SGD
        from projects.tiny import default

        class Dataset(default.Dataset):
            block_size = 64

        class Train(default.Train):
            dataset = Dataset
            max_steps = 50  # longer
        """,
    )
    return "tiny/long"


def test_no_difference_is_said_on_stderr_and_exits_0(lc: Command, workspace: Path) -> None:
    done = lc("diff", "tiny", "tiny/default")
    assert (done.code, done.out, done.err) == (0, "", "no difference\n")


def test_a_difference_prints_both_sides_and_exits_1(lc: Command, long: str) -> None:
    done = lc("diff", "tiny", long)
    assert done.code == 1
    assert done.out.splitlines() == [
        "dataset.block_size",
        "- 32  projects/texts/default.py:9",
        "+ 64  projects/tiny/long.py:5",
        "max_steps",
        "- 4  projects/tiny/default.py:9",
        "+ 50  projects/tiny/long.py:9",
    ]


def test_at_a_terminal_what_differs_is_coloured_and_nothing_is_wider_than_it(
    lc: Command, long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "fancy", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "40")
    plain = re.sub(r"\033\[[\d;]*m", "", out := lc("diff", "tiny", long).out)
    assert "\033[1mmax_steps\033[0m\n" in out
    assert "\033[1;36m50\033[0m" in out
    assert re.search(r"^\+  64 +projects/tiny/long.py:5$", plain, re.MULTILINE)
    assert max(map(len, plain.splitlines())) <= 40


def test_json_has_the_documented_shape(lc: Command, long: str) -> None:
    done = lc("diff", "tiny", long, "--json")
    assert done.code == 1
    assert json.loads(done.out)[0] == {
        "path": "dataset.block_size",
        "a": 32,
        "b": 64,
        "a_origin": "projects/texts/default.py:9",
        "b_origin": "projects/tiny/long.py:5",
    }
    done = lc("diff", "tiny", "tiny", "--json")
    assert (done.code, json.loads(done.out)) == (0, [])


def test_a_run_is_compared_as_recorded(lc: Command, long: str, workspace: Path) -> None:
    for i, name in enumerate(("tiny/default", long), 1):
        directory = workspace / "runs" / "tiny" / "default" / f"00{i}"
        record.write(directory / "record.json", record.make(load(name).cls, name, workspace, {}))
    assert lc("diff", "tiny/default/001", "tiny").code == 0
    assert lc("diff", "tiny/default/001", "tiny/default/002").out == lc("diff", "tiny", long).out
    assert lc("diff", "runs/tiny/default/002/record.json", long).code == 0


def test_a_config_with_options_of_its_own_equals_its_run(
    lc: Command, workspace: Path, write: Callable[[str, str], Path]
) -> None:
    write(
        "projects/tiny/own.py",
        """
        from lovecraft import derived
        from projects.tiny import default

        class Train(default.Train):
            helper: int = 3

            @derived
            def batch_size(self) -> int:
                return self.helper
        """,
    )
    directory = workspace / "runs" / "tiny" / "own" / "001"
    record.write(directory / "record.json", record.make(load("tiny/own").cls, "tiny/own", workspace, {}))
    assert lc("diff", "tiny/own/001", "tiny/own").code == 0


@pytest.mark.parametrize("words", [[], ["tiny"], ["tiny", "tiny", "tiny"], ["tiny", "tiny", "--seed", "1"]])
def test_it_takes_two_names_and_no_options(lc: Command, workspace: Path, words: list[str]) -> None:
    done = lc("diff", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: lc diff takes")
    assert "hint:" in done.err


def test_an_unknown_name_is_an_error_not_a_difference(lc: Command, workspace: Path) -> None:
    done = lc("diff", "tiny", "tinny")
    assert (done.code, done.out) == (2, "")
    assert "no config 'tinny'; did you mean tiny?" in done.err
