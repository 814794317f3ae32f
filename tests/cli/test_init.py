"""`lc init`: a workspace that works at once, and that nothing overwrites."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft.cli.init import FILES

ROOT = Path(__file__).parents[2]
RUFF = Path(sys.executable).parent / "ruff"
Command = Callable[..., Any]


def test_a_workspace_is_made_in_a_new_directory(lc: Command, tmp_path: Path) -> None:
    done = lc("init", "stories")
    assert done.code == 0
    assert done.out == f"{tmp_path / 'stories'}\n"
    assert "models/base" in done.err
    assert "`lc new project" in done.err
    made = {p.relative_to(tmp_path / "stories").as_posix() for p in (tmp_path / "stories").rglob("*") if p.is_file()}
    assert (
        made
        == set(FILES)
        == {
            "workspace.py",
            "Makefile",
            "pyproject.toml",
            ".gitignore",
            ".vscode/settings.json",
            "projects/README.md",
        }
    )


def test_without_a_directory_it_is_made_here(lc: Command, tmp_path: Path) -> None:
    assert lc("init").out == f"{tmp_path}\n"
    assert (tmp_path / "workspace.py").is_file()


def test_the_new_workspace_lists_makes_and_shows_projects(
    lc: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[str, str], Path]
) -> None:
    write("w/texts/a.txt", "one")
    lc("init", "w")
    monkeypatch.chdir(tmp_path / "w")
    empty = lc("ls")
    assert (empty.code, empty.out) == (0, "")
    assert "lc new project" in empty.err
    assert lc("new", "project", "tales", "--texts", "texts").code == 0
    assert lc("show", "tales").code == 0
    assert lc("data", "tales").code == 0
    assert lc("new", "project", "ft").code == 0
    assert "dataset: required; set it in Train" in lc("show", "ft").err
    assert lc("show", "ft", "--dataset", "tales").code == 0
    assert lc("new", "project", "on_tales", "--dataset", "tales").code == 0
    shown = lc("show", "on_tales")
    assert shown.code == 0
    assert "//models/base" in shown.out


def test_what_is_written_passes_the_checkers_it_sets_up(lc: Command, tmp_path: Path) -> None:
    lc("init")
    for command in (["check"], ["format", "--check"], ["check", "--config", ROOT / "pyproject.toml"]):
        done = subprocess.run([RUFF, *command, "--no-cache", "."], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_editor_is_told_of_the_interpreter_that_has_the_library(lc: Command, tmp_path: Path) -> None:
    lc("init")
    settings = json.loads((tmp_path / ".vscode/settings.json").read_text())
    assert settings["python.defaultInterpreterPath"] == sys.executable
    assert "/.vscode/\n" in (tmp_path / ".gitignore").read_text()  # for it names this machine's interpreter


def test_a_workspace_is_never_made_twice(lc: Command) -> None:
    lc("init", "w")
    done = lc("init", "w")
    assert (done.code, done.out) == (2, "")
    assert "is a workspace already" in done.err


def test_a_workspace_is_not_made_among_the_projects_of_another(lc: Command, tmp_path: Path) -> None:
    lc("init", "w")
    done = lc("init", "w/projects/mine")
    assert done.code == 2
    assert done.err.startswith(f"error: {tmp_path}/w/projects holds the projects of a workspace")
    assert not (tmp_path / "w/projects/mine").exists()


def test_files_that_exist_are_kept(lc: Command, tmp_path: Path, write: Callable[[str, str], Path]) -> None:
    write("Makefile", "mine:\n")
    done = lc("init")
    assert done.code == 0
    assert (tmp_path / "Makefile").read_text() == "mine:\n"
    assert f"kept {tmp_path / 'Makefile'}" in done.err


def test_a_directory_that_cannot_be_made_is_an_error(lc: Command, write: Callable[[str, str], Path]) -> None:
    write("file", "")
    done = lc("init", "file/inside")
    assert done.code == 2
    assert "cannot be written: Not a directory" in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_directory_is_an_error(lc: Command, tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    done = lc("init", "shut/inside")
    assert done.code == 2
    assert "Permission denied" in done.err


def test_it_takes_no_options(lc: Command) -> None:
    assert lc("init", "w", "--force").code == 2
