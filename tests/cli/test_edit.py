"""`lc edit`: the right file in the right editor, also where the config is broken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
