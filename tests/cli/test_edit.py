"""`lc edit`: the right file in the right editor, also where the config is broken."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lovecraft.cli import console, edit
from tests.cli.terminal import Terminal

Command = Callable[..., Any]


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set an editor that writes its arguments to a file, and return that file."""
    script, seen = tmp_path / "an editor", tmp_path / "seen"
    script.write_text(f'#!/bin/sh\necho "$@" > "{seen}"\nexit 3\n')
    script.chmod(0o755)
    monkeypatch.setenv("EDITOR", f"'{script}' --wait")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return seen


def test_the_configs_file_is_opened_and_the_editors_exit_code_returned(
    lc: Command, workspace: Path, editor: Path
) -> None:
    assert lc("edit", "tiny").code == 3
    assert editor.read_text() == f"--wait {workspace}/projects/tiny/default.py\n"


def test_a_broken_config_can_be_opened(lc: Command, workspace: Path, editor: Path) -> None:
    (workspace / "projects/tiny/default.py").write_text("class Train(:\n")
    assert lc("edit", "tiny").code == 3
    assert editor.exists()


def test_visual_comes_before_editor(
    lc: Command, workspace: Path, editor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "true")
    assert lc("edit", "tiny").code == 0
    assert not editor.exists()


def test_without_an_editor_the_error_says_what_to_set(
    lc: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = lc("edit", "tiny")
    assert done.code == 2
    assert "no editor is set" in done.err
    monkeypatch.setenv("EDITOR", "no-such-editor")
    assert "cannot run 'no-such-editor'" in lc("edit", "tiny").err
    monkeypatch.setenv("EDITOR", 'vim "')
    assert "cannot run the editor 'vim \"': no closing quotation" in lc("edit", "tiny").err


def test_in_the_terminal_of_vs_code_its_own_window_opens_the_file(
    lc: Command, workspace: Path, editor: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = tmp_path / "bin/code"
    code.parent.mkdir()
    code.write_text(f'#!/bin/sh\necho "code $@" > "{editor}"\n')
    code.chmod(0o755)
    monkeypatch.setenv("PATH", f"{code.parent}:/usr/bin:/bin")
    assert lc("edit", "tiny").code == 3  # $EDITOR
    monkeypatch.setenv("VSCODE_IPC_HOOK_CLI", "/run/vscode.sock")
    assert lc("edit", "tiny:Train").code == 0
    assert editor.read_text() == f"code -g {workspace}/projects/tiny/default.py:6\n"
    monkeypatch.delenv("VSCODE_IPC_HOOK_CLI")
    monkeypatch.delenv("EDITOR")
    assert lc("edit", "tiny").code == 0
    assert editor.read_text() == f"code --wait {workspace}/projects/tiny/default.py\n"


@pytest.mark.parametrize(
    ("editor", "given"),
    [
        ("code", ["-g", "{file}:6"]),
        ("/opt/vs/bin/code-insiders", ["-g", "{file}:6"]),
        ("nvim", ["+6", "{file}"]),
        ("/usr/bin/nano", ["+6", "{file}"]),
        ("emacsclient", ["+6", "{file}"]),
        ("ed", ["{file}"]),
    ],
)
def test_a_class_is_opened_at_its_line_where_the_editor_can(editor: str, given: list[str], workspace: Path) -> None:
    file = workspace / "projects/tiny/default.py"
    assert edit._place(editor, file, "Train") == [part.format(file=file) for part in given]
    assert edit._place(editor, file, "") == [str(file)]


def test_a_class_that_is_not_there_is_an_error(lc: Command, workspace: Path, editor: Path) -> None:
    done = lc("edit", "tiny:Trian")
    assert done.code == 2
    assert "default.py defines no 'Trian'" in done.err
    assert "it defines Train" in done.err


def test_the_workspace_file_can_be_opened(lc: Command, workspace: Path, editor: Path) -> None:
    assert lc("edit", "workspace").code == 3
    assert editor.read_text() == f"--wait {workspace}/workspace.py\n"


def test_without_a_config_it_is_the_project_one_stands_in(
    lc: Command, workspace: Path, editor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no config is named" in lc("edit").err  # and no terminal to show a menu at
    monkeypatch.chdir(workspace / "projects/tiny")
    assert lc("edit").code == 3
    assert editor.read_text() == f"--wait {workspace}/projects/tiny/default.py\n"


# --- the menu -------------------------------------------------------------------------------------------


@pytest.fixture
def menu(workspace: Path, editor: Path, write: Command) -> Iterator[Terminal]:
    """`lc edit` at a terminal, in a workspace with a broken config."""
    write("projects/texts/broken.py", "class Dataset(:")
    terminal = Terminal([sys.executable, "-m", "lovecraft", "edit"], workspace, NO_COLOR="1")
    shown = terminal.until("number or part of a name: ")
    assert "1     texts/broken   projects/texts/broken.py:1: " in shown
    assert "3  *  tiny/default   Train a tiny model for a few steps." in shown
    yield terminal
    terminal.close()


@pytest.mark.parametrize("keys", ["3\n", "tin\n", "nothing\n3\n", "9\ntiny\n", "default\n2\n", "tex\nti\n"])
def test_a_number_or_a_part_of_a_name_chooses(menu: Terminal, editor: Path, workspace: Path, keys: str) -> None:
    assert menu.leave(keys) == 3
    assert editor.read_text() == f"--wait {workspace}/projects/tiny/default.py\n"


def test_a_projects_name_means_its_default(menu: Terminal, editor: Path, workspace: Path, write: Command) -> None:
    write("projects/tiny/other.py", "from projects.tiny.default import Train as T\n\n\nclass Train(T):\n    pass\n")
    menu.leave("\n")
    again = Terminal([sys.executable, "-m", "lovecraft", "edit"], workspace, NO_COLOR="1")
    again.until("number or part of a name: ")
    assert again.leave("tiny\n") == 3
    again.close()
    assert editor.read_text() == f"--wait {workspace}/projects/tiny/default.py\n"


@pytest.mark.parametrize(("answer", "lines"), [("", "\n"), ("\n", ""), ("tiny\n", "")])
def test_an_answer_that_is_broken_off_ends_its_line(
    answer: str, lines: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert console.ask("which? ") == answer
    assert capsys.readouterr().err == f"which? {lines}"


@pytest.mark.parametrize("keys", ["\n", "\x04"])
def test_nothing_chosen_opens_nothing(menu: Terminal, editor: Path, keys: str) -> None:
    assert menu.leave(keys) == 0
    assert not editor.exists()


def test_a_workspace_without_configs_has_no_menu(workspace: Path, editor: Path, write: Command) -> None:
    write("empty/workspace.py", "")
    terminal = Terminal([sys.executable, "-m", "lovecraft", "edit"], workspace / "empty", NO_COLOR="1")
    terminal.until("no configs yet")
    assert terminal.process.wait(20) == 2
    terminal.close()


def test_a_menu_can_be_interrupted(menu: Terminal) -> None:
    assert menu.leave("\x03") == 130
