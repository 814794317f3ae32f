"""Where the files of a source come from, and which archives are refused."""

import errno
import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft.data import archives
from lovecraft.data.sources import File, list_files, locate
from lovecraft.errors import DataError

TEXTS = {"a.txt": "one\n", "b.txt": "two\n", "sub/c.txt": "three\n"}


def content(file: File) -> bytes:
    with file.open() as stream:
        return stream.read()


def make_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tar_member(name: str, data: bytes = b"text", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def make_zip(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


# --- directories and archives ---------------------------------------------------------------------


def test_a_directory_is_read_recursively_in_order_without_hidden_files(texts: Callable[..., Path]) -> None:
    source = texts({**TEXTS, ".git/x.txt": "no", ".hidden.txt": "no"})

    assert [f.name for f in list_files(source)] == ["a.txt", "b.txt", "sub/c.txt"]


def test_links_are_followed_but_not_twice_to_the_same_place(texts: Callable[..., Path]) -> None:
    source = texts({**TEXTS, "../other/d.txt": "d"})
    (source / "linked").symlink_to(source.parent / "other")
    (source / "e.txt").symlink_to(source.parent / "other" / "d.txt")
    assert [f.name for f in list_files(source)] == ["a.txt", "b.txt", "e.txt", "linked/d.txt", "sub/c.txt"]

    (source / "loop").symlink_to(source)
    with pytest.raises(DataError, match=r"loop cannot be read: this directory is reached twice, by links"):
        list_files(source)


def test_a_link_to_nothing_is_not_passed_over(texts: Callable[..., Path]) -> None:
    source = texts(TEXTS)
    (source / "gone.txt").symlink_to("nowhere")
    gone = list_files(source)[2]

    assert gone.name == "gone.txt"
    with pytest.raises(DataError, match=r"gone\.txt cannot be read: No such file"):
        gone.open()


def test_a_directory_that_cannot_be_listed_is_not_passed_over(
    texts: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = texts(TEXTS)
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "sub":  # chmod does not keep root out
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"sub cannot be read: Permission denied"):
        list_files(source)


@pytest.mark.parametrize("top", ["", "stories/", "./stories/"])
def test_an_archive_reads_like_its_directory(top: str, texts: Callable[..., Path], tmp_path: Path) -> None:
    plain = [(f.name, content(f)) for f in list_files(texts(TEXTS))]
    members = {top + name: text for name, text in reversed(TEXTS.items())}
    folder = [] if not top else [tar_member(top, b"", type=tarfile.DIRTYPE)]
    packed = [
        make_tar(tmp_path / "t.tgz", folder + [tar_member(n, t.encode()) for n, t in members.items()]),
        make_tar(tmp_path / "t.tar.gz", [tar_member(n, t.encode()) for n, t in members.items()]),
        make_zip(tmp_path / "t.zip", members),
    ]

    for archive in packed:
        assert [(f.name, content(f)) for f in list_files(archive)] == plain


def test_one_file_is_its_own_source(texts: Callable[..., Path]) -> None:
    [file] = list_files(texts(TEXTS) / "a.txt")

    assert (file.name, content(file)) == ("a.txt", b"one\n")


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (tar_member("a.txt", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "link"),
        (tar_member("a.txt", b"", type=tarfile.LNKTYPE, linkname="b.txt"), "link"),
        (tar_member("a.txt", b"", type=tarfile.CHRTYPE), "special"),
        (tar_member("a.txt", b"", type=tarfile.FIFOTYPE), "special"),
        (tar_member("../a.txt"), "relative"),
        (tar_member("x/../../a.txt"), "relative"),
        (tar_member("/etc/a.txt"), "relative"),
        (tar_member("x\\a.txt"), "relative"),
        (tar_member("b.txt"), "twice"),
        (tar_member("./b.txt"), "twice"),
    ],
)
def test_an_unsafe_tar_member_is_refused_by_name(
    member: tuple[tarfile.TarInfo, bytes], why: str, tmp_path: Path
) -> None:
    archive = make_tar(tmp_path / "t.tgz", [tar_member("b.txt"), member])

    with pytest.raises(DataError, match=why) as caught:
        list_files(archive)

    assert repr(member[0].name) in caught.value.message


@pytest.mark.parametrize("name", ["../a.txt", "/etc/a.txt", "x/../../a.txt"])
def test_an_unsafe_zip_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a plain relative name"):
        list_files(make_zip(tmp_path / "t.zip", {name: "text"}))


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a.txt")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")

    with pytest.raises(DataError, match="is a link"):
        list_files(tmp_path / "t.zip")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(make_zip(tmp_path / "t.zip", {"a.txt": "text"}).read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + flags] |= 1
    (tmp_path / "t.zip").write_bytes(data)

    with pytest.raises(DataError, match="encrypted"):
        list_files(tmp_path / "t.zip")


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_a_bomb_is_refused_before_it_is_unpacked(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_UNPACKED", 1 << 20)
    bomb, files = tmp_path / f"bomb.{kind}", {f"{i}.txt": "0" * 400_000 for i in range(3)}
    if kind == "zip":
        make_zip(bomb, files)
    else:
        make_tar(bomb, [tar_member(name, text.encode()) for name, text in files.items()])
    assert bomb.stat().st_size < 10_000

    with pytest.raises(DataError, match="more than 1 MiB"):
        list_files(bomb)


def test_a_sparse_tar_member_that_claims_a_terabyte_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.txt")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.map": "0,4", "GNU.sparse.size": str(1 << 40)}
    info.size = 4
    with tarfile.open(tmp_path / "t.tgz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"text"))

    with pytest.raises(DataError, match="special file"):
        list_files(tmp_path / "t.tgz")


def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.txt")
    info.size = 1 << 40
    (tmp_path / "t.tgz").write_bytes(gzip.compress(info.tobuf() + b"text".ljust(512, b"\0")))

    with pytest.raises(DataError, match="cannot be read as an archive"):
        list_files(tmp_path / "t.tgz")


@pytest.mark.parametrize("name", ["t.tgz", "t.zip"])
@pytest.mark.parametrize("damage", ["not an archive", "cut off"])
def test_a_broken_archive_is_refused(name: str, damage: str, tmp_path: Path) -> None:
    archive = tmp_path / name
    if damage == "cut off":
        text = "".join(f"{i * i} " for i in range(2000))
        whole = (
            make_zip(archive, {"a.txt": text})
            if name == "t.zip"
            else make_tar(archive, [tar_member("a.txt", text.encode())])
        )
        archive.write_bytes(whole.read_bytes()[:-400])
    else:
        archive.write_text("no archive")

    with pytest.raises(DataError, match="cannot be read as an archive"):
        list_files(archive)


def test_a_name_in_a_zip_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "t.zip", {"ä.txt": "text"})
    archive.write_bytes(archive.read_bytes().replace("ä".encode(), b"\xff\xff"))
    with pytest.raises(DataError, match="cannot be read as an archive"):
        list_files(archive)


def test_a_zip_that_is_not_stored_or_deflated_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "t.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_BZIP2) as content:
        content.writestr("a.txt", "text")
    with pytest.raises(DataError, match="not compressed by deflate"):
        list_files(archive)


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match="no files"):
        list_files(tmp_path / "empty")


def test_a_missing_source_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist") as caught:
        locate(tmp_path / "texts")

    assert "set source" in caught.value.hint


@pytest.mark.parametrize("name", ["hp_lovecraft", "hp_lovecraft.tgz"])
def test_the_missing_stories_say_where_they_are_public(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        locate(tmp_path / name)

    for words in (
        "jdinalt/forgather",
        "examples/tutorials/hp_lovecraft_project/",
        "LOVECRAFT_CORPUS",
        "0ddc4a7ef42dea08",
    ):
        assert words in caught.value.hint


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt cannot be read"):
        File("gone.txt", tmp_path).open()
