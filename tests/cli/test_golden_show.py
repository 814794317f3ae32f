"""What every shipped config resolves to, its help, and what a new workspace holds, word for word.

An edit of a base shows here which configs it moves. `LC_GOLDEN=write` rewrites the texts.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft.config.load import listing
from tests.cli.test_golden import GOLDEN, ROOT, check

Command = Callable[..., Any]
CONFIGS = [item.name for item in listing(ROOT)]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in this repository, without the variable that names the corpus."""
    monkeypatch.delenv("LOVECRAFT_CORPUS", raising=False)
    monkeypatch.chdir(ROOT)


def test_the_help_of_lc(lc: Command) -> None:
    check("help.txt", lc("--help").out)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shipped_config_resolves_to_what_it_did(lc: Command, here: None, name: str) -> None:
    check(f"show/{name}.txt", lc("show", name).out)


def test_no_text_is_left_of_a_config_that_is_gone() -> None:
    found = {path.relative_to(GOLDEN / "show").with_suffix("").as_posix() for path in GOLDEN.glob("show/**/*.txt")}
    assert found == set(CONFIGS)


def test_the_help_of_a_config(lc: Command, here: None) -> None:
    check("help_of_a_config.txt", lc("show", "quickstart", "--help").out)


def test_a_new_workspace(lc: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def run(*words: str) -> None:
        done = lc(*words)
        assert done.code == 0, done.err
        told.append(f"$ lc {' '.join(words)}\n{done.out}{done.err}")

    run("init", "stories")
    monkeypatch.chdir(tmp_path / "stories")
    for name in ("outside/a", "outside/b", "stories/texts/c"):
        (tmp_path / f"{name}.txt").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").write_text("Once.", encoding="utf-8")
    run("new", "project", "tales", "--texts", "../outside", "--description", 'Two "tales".')
    run("new", "project", "one", "--texts", "texts")
    run("new", "project", "finetune", "--dataset", "tales")
    run("new", "config", "finetune/gpu1/long", "--from", "finetune", "--dataset", "one")
    run("new", "config", "tales/k4", "--from", "tales")
    run("new", "project", "bare")
    run("ls")
    for path in sorted(path for path in (tmp_path / "stories").rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts and path.suffix != ".txt":
            name = path.relative_to(tmp_path / "stories").as_posix()
            told.append(f"--- {name}\n{path.read_text(encoding='utf-8')}")
    text = "\n".join(told).replace(str(tmp_path), "…").replace(sys.executable, "…/python")
    check("workspace.txt", text)
