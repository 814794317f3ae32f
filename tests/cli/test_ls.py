"""`lc ls`: projects, configs, descriptions; a broken one is listed with its error, the others still are."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft.cli import console

Command = Callable[..., Any]
Write = Callable[[str, str], Path]


def test_configs_are_listed_with_description_and_default(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/tiny/other.py", "class Train(Base): pass\n")
    done = lc("ls")
    assert done.code == 0
    assert done.out.splitlines() == [
        "   config         description",
        "*  texts/default  Three short texts in blocks of 32 tokens.",
        "*  tiny/default   Train a tiny model for a few steps.",
        "   tiny/other",
    ]


def test_it_works_from_any_folder_of_the_workspace(
    lc: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lc("ls").out
    monkeypatch.chdir(workspace / "projects" / "tiny")
    assert lc("ls").out == expected


@pytest.mark.parametrize("name", ["tiny", "tiny/", "projects/tiny"])
def test_one_project_is_listed_alone(lc: Command, workspace: Path, name: str) -> None:
    assert [line.split()[1] for line in lc("ls", name).out.splitlines()[1:]] == ["tiny/default"]


def test_a_folder_in_a_project_has_its_own_default(lc: Command, workspace: Path, write: Write) -> None:
    for name in ("default", "long"):
        write(f"projects/tiny/gpu1/{name}.py", "class Train(Base): pass\n")
    marks = {line.split()[-1]: line[0] for line in lc("ls", "tiny/gpu1").out.splitlines()[1:]}
    assert marks == {"tiny/gpu1/default": "*", "tiny/gpu1/long": " "}
    assert [line.split()[0] for line in lc("ls", "tiny/gpu1/long").out.splitlines()[1:]] == ["tiny/gpu1/long"]


def test_a_narrow_terminal_breaks_descriptions_and_no_name(
    lc: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "fancy", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "40")
    lines = re.sub(r"\033\[[\d;]*m", "", lc("ls").out).splitlines()
    assert max(map(len, lines)) <= 40
    assert sum("texts/default" in line for line in lines) == 1


def test_what_lies_in_the_current_directory_shadows_nothing(lc: Command, workspace: Path, write: Write) -> None:
    write("json.py", "raise SystemExit('not the standard library')")
    assert lc("ls", "tiny", "--check").code == 0


def test_a_syntax_error_is_reported_and_the_others_are_listed(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/tiny/broken.py", '"""Broken."""\n\nclass Train(:\n    pass\n')
    done = lc("ls")
    assert done.code == 1
    assert "!  tiny/broken    projects/tiny/broken.py:3: invalid syntax" in done.out
    assert "*  tiny/default   Train a tiny model for a few steps." in done.out
    assert "*  texts/default  Three short texts in blocks of 32 tokens." in done.out


def test_nothing_is_imported(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/tiny/loud.py", '"""Loud."""\nraise SystemError\nclass Train(Base): pass\n')
    assert lc("ls").code == 0


def test_json_has_one_object_a_config(lc: Command, workspace: Path, write: Write) -> None:
    write("projects/tiny/broken.py", "class Train(:\n")
    done = lc("ls", "--json")
    assert done.code == 1
    assert json.loads(done.out) == [
        {
            "config": "texts/default",
            "description": "Three short texts in blocks of 32 tokens.",
            "default": True,
            "error": None,
        },
        {
            "config": "tiny/broken",
            "description": "",
            "default": False,
            "error": "projects/tiny/broken.py:1: invalid syntax",
        },
        {
            "config": "tiny/default",
            "description": "Train a tiny model for a few steps.",
            "default": True,
            "error": None,
        },
    ]


def test_an_unknown_project_is_refused(lc: Command, workspace: Path) -> None:
    done = lc("ls", "tinny")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: no project 'tinny'; did you mean 'tiny'?\n\nhint: `lc ls` lists them all\n"


def test_outside_a_workspace_it_says_how_to_make_one(lc: Command) -> None:
    done = lc("ls")
    assert done.code == 2
    assert "hint: `lc init` makes a workspace here" in done.err


def test_check_imports_each_and_tells_what_is_wrong_with_it(lc, workspace, write) -> None:
    write(
        "projects/bad/missing.py", '"""m"""\nimport no_such_module\n\n\nclass Train(no_such_module.Train):\n    pass\n'
    )
    write(
        "projects/bad/exits.py",
        '"""e"""\nimport sys\n\nsys.exit(0)\n\n\nclass Train(Base):\n    pass\n',
    )

    write(
        "projects/bad/two.py",
        "from projects.texts import default as d\n\n\nclass Dataset(d.Dataset):\n    block_size = 0\n    stride = -1\n",
    )

    rows = {row["config"]: row["error"] for row in json.loads(lc("ls", "--check", "--json").out)}

    assert rows["tiny/default"] is None
    assert "got 0; projects/bad/two.py:6: stride: must be" in rows["bad/two"]
    assert rows["bad/missing"] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert rows["bad/exits"]
