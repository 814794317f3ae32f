"""Files and directories are whole or absent; hashes follow the content."""

import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from lovecraft import files
from lovecraft.files import (
    built_once,
    check_manifest,
    content_hash,
    hash_file,
    new_directory,
    remove_directory,
    sweep,
    write_atomic,
    write_manifest,
)

Write = Callable[[str, str], Path]
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def start(program: str) -> "subprocess.Popen[bytes]":
    """Start a Python program in the current directory."""
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], env=environment)


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


def test_an_artifact_is_built_once_whoever_asks(tmp_path: Path) -> None:
    build = """
        import os, pathlib, time
        from lovecraft.files import built_once
        with built_once(pathlib.Path("final")) as directory:
            if directory is not None:
                time.sleep(0.2)
                (directory / "by").write_text(str(os.getpid()))
                with open("builders", "a") as log:
                    log.write("x")
    """
    processes = [start(build) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "builders").read_text() == "x"
    assert (tmp_path / "final" / "by").is_file()


def test_a_build_that_failed_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError), built_once(tmp_path / "final"):
        raise ValueError
    with built_once(tmp_path / "final") as directory:
        assert directory is not None
    with built_once(tmp_path / "final") as directory:
        assert directory is None


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


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_damaged_cache_of_hashes_is_thrown_away(write: Write, text: str) -> None:
    cache, file = write("hashes.json", text), write("a.txt", "a")
    assert content_hash(file, cache) == hash_file(file)
    assert content_hash(file, cache) == hash_file(file)
