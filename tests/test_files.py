"""Files and directories are whole or absent; hashes follow the content."""

import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lovecraft import files
from lovecraft.files import (
    check_manifest,
    content_hash,
    file_hashes,
    files_below,
    hash_file,
    locked,
    new_directory,
    remove_directory,
    sweep,
    write_atomic,
    write_manifest,
)

Write = Callable[[str, str], Path]
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def start(program: str, **more: Any) -> "subprocess.Popen[bytes]":
    """Start a Python program in the current directory."""
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], env=environment, **more)


def names(folder: Path) -> set[str]:
    """Return the names of all that lies in a folder, hidden ones included."""
    return {path.name for path in folder.iterdir()}


# --- files ------------------------------------------------------------------------------------------


def test_a_file_is_written_with_its_folders_and_readable_to_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_atomic(path, "night\nsea: ä")
    assert path.read_bytes() == "night\nsea: ä".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(path.parent) == {"c.txt"}


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    write_atomic(path, "old and long")
    reader = path.open()
    write_atomic(path, "new")
    assert (reader.read(), path.read_text()) == ("old and long", "new")
    reader.close()


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(handle: int) -> None:
        raise error

    path = tmp_path / "c.txt"
    write_atomic(path, "old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == {"c.txt"}


# --- directories ------------------------------------------------------------------------------------


def test_a_directory_appears_at_once_and_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "final"
    with new_directory(final) as directory:
        (directory / "inner").mkdir()
        (directory / "inner" / "a.txt").write_text("a")
        assert not final.exists()
        assert directory.parent == final.parent  # on the same disk, so that it can be renamed
    assert (final / "inner" / "a.txt").read_text() == "a"
    assert names(final.parent) == {"final"}


def test_a_new_directory_is_readable_to_all(tmp_path: Path) -> None:
    with new_directory(tmp_path / "final") as directory:
        (directory / "private").write_text("a")
        (directory / "private").chmod(0o600)
    assert stat.S_IMODE((tmp_path / "final").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "final" / "private").stat().st_mode) & 0o044 == 0o044


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_directory_that_fails_is_absent(tmp_path: Path, error: BaseException) -> None:
    def begin() -> None:
        with new_directory(tmp_path / "final") as directory:
            (directory / "a.txt").write_text("a")
            raise error

    with pytest.raises(type(error)):
        begin()
    assert names(tmp_path) == set()


def test_a_directory_that_exists_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    with pytest.raises(FileExistsError), new_directory(tmp_path / "final"):
        pytest.fail("it must not begin")
    assert names(tmp_path) == {"final"}


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    killed = """
        import os, pathlib
        from lovecraft.files import new_directory
        with new_directory(pathlib.Path("final")) as directory:
            (directory / "a.txt").write_text("a")
            os._exit(9)
    """
    assert start(killed).wait() == 9
    (tmp_path / "kept").mkdir()
    (tmp_path / ".hidden").mkdir()
    (leftover,) = names(tmp_path) - {"kept", ".hidden"}
    assert leftover.startswith(".final.tmp")
    sweep(tmp_path)
    assert names(tmp_path) == {"kept", ".hidden"}


def test_a_directory_is_removed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.txt").write_text("a")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda _: None)  # killed before a file is gone
        remove_directory(tmp_path / "old")
    (leftover,) = names(tmp_path)
    assert leftover.startswith(".old.tmp")
    sweep(tmp_path)
    assert names(tmp_path) == set()


HOLD = """
    import pathlib, sys, time
    from lovecraft.files import locked, new_directory
    with locked(pathlib.Path("final"), "bells"):
        if pathlib.Path("final").exists():
            sys.exit(5)
        with new_directory(pathlib.Path("final")) as directory:
            pathlib.Path("begun").touch()
            while not pathlib.Path("go").exists():
                time.sleep(0.01)
"""


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.01)
    raise TimeoutError(path)


def test_who_waits_for_a_lock_says_for_whom_and_finds_what_was_built(tmp_path: Path) -> None:
    first = start(HOLD)
    wait_for(tmp_path / "begun")
    second = start(HOLD, stderr=subprocess.PIPE)
    assert second.stderr is not None
    with second.stderr:
        said = second.stderr.readline().decode().strip()
        (tmp_path / "go").touch()
        assert (first.wait(), second.wait()) == (0, 5)
    assert said == f"waiting for another lc, which builds the same bells (pid {first.pid})"
    assert names(tmp_path) == {"begun", "go", "final", "final.lock"}


def test_the_next_builder_clears_away_what_a_killed_one_left_of_this_artifact_and_of_others(tmp_path: Path) -> None:
    killed = start(HOLD)
    wait_for(tmp_path / "begun")
    killed.kill()
    killed.wait()
    (leftover,) = names(tmp_path) - {"begun", "final.lock"}
    (tmp_path / ".other.tmp1").mkdir()
    (tmp_path / ".alive.tmp1").mkdir()
    with FileLock(tmp_path / "alive.lock"):  # is being built
        with locked(tmp_path / "third", "bells"):
            assert names(tmp_path).isdisjoint({leftover, ".other.tmp1"})
        assert ".alive.tmp1" in names(tmp_path)
    with locked(tmp_path / "alive", "bells"):
        assert ".alive.tmp1" not in names(tmp_path)


def test_a_lock_is_free_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError), locked(tmp_path / "final", "bells"):
            raise ValueError


# --- manifests --------------------------------------------------------------------------------------


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Make a directory of two files with its manifest."""
    folder = tmp_path / "artifact"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"\0\1\2")
    (folder / "inner" / "b.txt").write_text("b")
    write_manifest(folder)
    return folder


def test_a_manifest_lists_every_other_file(artifact: Path) -> None:
    rows = json.loads((artifact / files.MANIFEST).read_text())
    assert {name: row["bytes"] for name, row in rows.items()} == {"a.bin": 3, "inner/b.txt": 1}
    assert rows["a.bin"]["sha256"] == hash_file(artifact / "a.bin")
    assert check_manifest(artifact) == []


def test_damage_is_found_file_by_file(artifact: Path) -> None:
    (artifact / "a.bin").write_bytes(b"\0\1")
    (artifact / "inner" / "b.txt").write_text("c")
    assert check_manifest(artifact) == [
        "a.bin has 2 bytes, 3 were written",
        "inner/b.txt has changed since it was written",
    ]
    (artifact / "a.bin").unlink()
    assert check_manifest(artifact)[0] == "a.bin is missing"


@pytest.mark.parametrize("text", [None, "", "{", '{"a.bin": 3}', '{"a.bin": {}}', "[]", "3"])
def test_a_manifest_that_is_missing_or_none_is_a_finding(artifact: Path, text: str | None) -> None:
    if text is None:
        (artifact / files.MANIFEST).unlink()
    else:
        (artifact / files.MANIFEST).write_text(text)
    assert check_manifest(artifact) == ["manifest.json is missing or unreadable"]


# --- hashes -----------------------------------------------------------------------------------------


def test_a_files_hash_is_its_contents_sha256(write: Write) -> None:
    assert hash_file(write("a", "")) == EMPTY == content_hash(write("b", ""))


def test_a_directorys_hash_follows_names_and_contents_only(write: Write, tmp_path: Path) -> None:
    write("one/a.txt", "a")
    write("one/inner/b.txt", "b")
    write("two/inner/b.txt", "b")
    write("two/a.txt", "a")
    os.utime(tmp_path / "two" / "a.txt", (0, 0))
    before = content_hash(tmp_path / "one")
    assert before == content_hash(tmp_path / "two")
    (tmp_path / "two" / "a.txt").rename(tmp_path / "two" / "c.txt")
    assert content_hash(tmp_path / "two") != before
    write("one/inner/b.txt", "c")
    assert content_hash(tmp_path / "one") != before


def test_hidden_files_and_folders_do_not_count(write: Write, tmp_path: Path) -> None:
    write(".w/one/a.txt", "a")  # what lies above does not hide it
    before = content_hash(tmp_path / ".w" / "one")
    write(".w/one/.DS_Store", "x")
    write(".w/one/.git/HEAD", "x")
    assert content_hash(tmp_path / ".w" / "one") == before
    write(".w/one/b.txt", "b")
    assert content_hash(tmp_path / ".w" / "one") != before


def test_nothing_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        content_hash(tmp_path / "nothing")


def test_an_unchanged_file_is_hashed_once(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    original = hash_file

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return original(path)

    monkeypatch.setattr(files, "hash_file", counted)
    monkeypatch.setattr(files, "SETTLED", 0)
    write("one/a.txt", "a")
    write("one/b.txt", "b")
    cache = tmp_path / "cache" / "hashes.json"
    before = content_hash(tmp_path / "one", cache)
    assert content_hash(tmp_path / "one", cache) == before == content_hash(tmp_path / "one")
    assert hashed == ["a.txt", "b.txt"] * 2
    hashed.clear()
    write("one/b.txt", "bb")
    assert content_hash(tmp_path / "one", cache) != before
    assert hashed == ["b.txt"]
    write("one/b.txt", "cc")
    os.utime(tmp_path / "one" / "b.txt", ns=(1, 1))  # same size, another time
    content_hash(tmp_path / "one", cache)
    assert hashed == ["b.txt"] * 2


def test_a_file_that_is_replaced_by_one_of_the_same_size_and_time_is_hashed_again(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SETTLED", 0)
    file, other, cache = write("a.txt", "one"), write("b.txt", "two"), tmp_path / "hashes.json"
    for one in (file, other):
        os.utime(one, ns=(1, 1))
    before = content_hash(file, cache)
    time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
    other.replace(file)
    os.utime(file, ns=(1, 1))
    assert content_hash(file, cache) != before


def test_the_hash_of_a_file_that_changed_a_moment_ago_is_not_remembered(write: Write, tmp_path: Path) -> None:
    content_hash(write("a.txt", "a"), tmp_path / "hashes.json")
    assert not (tmp_path / "hashes.json").exists()


def test_hashes_are_given_file_by_file(write: Write, tmp_path: Path) -> None:
    a, b = write("one/a.txt", "a"), write("one/inner/b.txt", "b")
    write("one/.hidden", "c")
    names = files_below(tmp_path / "one")
    assert file_hashes(tmp_path / "one", names) == {"a.txt": hash_file(a), "inner/b.txt": hash_file(b)}
    assert file_hashes(tmp_path / "one", ["a.txt"]) == {"a.txt": hash_file(a)}


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SETTLED", 0)
    file, blocked = write("a.txt", "a"), write("blocked", "a file")
    assert content_hash(file, blocked / "hashes.json") == hash_file(file)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_damaged_cache_of_hashes_is_thrown_away(write: Write, text: str) -> None:
    cache, file = write("hashes.json", text), write("a.txt", "a")
    assert content_hash(file, cache) == hash_file(file)
    assert content_hash(file, cache) == hash_file(file)
