"""`lc show`: the table, the differences, the chain of a value, the documented JSON, of configs and of runs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft.cli import console
from lovecraft.config import record
from lovecraft.config.load import load
from lovecraft.config.modules import forget
from lovecraft.config.resolve import rows

Command = Callable[..., Any]
Write = Callable[[str, str], Path]

SUBCLASS = "from projects.tiny import default\n\nclass Train(default.Train):\n"


@pytest.fixture
def run(workspace: Path) -> Path:
    """Make a run of the workspace's training config, with a flag, whose project is edited afterwards."""
    from lovecraft.cli.options import apply

    cls = apply(load("tiny").cls, ["--seed", "9"], workspace)
    directory = workspace / "runs" / "tiny" / "default" / "001"
    record.write(directory / "record.json", record.make(cls, "tiny/default", workspace, {}))
    file = workspace / "projects" / "tiny" / "default.py"
    file.write_text(file.read_text().replace("batch_size = 2", "batch_size = 7"))
    forget()
    return directory


def lines_of(text: str) -> dict[str, list[str]]:
    """Return the cells of each line of a table by its first, the heading included."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


# --- the table --------------------------------------------------------------------------------------


def test_every_option_is_shown_with_value_origin_and_reason(lc: Command, workspace: Path) -> None:
    done = lc("show", "tiny")
    assert done.code == 0
    found = lines_of(done.out)
    assert found["option"] == ["value", "origin", "reason"]
    assert found["dataset.validation"] == ["c.txt", "projects/texts/default.py:8", "held", "out"]
    assert found["max_minutes"][0] == "none"
    assert len(found) == 1 + len(rows(load("tiny").cls))


def test_a_dataset_alone_is_shown_without_prefix(lc: Command, workspace: Path) -> None:
    assert lines_of(lc("show", "texts").out)["block_size"] == ["32", "projects/texts/default.py:9"]


def test_without_a_name_the_project_one_stands_in_is_shown(
    lc: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace / "projects" / "texts")
    assert "block_size" in lines_of(lc("show").out)
    monkeypatch.chdir(workspace)
    assert lc("show").code == 2


def test_flags_are_origins(lc: Command, workspace: Path) -> None:
    found = lines_of(lc("show", "tiny", "--dataset.block-size", "64", "--no-dataset.shuffle").out)
    assert found["dataset.block_size"] == ["64", "--dataset.block-size", "64"]
    assert found["dataset.shuffle"] == ["false", "--no-dataset.shuffle"]


@pytest.fixture
def at_terminal(
    lc: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[list[str], list[str]]]:
    """Return `lc` at a terminal of some columns: the lines it prints, as they are and without escape codes."""

    def one(columns: int, *words: str) -> tuple[list[str], list[str]]:
        monkeypatch.setattr(console, "fancy", lambda stream: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        styled = lc(*words).out.splitlines()
        return styled, [re.sub(r"\033\[[\d;]*m", "", line) for line in styled]

    return one


@pytest.mark.parametrize("columns", [60, 80, 100, 140])
def test_at_a_terminal_nothing_is_cut_and_all_stays_inside(at_terminal: Any, lc: Command, columns: int) -> None:
    piped = lc("show", "tiny", "--eval.prompts", "The sea. " * 30).out
    _, plain = at_terminal(columns, "show", "tiny", "--eval.prompts", "The sea. " * 30)
    for word in piped.split()[4:]:
        assert word in " ".join(plain)
    assert max(map(len, plain)) <= columns


def test_at_a_terminal_sections_stand_apart(at_terminal: Any) -> None:
    _, plain = at_terminal(140, "show", "tiny")
    groups = "\n".join(plain).split("\n\n")
    names = [{line.split()[0].partition(".")[0] for line in group.splitlines()} for group in groups]
    assert names[:-1] == [
        {"dataset"}, {"model"}, {"optimizer"}, {"schedule"}, {"memory"}, {"save"}, {"eval"}, {"log"},
    ]  # fmt: skip
    assert {"epochs", "max_steps", "device"} < names[-1]


def test_at_a_terminal_what_differs_from_the_default_stands_out(at_terminal: Any) -> None:
    styled, plain = at_terminal(140, "show", "tiny")
    bold = [line.split()[0] for line, text in zip(plain, styled, strict=True) if text.startswith("\033[1m")]
    assert {"dataset.block_size", "optimizer.lr", "schedule", "max_steps"} < set(bold)
    assert not {"optimizer", "seed", "dataset.shuffle"} & set(bold)


def test_at_a_terminal_what_has_no_room_stands_below(at_terminal: Any) -> None:
    _, plain = at_terminal(60, "show", "texts")
    at = next(i for i, line in enumerate(plain) if line.startswith("validation "))
    assert plain[at].split() == ["validation", "c.txt", "projects/texts/default.py:8"]
    assert plain[at + 1].split() == ["#", "held", "out"]
    _, plain = at_terminal(140, "show", "texts")
    assert plain[at].split()[-4:] == ["projects/texts/default.py:8", "#", "held", "out"]


# --- differences ------------------------------------------------------------------------------------


def test_diff_shows_only_what_differs_from_the_librarys_defaults(lc: Command, workspace: Path) -> None:
    found = lines_of(lc("show", "tiny", "--diff").out)
    assert found["optimizer.lr"] == ["0.001", "2e-05", "workspace.py:14"]
    assert "optimizer" not in found
    assert "seed" not in found
    assert "--seed" not in lc("show", "tiny", "--diff", "--seed", "42").out


def test_diff_parent_shows_what_the_file_changed(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/tiny/long.py", SUBCLASS + "    max_steps = 50\n    batch_size = 2\n")
    for words in (["--diff=parent"], ["--diff", "parent"]):
        assert lc("show", "tiny/long", *words).out.splitlines() == [
            "option     value  was  origin",
            "max_steps  50     4    projects/tiny/long.py:4",
        ]
    found = lines_of(lc("show", "tiny/long", "--diff=parent", "--optimizer.lr", "1").out)
    assert found["optimizer.lr"] == ["1.0", "0.001", "--optimizer.lr", "1"]


def test_diff_with_another_config(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/tiny/long.py", SUBCLASS + "    max_steps = 50\n")
    assert lines_of(lc("show", "tiny", "--diff=tiny/long").out)["max_steps"] == [
        "4",
        "50",
        "projects/tiny/default.py:9",
    ]


def test_no_difference_is_said_on_stderr(lc: Command, workspace: Path) -> None:
    done = lc("show", "tiny", "--diff=tiny")
    assert (done.code, done.out, done.err) == (0, "", "no difference\n")
    assert lc("show", "tiny", "--diff=tiny", "--json").out == "[]\n"


def test_diff_as_json_has_the_shape_of_lc_diff(lc: Command, workspace: Path) -> None:
    found = json.loads(lc("show", "tiny", "--diff", "--json", "--seed", "1").out)
    assert [set(row) for row in found] == [{"path", "a", "b", "a_origin", "b_origin"}] * len(found)
    assert {"path": "seed", "a": 42, "b": 1, "a_origin": "", "b_origin": "--seed 1"} in found


# --- why --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["optimizer.lr", "--optimizer.lr"])
def test_why_shows_the_whole_chain(lc: Command, workspace: Path, name: str) -> None:
    lines = lc("show", "tiny", "--why", name, "--optimizer.lr", "0.5").out.splitlines()
    assert [line.split()[:3] for line in lines[:3]] == [
        ["optimizer.lr", "0.5", "--optimizer.lr"],
        ["was", "0.001", "workspace.py:14"],
        ["was", "2e-05", lines[2].split()[2]],
    ]
    assert lines[-1] == "Peak learning rate."


def test_why_of_a_section_shows_the_class_and_where_it_was_wired(lc: Command, workspace: Path) -> None:
    lines = lc("show", "tiny", "--why", "dataset").out.splitlines()
    assert lines[0].split() == [
        "dataset",
        "DatasetConfig,",
        "as",
        "texts/default:Dataset",
        "projects/tiny/default.py:7",
    ]
    lines = lc("show", "tiny", "--why", "optimizer").out.splitlines()
    assert lines[0].split() == ["optimizer", "AdamW,", "as", "workspace:Optimizer", "workspace.py:19"]
    assert lines[1].split()[:2] == ["was", "AdamW"]


def test_why_at_a_terminal_has_colours_and_lines_that_fit(
    lc: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "fancy", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "50")
    out = lc("show", "tiny", "--why", "dataset.source", "--dataset.source", "/a/long/path/" * 3).out
    plain = re.sub(r"\033\[[\d;]*m", "", out)
    assert "\033[1mdataset.source\033[0m" in out
    assert max(len(line) for line in plain.splitlines() if "/a/long" not in line) <= 50
    assert "A directory of texts" in plain


def test_what_the_other_config_lacks_is_no_none(lc: Command, workspace: Path) -> None:
    lines = lc("show", "tiny", "--diff=tiny", "--optimizer", "SGD").out.splitlines()
    rows = {line.split()[0]: line.split()[1:3] for line in lines}
    assert rows["optimizer.betas"] == ["–", "0.9,"]
    assert rows["optimizer.momentum"] == ["0.0", "–"]
    of_defaults = lc("show", "tiny", "--diff").out.splitlines()
    assert {line.split()[0]: line.split()[2] for line in of_defaults}["max_steps"] == "none"


def test_why_gives_the_reasons(lc: Command, workspace: Path) -> None:
    lines = lc("show", "tiny", "--why", "dataset.validation", "--dataset.validation", "b.txt").out.splitlines()
    assert lines[0].split() == ["dataset.validation", "b.txt", "--dataset.validation", "b.txt"]
    assert lines[1].split()[1:] == ["c.txt", "projects/texts/default.py:8", "#", "held", "out"]


def test_why_as_json_is_the_chain(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/tiny/more.py", SUBCLASS + "    batch_size = 3  # fits\n")
    found = json.loads(lc("show", "tiny/more", "--why", "batch_size", "--json").out)
    assert found[:2] == [
        {"value": 3, "origin": "projects/tiny/more.py:4", "comment": "fits"},
        {"value": 2, "origin": "projects/tiny/default.py:8", "comment": ""},
    ]
    found = json.loads(lc("show", "tiny", "--why", "optimizer", "--json").out)
    assert [link["value"] for link in found] == ["AdamW", "AdamW"]


def test_why_of_an_option_of_a_section_that_is_off_says_what_switched_it_off(lc: Command, workspace: Path) -> None:
    done = lc("show", "tiny", "--why", "save.every", "--save", "none")
    assert (done.code, done.err) == (2, "error: no option 'save.every': save is switched off by --save none\n")


@pytest.mark.parametrize(
    "words",
    ["--why seed --diff", "--why seed --python", "--diff --python", "--json --python", "--diff=tiny --why seed"],
)
def test_flags_that_ask_for_different_answers_are_refused(lc: Command, workspace: Path, words: str) -> None:
    done = lc("show", "tiny", *words.split())
    assert (done.code, done.out) == (2, "")
    assert "--why, --diff and --python are three different answers" in done.err


def test_why_of_an_unknown_option_suggests_one(lc: Command, workspace: Path) -> None:
    done = lc("show", "tiny", "--why", "optimizer.lrr")
    assert done.code == 2
    assert done.err == "error: no option 'optimizer.lrr' in tiny/default; did you mean optimizer.lr?\n"


# --- JSON -------------------------------------------------------------------------------------------


def test_json_has_one_row_an_option_in_the_documented_shape(lc: Command, workspace: Path) -> None:
    found = json.loads(lc("show", "tiny", "--json").out)
    assert list(found) == ["config", "fingerprint", "options"]
    assert found["config"] == "tiny/default"
    assert len(found["fingerprint"]) == 16
    options = {row["path"]: row for row in found["options"]}
    assert all(list(row) == ["path", "value", "type", "origin", "comment", "default"] for row in options.values())
    assert options["dataset.source"]["value"] == "//texts"
    assert options["dataset.train"]["value"] is None
    assert options["schedule"] == {
        "path": "schedule",
        "value": "Constant",
        "type": "ScheduleConfig",
        "origin": "workspace.py:20",
        "comment": "",
        "default": "Cosine",
    }
    assert options["save"]["value"] == "Save"
    assert options["max_minutes"]["value"] is None


def test_a_section_that_is_off_is_null_and_has_no_rows(lc: Command, workspace: Path) -> None:
    found = json.loads(lc("show", "tiny", "--json", "--save", "none").out)
    options = {row["path"]: row["value"] for row in found["options"]}
    assert options["save"] is None
    assert not [path for path in options if path.startswith("save.")]


def test_the_fingerprint_follows_what_matters_only(lc: Command, workspace: Path) -> None:
    def fingerprint(*words: str) -> str:
        return str(json.loads(lc("show", "tiny", "--json", *words).out)["fingerprint"])

    assert fingerprint() == fingerprint("--device", "cuda", "--save", "none", "--epochs", "1")
    assert fingerprint() != fingerprint("--optimizer.lr", "0.002")
    assert fingerprint("--epochs", "2") == fingerprint("--epochs=2.0")


# --- runs -------------------------------------------------------------------------------------------


def test_a_run_is_shown_as_recorded_whatever_became_of_the_project(lc: Command, run: Path) -> None:
    for name in ("tiny/default/001", str(run), str(run / "record.json")):
        done = lc("show", name)
        found = lines_of(done.out)
        assert found["batch_size"][0] == "2"
        assert found["seed"] == ["9", "--seed", "9"]
        assert found["dataset.validation"] == ["c.txt", "projects/texts/default.py:8", "held", "out"]


def test_a_run_as_json_is_its_record(lc: Command, run: Path) -> None:
    written = json.loads((run / "record.json").read_text())
    assert json.loads(lc("show", "tiny/default/001", "--json").out) == {
        name: written[name] for name in ("config", "fingerprint", "options")
    }


def test_a_run_differs_from_the_defaults_and_from_its_edited_config(lc: Command, run: Path) -> None:
    found = lines_of(lc("show", "tiny/default/001", "--diff").out)
    assert found["seed"] == ["9", "42", "--seed", "9"]
    assert found["optimizer.lr"] == ["0.001", "2e-05", "workspace.py:14"]
    assert set(lines_of(lc("show", "tiny/default/001", "--diff=tiny").out)) == {"option", "seed", "batch_size"}


def test_flags_after_a_run_change_what_it_recorded(lc: Command, run: Path) -> None:
    found = lines_of(lc("show", "tiny/default/001", "--dataset.block-size", "16").out)
    assert found["dataset.block_size"][0] == "16"
    assert found["batch_size"] == ["2", "projects/tiny/default.py:8"]
    assert lines_of(lc("show", "tiny/default/001", "--diff", "--optimizer.lr", "1").out)["optimizer.lr"][:2] == [
        "1.0",
        "2e-05",
    ]


def test_a_run_that_is_not_there_is_said_to_be_none(lc: Command, run: Path) -> None:
    done = lc("show", "tiny/default/002")
    assert (done.code, done.err) == (2, "error: no run 'tiny/default/002'\n\nhint: `lc runs` lists them all\n")


def test_a_damaged_record_is_named(lc: Command, run: Path) -> None:
    (run / "record.json").write_text("{")
    done = lc("show", "tiny/default/001")
    assert done.code == 2
    assert done.err.startswith(f"error: {run}/record.json: not a readable record")


def test_a_flag_for_configs_is_refused_of_a_model(lc: Command, workspace: Path, write: Write) -> None:
    write("models/tiny/config.json", "{}")
    for words in (["--diff"], ["--why", "lr"], ["--python"], ["--seed", "3"]):
        done = lc("show", "models/tiny", *words)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: models/tiny is a model, which has no options")


# --- bad input --------------------------------------------------------------------------------------


def test_a_broken_config_shows_all_its_problems_and_nothing_else(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/tiny/bad.py", SUBCLASS + "    seed, epochs = '1', 0\n")
    for words in ([], ["--diff"], ["--diff=parent"], ["--json"], ["--why", "seed"], ["--max-steps", "3"]):
        done = lc("show", "tiny/bad", *words)
        assert (done.code, done.out) == (2, "")
        assert done.err == (
            "error: projects/tiny/bad.py:4: epochs: must be more than 0, got 0.0\n"
            "projects/tiny/bad.py:4: seed: expected int, got str '1'; write 1\n"
        )
