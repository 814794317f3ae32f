"""What is read as text, and what is refused with its place."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft import DatasetConfig
from lovecraft.data import sources
from lovecraft.data.sources import File, Reading, Text, list_files, locate, read_file
from lovecraft.errors import DataError

TEXTS = {"a.txt": "one\n", "b.txt": "two\n", "sub/c.txt": "three\n"}


def read(content: str | bytes, name: str = "a.txt", **options: Any) -> Reading:
    data = content if isinstance(content, bytes) else content.encode()
    return read_file(File(name, data), DatasetConfig(source=Path("/nowhere"), **options))


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


@pytest.mark.parametrize("top", ["", "stories/", "./stories/"])
def test_an_archive_reads_like_its_directory(top: str, texts: Callable[..., Path], tmp_path: Path) -> None:
    plain = [(f.name, f.read()) for f in list_files(texts(TEXTS))]
    members = {top + name: text for name, text in reversed(TEXTS.items())}
    folder = [] if not top else [tar_member(top, b"", type=tarfile.DIRTYPE)]
    packed = [
        make_tar(tmp_path / "t.tgz", folder + [tar_member(n, t.encode()) for n, t in members.items()]),
        make_tar(tmp_path / "t.tar.gz", [tar_member(n, t.encode()) for n, t in members.items()]),
        make_zip(tmp_path / "t.zip", members),
    ]

    for archive in packed:
        assert [(f.name, f.read()) for f in list_files(archive)] == plain


def test_one_file_is_its_own_source(texts: Callable[..., Path]) -> None:
    [file] = list_files(texts(TEXTS) / "a.txt")

    assert (file.name, file.read()) == ("a.txt", b"one\n")


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
    monkeypatch.setattr(sources, "MAX_UNPACKED", 1 << 20)
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


def test_a_hub_dataset_is_refused() -> None:
    with pytest.raises(DataError, match="hub"):
        locate("hf:org/stories")


# --- text -----------------------------------------------------------------------------------------


def test_a_text_is_kept_as_it_is() -> None:
    text = "\n  Ia! Ia!\u2028\x85 Cthulhu — fhtagn!  \n\n"

    assert read(text).texts == [Text("a.txt", text)]


def test_a_byte_order_mark_is_removed_and_reported() -> None:
    reading = read(b"\xef\xbb\xbfone")

    assert reading.texts == [Text("a.txt", "one")]
    assert reading.notes == ["a.txt: byte order mark removed"]


def test_crlf_is_changed_and_reported() -> None:
    reading = read("one\r\ntwo\rthree\n")

    assert reading.texts == [Text("a.txt", "one\ntwo\nthree\n")]
    assert reading.notes == ["a.txt: CRLF line ends changed to LF"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"caf\xe9", "a.txt is not UTF-8 at byte 3"),
        (b"\xef\xbb\xbfcaf\xe9", "a.txt is not UTF-8 at byte 6"),
        ("text".encode("utf-16"), "a.txt is not UTF-8 at byte 0"),
        (b"caf\xc3\xa9\0", "a.txt has a NUL at byte 5"),
        (b"", "a.txt is empty"),
        (b" \r\n\t\n", "a.txt is empty"),
        (b"\xef\xbb\xbf", "a.txt is empty"),
    ],
)
def test_what_is_not_text_is_refused_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(data)

    assert caught.value.message == message
    assert caught.value.hint


def test_the_hint_names_the_encoding_that_the_byte_order_mark_gives_away() -> None:
    for data, encoding in ((b"caf\xe9", "LATIN1"), ("text".encode("utf-16"), "UTF-16")):
        with pytest.raises(DataError) as caught:
            read(data)
        assert f"iconv -f {encoding} " in caught.value.hint


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt cannot be read"):
        File("gone.txt", tmp_path / "gone.txt").read()


def test_an_unknown_ending_is_refused_unless_the_format_is_given() -> None:
    with pytest.raises(DataError, match="ending"):
        read("one", "a.rst")

    assert read("one", "a.rst", format="text").texts == [Text("a.rst", "one")]


@pytest.mark.parametrize(
    ("by", "names", "parts"),
    [
        ("line", ["a.txt:1", "a.txt:2", "a.txt:5"], ["one", "two", "three"]),
        ("paragraph", ["a.txt:1", "a.txt:2"], ["one\ntwo", "three\n"]),
    ],
)
def test_a_text_is_sampled_by_lines_or_paragraphs(by: str, names: list[str], parts: list[str]) -> None:
    texts = read("one\ntwo\n \n\nthree\n", sample_by=by).texts

    assert [t.name for t in texts] == names
    assert [t.text for t in texts] == parts


# --- rows -----------------------------------------------------------------------------------------

ROWS = [{"text": "one"}, {"text": "two\nlines"}, {"text": 'a "quoted", one'}]


def as_parquet(rows: list[dict[str, object]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def as_csv(rows: list[dict[str, str]]) -> bytes:
    cells = [list(rows[0])] + [list(row.values()) for row in rows]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in cells]
    return "\n".join(quoted).encode()


def as_jsonl(rows: list[Any]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


@pytest.mark.parametrize(("name", "write"), [("a.jsonl", as_jsonl), ("a.csv", as_csv), ("a.parquet", as_parquet)])
def test_rows_are_documents(name: str, write: Callable[[list[Any]], bytes]) -> None:
    texts = read(write(ROWS), name).texts

    assert texts == [Text(f"{name}:{i}", row["text"]) for i, row in enumerate(ROWS, 1)]


@pytest.mark.parametrize(("name", "write"), [("a.jsonl", as_jsonl), ("a.csv", as_csv), ("a.parquet", as_parquet)])
def test_an_unknown_field_is_named_with_those_there_are(name: str, write: Callable[[list[Any]], bytes]) -> None:
    with pytest.raises(DataError, match=f"{name}:1 has no field 'story'") as caught:
        read(write(ROWS), name, text_field="story")

    assert "its fields are text" in caught.value.hint


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"text": broken}', "a.jsonl:3000 is not JSON"),
        ('["text"]', "a.jsonl:3000 is a list"),
        ("null", "a.jsonl:3000 is a NoneType"),
        ('{"text": 7}', "a.jsonl:3000: text is int, not text"),
        ('{"text": null}', "a.jsonl:3000: text is NoneType, not text"),
        (r'{"text": "a\u0000b"}', "a.jsonl:3000: text holds '\\x00' at character 1"),
        (r'{"text": "\ud800"}', "a.jsonl:3000: text holds '\\ud800' at character 0"),
    ],
)
def test_a_broken_row_in_the_middle_is_named_by_its_number(bad: str, message: str) -> None:
    lines = [json.dumps({"text": f"row {i}"}) for i in range(5000)]
    lines[2999] = bad

    with pytest.raises(DataError) as caught:
        read("\n".join(lines), "a.jsonl")

    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,more\na,1\nb\n", "a.csv:2 has not as many fields"),
        ("text,more\na,1\nb,2,3\n", "a.csv:2 has not as many fields"),
        ('text\na\n"b\n', "a.csv:2 is not CSV"),
    ],
)
def test_a_broken_csv_row_is_named_by_its_number(content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(content, "a.csv")


def test_a_csv_field_may_be_as_long_as_a_novel() -> None:
    assert len(read("text\n" + "word " * 100_000, "a.csv").texts[0].text) == 500_000


def test_a_file_that_is_not_parquet_is_refused() -> None:
    with pytest.raises(DataError, match=r"a\.parquet is not parquet"):
        read("no", "a.parquet")


def test_empty_rows_are_left_out_and_reported() -> None:
    reading = read(as_jsonl([{"text": "one"}, {"text": " "}, {"text": ""}]) + b"\n\n", "a.jsonl")

    assert reading.texts == [Text("a.jsonl:1", "one")]
    assert reading.notes == ["a.jsonl: 2 empty rows left out"]
