"""`lc new`: modules that load at once, that subclass what is named, and that never replace anything."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lovecraft import resolve
from lovecraft.cli.new import _module
from lovecraft.config.load import listing, load

ROOT = Path(__file__).parents[2]
RUFF = Path(sys.executable).parent / "ruff"
Command = Callable[..., Any]
Write = Callable[[str, str], Path]


def described(root: Path, name: str) -> str:
    """Return what `lc ls` says of a config."""
    return next(item.description for item in listing(root) if item.name == name)


# --- projects ---------------------------------------------------------------------------------------


def test_a_project_subclasses_the_config_it_is_made_from(lc: Command, workspace: Path) -> None:
    done = lc("new", "project", "mine", "--from", "tiny", "--description", "My own.")
    path = workspace / "projects" / "mine" / "default.py"
    assert (done.code, done.out) == (0, f"{path}\n")
    assert done.err == "next: `lc show mine/default`\n"
    assert path.read_text() == (
        '"""My own."""\n\nfrom projects.tiny import default\n\n\n'
        "class Train(default.Train):\n    pass  # write what differs here, as `option = value`\n"
    )
    assert described(workspace, "mine/default") == "My own."
    assert issubclass(load("mine").cls, load("tiny").cls)
    assert lc("diff", "tiny", "mine").code == 0


def test_a_project_of_texts_is_a_dataset_that_holds_one_out(lc: Command, workspace: Path) -> None:
    assert lc("new", "project", "more", "--texts", "texts").code == 0
    dataset = resolve(load("more").cls)
    assert (dataset.source, dataset.train, dataset.validation) == (workspace / "texts", ("*.txt",), ("c.txt",))
    assert described(workspace, "more/default") == "More."
    assert "ROOT" in (workspace / "projects/more/default.py").read_text()


def test_texts_in_folders_count_and_what_is_held_out_is_said(lc: Command, workspace: Path, write: Write) -> None:
    write("books/one/a.txt", "x")
    write("books/two/b [1].txt", "x")
    done = lc("new", "project", "more", "--texts", "books")
    assert done.err.splitlines() == [
        "2 texts; two/b [1].txt is held out of train",
        "next: `lc data more/default`, then `lc new project NAME --dataset more/default` to train on it",
    ]
    assert [line.split()[:2] for line in lc("data", "more").out.splitlines()[1:]] == [
        ["train", "1"],
        ["validation", "1"],
    ]


def test_texts_outside_of_the_workspace_are_named_whole(
    lc: Command, workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = tmp_path_factory.mktemp('with "quotes"')
    (texts / 'the "one".txt').write_text("x")
    assert lc("new", "project", "more", "--texts", texts).code == 0
    dataset = resolve(load("more").cls)
    assert (dataset.source, dataset.validation) == (texts, None)  # the only text is trained on
    assert "workspace" not in (workspace / "projects/more/default.py").read_text()


def test_the_splits_that_folders_name_are_kept(lc: Command, workspace: Path, write: Write) -> None:
    for name in ("train/a.txt", "train/b.txt", "valid/c.txt", "test/d.txt"):
        write(f"books/{name}", f"The text of {name}.")
    done = lc("new", "project", "more", "--texts", "books")
    assert done.err.splitlines()[0] == "the splits that its names say: 2 in train, 1 in validation, 1 in test"
    dataset = resolve(load("more").cls)
    assert (dataset.train, dataset.validation, dataset.test) == (None, None, None)
    table = [line.split()[:2] for line in lc("data", "more").out.splitlines()[1:]]
    assert table == [["train", "2"], ["validation", "1"], ["test", "1"]]


@pytest.mark.parametrize(
    ("row", "options", "unused"),
    [
        ({"text": "x"}, {}, ""),
        ({"id": "3", "content": "x"}, {"text_field": "content"}, "id"),
        ({"messages": [{"role": "user", "content": "x"}]}, {"messages_field": "messages"}, ""),
        ({"conversations": [], "text": "x"}, {"messages_field": "conversations"}, "text"),
        ({"response": "x", "prompt": "y"}, {"prompt_field": "prompt", "response_field": "response"}, ""),
        (
            {"instruction": "x", "input": "y", "output": "z"},
            {"prompt_field": "instruction", "response_field": "output"},
            "input",
        ),
    ],
)
def test_the_fields_of_rows_are_recognised(
    lc: Command, workspace: Path, write: Write, row: dict[str, Any], options: dict[str, str], unused: str
) -> None:
    write("rows/a.jsonl", json.dumps(row) + "\n")
    write("rows/README.md", "#")
    done = lc("new", "project", "more", "--texts", "rows")
    assert done.err.splitlines()[:-1] == [
        "1 file of rows; 5% of them are held out of train",
        "not read: README.md",
        *([f"fields not read: {unused}"] if unused else []),
    ]
    dataset = resolve(load("more").cls)
    assert (dataset.train, dataset.validation_fraction) == (("*.jsonl",), 0.05)
    fields = ("text_field", "messages_field", "prompt_field", "response_field")
    assert {name: getattr(dataset, name) for name in fields} == dict.fromkeys(fields) | {"text_field": "text"} | options


def test_rows_whose_fields_say_nothing_are_refused(lc: Command, workspace: Path, write: Write) -> None:
    write("rows/a.jsonl", '{"x": "y", "prompt": ["z"], "response": "z"}\n')
    done = lc("new", "project", "more", "--texts", "rows/a.jsonl")
    assert done.code == 2
    assert done.err.startswith("error: a.jsonl has the fields x, prompt, response: which hold a text, ")
    write("rows/a.jsonl", "[]\n")
    assert "a.jsonl is [], not an object" in lc("new", "project", "more", "--texts", "rows").err


def test_a_project_from_nothing_subclasses_the_workspaces_train(lc: Command, workspace: Path) -> None:
    assert lc("new", "project", "bare").err == "next: `lc show bare/default --dataset CONFIG`, or name one there\n"
    assert lc("show", "bare", "--dataset", "texts").code == 0
    assert described(workspace, "bare/default") == "Bare."


# --- configs ----------------------------------------------------------------------------------------


def test_a_config_is_added_to_a_project(lc: Command, workspace: Path) -> None:
    assert lc("new", "config", "tiny/long_run", "--from", "tiny").code == 0
    assert described(workspace, "tiny/long_run") == "Tiny long run."
    assert lc("diff", "tiny", "tiny/long_run").code == 0


def test_a_config_may_be_made_of_a_class_of_another_name(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/tiny/two.py", "from projects.tiny.default import *\n\nclass Small(Train):\n    seed = 5\n")
    assert lc("new", "config", "tiny/three", "--from", "tiny/two:Small").code == 0
    assert resolve(load("tiny/three").cls).seed == 5


def test_a_copy_is_the_source_itself(lc: Command, workspace: Path) -> None:
    assert lc("new", "config", "tiny/copy", "--from", "tiny", "--copy").code == 0
    source = (workspace / "projects/tiny/default.py").read_text()
    assert (workspace / "projects/tiny/copy.py").read_text() == source


def test_a_copy_means_the_same_elsewhere(lc: Command, workspace: Path, write: Write) -> None:
    write(
        "projects/tiny/near.py",
        """
        from pathlib import Path

        from . import default
        from ..texts.default import Dataset as Texts

        HERE = Path(__file__).parent


        class Dataset(Texts):
            stride = 4


        class Train(default.Train):
            dataset = Dataset
        """,
    )
    done = lc("new", "project", "far", "--from", "tiny/near", "--copy")
    assert done.err == "line 6 uses __file__, which is the copy's own now\nnext: `lc show far/default`\n"
    source = (workspace / "projects/far/default.py").read_text()
    assert "from projects.tiny import default\nfrom projects.texts.default import Dataset as Texts\n" in source
    assert lc("diff", "tiny/near", "far").code == 0


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("project mine --dataset texts", ["import workspace", "from projects.texts.default import Dataset"]),
        (
            "project mine --from tiny --dataset texts/k10",
            ["from projects.texts.k10 import Dataset", "from projects.tiny import default"],
        ),
    ],
)
def test_a_training_on_a_dataset_needs_no_edit(
    lc: Command, workspace: Path, write: Write, words: str, lines: list[str]
) -> None:
    write("projects/texts/k10.py", "from projects.texts import default\n\nclass Dataset(default.Dataset): stride = 3\n")
    assert lc("new", *words.split()).err == "next: `lc show mine/default`\n"
    source = (workspace / "projects/mine/default.py").read_text()
    assert source.startswith('"""Mine."""\n\n' + "\n".join(lines) + "\n\n\nclass Train(")
    dataset = lc("show", "mine", "--why", "dataset")
    assert dataset.code == 0
    assert f"as {words.split()[-1].replace('texts', 'texts/default').replace('default/k10', 'k10')}:" in dataset.out


def test_a_config_lies_in_a_folder_of_its_project(lc: Command, workspace: Path) -> None:
    assert lc("new", "config", "tiny/gpu1/default", "--from", "tiny").code == 0
    assert described(workspace, "tiny/gpu1/default") == "Tiny gpu1."
    assert lc("diff", "tiny", "tiny/gpu1").code == 0


def test_it_works_from_inside_of_a_project(lc: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace / "projects" / "tiny")
    assert lc("new", "config", "tiny/long", "--from", "tiny").out == f"{workspace}/projects/tiny/long.py\n"
    assert lc("new", "project", "more", "--texts", "../../texts").code == 0


def test_names_that_python_has_elsewhere_are_names_like_any(lc: Command, workspace: Path) -> None:
    for name in ("json", "match", "type", "test", "lovecraft", "workspace", "os"):
        assert lc("new", "project", name, "--from", "tiny").code == 0
        assert lc("new", "config", f"{name}/{name}", "--from", name).code == 0
        assert lc("diff", "tiny", f"{name}/{name}").code == 0


def test_what_is_written_is_formatted_and_clean(lc: Command, workspace: Path, write: Write) -> None:
    said = 'With "quotes", a \\\\, ünïcode — and\nlines. '
    lc("new", "project", "a", "--texts", "texts", "--description", said)
    lc("new", "project", "b", "--dataset", "a", "--description", said + '"')
    lc("new", "config", "b/k9", "--from", "b", "--dataset", "texts", "--description", "x" * 100)
    lc("new", "config", "b/k10", "--from", "b/k9", "--description", "\"'\\\\")
    lc("new", "config", "b/both", "--from", "b/k10", "--dataset", "texts")
    lc("new", "project", "c")
    for command in (["check"], ["format", "--check"]):
        files = sorted(p for name in "abc" for p in (workspace / "projects" / name).rglob("*.py"))
        assert len(files) == 6
        for config in (
            ["--config", ROOT / "pyproject.toml"],
            ["--isolated", "--select", "E4,E7,E9,F"][: 3 if command[0] == "check" else 1],
        ):
            done = subprocess.run([RUFF, *command, *config, *files], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout
    for name in ("b", "b/k9", "b/k10", "b/both"):
        assert lc("show", name).code == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1).filter(lambda text: "\r" not in text))
def test_any_description_becomes_the_docstring(text: str) -> None:
    found: dict[str, Any] = {}
    exec(compile(_module(text, "import os", "A(Base)", "    pass"), "new", "exec"), {"Base": object}, found)
    assert found["__doc__"] == text


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "lc new takes `project NAME` or `config PROJECT/NAME`"),
        ("project", "lc new takes `project NAME` or `config PROJECT/NAME`"),
        ("folder x", "lc new takes `project NAME` or `config PROJECT/NAME`"),
        ("project a b", "lc new takes no 'b'"),
        ("project a --size 3", "lc new takes no '--size'"),
        ("project 4k", "'4k' cannot be a module's name"),
        ("project a-b", "'a-b' cannot be a module's name"),
        ("project class", "'class' cannot be a module's name\n\nhint: write class_: letters"),
        ("project _a", "'_a' cannot be a module's name"),
        ("project a/b", "'a/b' is no project's name"),
        ("project ..", "'..' cannot be a module's name"),
        (
            "project café",
            "'café' cannot be a module's name\n\nhint: write cafe: letters a-z, digits and _, a letter first",
        ),
        ("config nope/x --from tiny", "no project 'nope'\n\nhint: `lc new project nope` makes it"),
        ("config tiny/default/x --from tiny", "{root}/projects/tiny/default.py exists already"),
        ("config tiny/gpu1 --from tiny", "{root}/projects/tiny/gpu1 exists already"),
        ("config tiny/x --from tiny/default/001", "'tiny/default/001' names a run, which is no config"),
        ("config tiny/x --from several", "several/default defines several configs"),
        ("config tiny/x --from texts/broken:Slow", "texts/broken:Slow is no TrainConfig or"),
        ("project a --dataset tiny", "tiny is no DatasetConfig"),
        ("project a --dataset texts --from texts", "texts is no TrainConfig"),
        ("project a --dataset texts --texts texts", "--texts makes a new dataset, --dataset trains on one"),
        ("project a --description " + "x" * 101, "--description has 101 characters"),
        ("config tiny/4k --from tiny", "'4k' cannot be a module's name"),
        ("config long --from tiny", "'long' names no project"),
        ("config ../../x/y --from tiny", "'..' cannot be a module's name"),
        ("project tiny", "{root}/projects/tiny/default.py exists already"),
        ("config tiny/default", "{root}/projects/tiny/default.py exists already"),
        ("project a --from tinny", "no config 'tinny'; did you mean tiny?"),
        ("project a --texts nowhere", "--texts nowhere: no such directory or file"),
        ("project a --texts projects", "{root}/projects holds no .txt, .md, .jsonl, .csv, .parquet file"),
        ("project a --texts texts --from tiny", "--texts makes a new dataset, --from subclasses a config"),
        ("project a --copy", "--copy copies a config's source, and none is named\n\nhint: add --from CONFIG"),
        ("project a --from tiny --copy --description x", "--copy takes the source of --from as it is"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_written(
    lc: Command, workspace: Path, write: Write, words: str, message: str
) -> None:
    write("projects/tiny/gpu1/default.py", "")
    write("projects/texts/broken.py", "from lovecraft import SGD\n\nclass Slow(SGD): pass\n")
    write(
        "projects/several/default.py",
        "from lovecraft import TrainConfig\n\nclass A(TrainConfig): pass\n\nclass B(TrainConfig): pass\n",
    )
    before = sorted(workspace.rglob("*.py"))
    done = lc("new", *words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: " + message.format(root=workspace))
    assert sorted(workspace.rglob("*.py")) == before


def test_a_place_that_cannot_be_written_is_an_error(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/file", "")
    done = lc("new", "config", "file/x", "--from", "tiny")
    assert done.code == 2
    assert "no project 'file'" in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_workspace_is_an_error(lc: Command, workspace: Path) -> None:
    (workspace / "projects").chmod(0o500)
    done = lc("new", "project", "a", "--from", "tiny")
    assert done.code == 2
    assert "cannot be written: Permission denied" in done.err


def test_outside_a_workspace_it_says_how_to_make_one(lc: Command) -> None:
    assert "`lc init` makes a workspace here" in lc("new", "project", "a").err
