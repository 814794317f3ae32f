"""`lc COMMAND CONFIG --help`: exactly the options of the config, in the width of the terminal; also of a broken one."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft import TrainConfig, derived
from lovecraft.cli import COMMANDS
from lovecraft.cli.help import Described, describe
from lovecraft.cli.options import flag_of
from lovecraft.config import record
from lovecraft.config.load import load
from lovecraft.config.resolve import all_rows
from lovecraft.runs import create

Command = Callable[..., Any]
Write = Callable[[str, str], Path]


def flags_of(text: str) -> list[str]:
    """Return the flags that the options of a help begin with."""
    return re.findall(r"^  (--[\w.-]+)", text.partition("options of ")[2], re.M)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_an_option_has_its_value_type_origin_and_sentence(lc: Command, workspace: Path, wide: None) -> None:
    lines = lc("show", "tiny", "--optimizer", "SGD", "--batch-size", "3", "--help").out.splitlines()
    assert "options of tiny:" in lines
    at = lines.index("  --dataset.block-size  32  (int)  projects/texts/default.py:9")
    assert lines[at + 1] == "      Tokens in one block."
    assert "  --batch-size  3  (int)  --batch-size 3" in lines
    assert "  --optimizer  SGD  (AdamW, Adafactor, SGD, or a config)  --optimizer SGD" in lines


def test_exactly_the_options_of_the_config_are_listed(lc: Command, workspace: Path) -> None:
    found = flags_of(lc("train", "tiny", "--help").out)
    assert found == [flag_of(row.path) for row in all_rows(load("tiny").cls)]
    assert "--optimizer.betas" not in lc("train", "tiny", "--optimizer", "SGD", "--help").out
    assert "--save.every" not in lc("train", "tiny", "--save", "none", "--help").out


def test_sections_stand_apart(lc: Command, workspace: Path) -> None:
    groups = lc("train", "tiny", "--help").out.partition("options of ")[2].split("\n\n")[:-1]
    assert [flags_of("options of " + group)[0] for group in groups] == [
        "--dataset", "--model", "--optimizer", "--schedule", "--memory", "--save", "--eval", "--log", "--epochs",
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_it_stays_inside_the_terminal(
    lc: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    told = lc("train", "tiny", "--eval.prompts", "The sea. " * 30, "--help").out
    assert max(map(len, told.splitlines())) <= columns
    assert " ".join(told.split()).count("The sea.") == 2 * 30  # the value, and the flag as its origin


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("completion", "new")])
def test_no_word_is_broken_at_80_columns(lc: Command, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = lc(command, "--help").out.partition("\nexample: ")[0]
    assert max(map(len, told.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "500")
    assert lc(command, "--help").out.partition("\nexample: ")[0].split() == told.split()


def test_what_is_to_be_typed_keeps_its_lines(lc: Command, wide: None) -> None:
    assert "\n    source <(lc completion bash)\n" in lc("completion", "--help").out
    assert "\n/new           start over\n" in lc("chat", "--help").out


def test_a_record_s_sections_come_from_the_record(lc: Command, workspace: Path, wide: None) -> None:
    create(workspace, "tiny/default", record.make(load("tiny").cls, "tiny/default", workspace, {}))
    told = lc("show", "tiny/default/001", "--help").out
    assert "  --dataset  DatasetConfig  (DatasetConfig, or a config)  record.json\n" in told
    assert "an override" not in told


def test_an_incomplete_config_is_listed_with_what_is_missing(
    lc: Command, workspace: Path, write: Write, wide: None
) -> None:
    write("projects/tiny/bare.py", "import workspace\n\nclass Train(workspace.Train):\n    batch_size = 3\n")
    done = lc("train", "tiny/bare", "--help")
    assert "  --dataset  required  (DatasetConfig, or a config)\n      What to train on.\n" in done.out
    assert "  --batch-size  3  (int)  projects/tiny/bare.py:4\n" in done.out
    assert done.out.splitlines()[-1].startswith("example: ")
    assert done.code == 2
    assert "dataset: required; set it in Train" in done.err


def test_a_wrong_config_is_listed_and_its_error_said(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/tiny/bad.py", "from projects.tiny import default\n\nclass Train(default.Train):\n    seed = 'x'\n")
    done = lc("train", "tiny/bad", "--help")
    assert "--seed  x  (int)" in done.out
    assert (done.code, done.err) == (2, "error: projects/tiny/bad.py:4: seed: expected int, got str 'x'\n")


def test_a_wrong_flag_does_not_hide_the_options(lc: Command, workspace: Path) -> None:
    done = lc("train", "tiny", "--max-stepz", "3", "--help")
    assert "--max-steps" in flags_of(done.out)
    assert done.code == 2
    assert done.err.startswith("error: no option --max-stepz; did you mean --max-steps?\n")


def test_without_a_config_it_says_how_to_list_the_options(lc: Command) -> None:
    assert "`lc train CONFIG --help` lists them" in lc("train", "--help").out
    assert "CONFIG --help" not in lc("init", "--help").out


def test_a_command_with_options_of_its_own_lists_them(lc: Command, wide: None) -> None:
    assert "  --port  8000  (int)  lovecraft/config/schema.py:" in lc("serve", "--help").out


def test_options_are_described_by_path_type_value_origin_and_sentence(workspace: Path) -> None:
    listed, wrong = describe(load("tiny").cls, workspace)
    found = {one.path: one for one in listed}
    assert wrong is None
    assert found["dataset.block_size"] == Described(
        "dataset.block_size", "int", "32", "projects/texts/default.py:9", "Tokens in one block."
    )
    assert (found["model.path"].type, found["model.path"].value) == ("path or none", "//models/tiny")
    assert (found["optimizer"].type, found["optimizer"].value) == ("AdamW, Adafactor, SGD, or a config", "AdamW")
    assert found["save"].type == "Save, none, or a config"
    assert found["dataset"].type == "DatasetConfig, or a config"
    assert found["model.dtype"].type == "one of auto, float32, bfloat16, float16"
    assert all(one.sentence for one in listed)
    assert {row.path for row in all_rows(load("tiny").cls)} == set(found)


def test_a_config_that_is_wrong_is_described_all_the_same(workspace: Path) -> None:
    class Train(TrainConfig):
        model = load("tiny").cls.model
        seed = "x"

        @derived
        def batch_size(self) -> int:
            return self.dataset.block_size

    listed, wrong = describe(Train, workspace)
    found = {one.path: one.value for one in listed}
    assert wrong is not None
    assert "dataset: required" in wrong.message
    assert (found["dataset"], found["dataset.source"], found["dataset.stride"]) == ("required", "required", "64")
    assert (found["batch_size"], found["seed"], found["model.path"]) == ("derived", "x", "//models/tiny")
