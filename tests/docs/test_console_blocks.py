"""Every ```console block of README.md and docs/ is typed in a copy of this workspace, over a tiny model.

`$ lc …` lines run; what the page shows after them must be what is printed, where a line `...` stands for any lines and
numbers may differ (the page shows the real model's). A block after `<!-- skip: REASON -->` is not run, and counted.
"""

import re
import shlex
import shutil
from pathlib import Path

import attrs
import pytest

from tests.tiny import tiny_model_dir

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKE = re.compile(r"^make (test|train)\b")  # what continuous integration itself types
FAST = {"train": ["--max-steps", "2", "--device", "cpu"]}


@attrs.frozen
class Step:
    """A command of a page and what the page shows after it."""

    command: str
    shown: list[str]


@attrs.frozen
class Page:
    """The console blocks of a page."""

    steps: list[Step]
    skipped: list[str]


def read(page: Path) -> Page:
    text = page.read_text(encoding="utf-8")
    steps: list[Step] = []
    skipped: list[str] = []
    for match in re.finditer(r"(?:<!-- skip: (.+?) -->\n)?```console\n(.*?)```", text, re.S):
        if match[1]:
            skipped.append(match[1])
            continue
        for line in match[2].splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:], []))
            else:
                assert steps, f"{page.name}: a console block begins with `$ command`"
                steps[-1].shown.append(line)
    return Page(steps, skipped)


def matches(shown: list[str], printed: list[str]) -> bool:
    """Say whether the printed lines are those shown, numbers aside; `...` stands for any lines."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(matches(shown[1:], printed[i:]) for i in range(len(printed) + 1))
    return bool(printed) and plain(shown[0]) == plain(printed[0]) and matches(shown[1:], printed[1:])


def plain(line: str) -> str:
    """A line without its numbers and without the widths of its columns."""
    return re.sub(r"[\d.,]*\d[\d.,]*(e-?\d+)?", "#", re.sub(r"\s+", " ", line)).strip()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This repository's workspace with a tiny model in the place of the starter model."""
    monkeypatch.delenv("LOVECRAFT_CORPUS", raising=False)
    root = tmp_path / "lovecraft"
    root.mkdir()
    shutil.copy(ROOT / "workspace.py", root)
    shutil.copytree(ROOT / "projects", root / "projects", ignore=shutil.ignore_patterns("__pycache__"))
    tiny_model_dir(root / "models" / "smollm2_135m")
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_console_blocks_print_what_the_page_shows(page: Path, lc, copy: Path):
    for step in read(page).steps:
        if MAKE.match(step.command):
            continue
        words = shlex.split(step.command.partition(" | ")[0])
        assert words[0] == "lc", f"{page.name}: {step.command!r} is neither lc nor make; mark the block `skip`"
        outcome = lc(*words[1:], *FAST.get(words[1], []))
        assert outcome.code in (0, 1), f"{step.command}: {outcome.err}"
        printed = (outcome.out + outcome.err).rstrip("\n").splitlines()
        if step.shown:
            assert matches(step.shown, printed), f"$ {step.command}\n" + "\n".join(printed)


def test_few_blocks_are_skipped_each_with_its_reason():
    pages = [read(page) for page in PAGES]
    skipped = [reason for page in pages for reason in page.skipped]

    assert len(skipped) <= max(1, sum(len(page.steps) for page in pages) // 10), skipped
