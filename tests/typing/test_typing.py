"""What a type checker finds in users' configs: every planted mistake, and nothing in what is right.

The workspace beside this file is checked with the settings that `lc init` writes, and so is what `lc new` writes.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLANTED = re.compile(r"# error: ([\w-]+)$", re.M)
FOUND = re.compile(r"^ERROR (\S+?):(\d+):.* \[([\w-]+)\]$", re.M)


def expected(root: Path) -> set[tuple[str, int, str]]:
    """Return (file, line, kind) of every planted mistake below a directory."""
    return {
        (path.relative_to(root).as_posix(), path.read_text()[: match.start()].count("\n") + 1, match[1])
        for path in root.rglob("*.py")
        for match in PLANTED.finditer(path.read_text())
    }


def test_a_checker_finds_the_mistakes_and_nothing_else(
    lc: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lc("init")
    for name in ("workspace.py", "projects"):
        copy = shutil.copy if name.endswith(".py") else shutil.copytree
        copy(HERE / name, tmp_path / name, **({} if name.endswith(".py") else {"dirs_exist_ok": True}))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("Once.", encoding="utf-8")
    for words in ("project texts --texts texts", "project made --dataset texts", "config made/more --from right"):
        assert lc("new", *words.split()).code == 0
    assert lc("show", "made").code == lc("show", "right").code == 0

    command = [Path(sys.executable).parent / "pyrefly", "check", "--output-format", "min-text"]
    where = ["--search-path", ROOT, "--search-path", tmp_path, "--python-interpreter-path", sys.executable]
    done = subprocess.run([*command, *where], capture_output=True, text=True, check=False)
    found = {(file, int(line), kind) for file, line, kind in FOUND.findall(done.stdout)}

    assert found == expected(tmp_path), done.stdout + done.stderr
    assert len(found) >= 15
