"""`lc new`: modules that load at once, that subclass what is named, and that never replace anything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lovecraft import resolve
from lovecraft.cli.new import _subclass
from lovecraft.config.load import listing, load

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
    assert done.err == "2 texts; two/b [1].txt is held out of train\nnext: `lc data more/default`\n"
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
    assert (dataset.source, dataset.validation) == (texts, ())  # the only text is trained on
    assert "workspace" not in (workspace / "projects/more/default.py").read_text()


def test_a_project_from_nothing_subclasses_the_workspaces_train(lc: Command, workspace: Path) -> None:
    assert "`lc show bare/default --dataset CONFIG`" in lc("new", "project", "bare").err
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1).filter(lambda text: "\r" not in text))
def test_any_description_becomes_the_docstring(text: str) -> None:
    found: dict[str, Any] = {}
    exec(compile(_subclass(text, "import os", "class A(Base)", "x"), "new", "exec"), {"Base": object}, found)
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
        ("project 4k", "'4k' is not a module name"),
        ("project a-b", "'a-b' is not a module name"),
        ("project class", "'class' is a word of Python itself"),
        ("project _a", "'_a' is not a module name"),
        ("project a/b", "'a/b' is no project's name"),
        ("project ..", "'..' is not a module name"),
        ("config tiny/4k --from tiny", "'4k' is not a module name"),
        ("config long --from tiny", "'long' names no project"),
        ("config ../../x/y --from tiny", "'..' is not a module name"),
        ("project tiny", "{root}/projects/tiny/default.py exists already"),
        ("config tiny/default", "{root}/projects/tiny/default.py exists already"),
        ("project a --from tinny", "no config 'tinny'; did you mean tiny?"),
        ("project a --texts nowhere", "--texts nowhere: no such directory"),
        ("project a --texts projects", "--texts projects: it holds no .txt file"),
        ("project a --texts texts --from tiny", "--texts makes a new dataset, --from subclasses a config"),
        ("project a --copy", "--copy copies a config's source, and none is named\n\nhint: add --from CONFIG"),
        ("project a --from tiny --copy --description x", "--copy takes the source of --from as it is"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_written(
    lc: Command, workspace: Path, words: str, message: str
) -> None:
    before = sorted(workspace.rglob("*.py"))
    done = lc("new", *words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: " + message.format(root=workspace))
    assert sorted(workspace.rglob("*.py")) == before


def test_a_place_that_cannot_be_written_is_an_error(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/file", "")
    done = lc("new", "config", "file/x", "--from", "tiny")
    assert done.code == 2
    assert "cannot be written" in done.err
