"""What is read as text, and what is refused with its place."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from lovecraft import DatasetConfig
from lovecraft.data.sources import File
from lovecraft.data.texts import Notes, Text, read_file
from lovecraft.errors import DataError


@attrs.frozen
class Reading:
    texts: list[Text]
    notes: list[str]


def read(content: str | bytes, name: str = "a.txt", **options: Any) -> Reading:
    data = content if isinstance(content, bytes) else content.encode()
    notes: Notes = {}
    texts = list(read_file(File(name, data), DatasetConfig(source=Path("/nowhere"), **options), notes))
    return Reading(texts, list(notes))


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


def test_an_unknown_ending_is_refused_unless_the_format_is_given() -> None:
    with pytest.raises(DataError, match="ending"):
        read("one", "a.rst")

    assert read("one", "a.rst", format="text").texts == [Text("a.rst", "one")]


@pytest.mark.parametrize(
    ("by", "names", "parts"),
    [
        ("line", ["a.txt:1", "a.txt:2", "a.txt:5"], ["one", "two", "three"]),
        ("paragraph", ["a.txt:1", "a.txt:2"], ["one\ntwo", "three"]),
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

    assert texts == [Text(name, row["text"], i) for i, row in enumerate(ROWS, 1)]


@pytest.mark.parametrize(("name", "write"), [("a.jsonl", as_jsonl), ("a.csv", as_csv), ("a.parquet", as_parquet)])
def test_an_unknown_field_is_named_with_those_there_are(name: str, write: Callable[[list[Any]], bytes]) -> None:
    with pytest.raises(DataError, match=f"{name}:1 has no field 'story'") as caught:
        read(write(ROWS), name, text_field="story")

    assert "its fields are text" in caught.value.hint


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"text": broken}', "a.jsonl:3000 is not JSON"),
        ('{"text": "a"', "a.jsonl:3000 is not JSON: Expecting ',' delimiter: line 1 column 13"),
        ("[" * 100_000, "a.jsonl:3000 is not JSON: maximum recursion depth"),
        ('["text"]', "a.jsonl:3000 is list, not an object"),
        ("null", "a.jsonl:3000 is NoneType, not an object"),
        ('{"text": 7}', "a.jsonl:3000: text is int, not text"),
        ('{"text": null}', "a.jsonl:3000: text is null, not text"),
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

    assert reading.texts == [Text("a.jsonl", "one", 1)]
    assert reading.notes == ["a.jsonl: 2 empty rows left out"]


@pytest.mark.parametrize("by", ["line", "paragraph"])
def test_lines_are_read_one_by_one_and_told_with_their_place_in_the_file(by: str) -> None:
    data = b"one\r\ntwo\rthree\n" + b"x" * 100 + b"\n\xff\n"
    with pytest.raises(DataError, match="is not UTF-8 at byte 116"):
        read(data, sample_by=by)

    reading = read(data[:-2], sample_by="line")

    assert [t.text for t in reading.texts] == ["one", "two", "three", "x" * 100]
    assert [t.name for t in reading.texts] == ["a.txt:1", "a.txt:2", "a.txt:3", "a.txt:4"]
    assert reading.notes == ["a.txt: CRLF line ends changed to LF"]


def test_a_byte_order_mark_is_looked_for_at_the_start_only() -> None:
    reading = read(b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n", sample_by="line")

    assert [t.text for t in reading.texts] == ["one", "\ufefftwo"]


def test_the_texts_of_rows_are_sampled_too() -> None:
    texts = read(as_jsonl([{"text": "one\n\ntwo"}, {"text": "three"}]), "a.jsonl", sample_by="paragraph").texts

    assert [(t.name, t.text) for t in texts] == [
        ("a.jsonl:1:1", "one"),
        ("a.jsonl:1:2", "two"),
        ("a.jsonl:2:1", "three"),
    ]


def test_a_conversation_is_one_document_of_what_is_said() -> None:
    row = {"chat": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]}
    [text] = read(as_jsonl([row]), "a.jsonl", messages_field="chat").texts

    assert (text.name, text.text) == ("a.jsonl:1", "Who?\n\nI.")
    assert text.conversation is not None
    assert text.conversation.messages == row["chat"]


@pytest.mark.parametrize("fields", [{"messages_field": "chat"}, {"prompt_field": "q", "response_field": "a"}])
def test_a_text_is_no_conversation(fields: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"a\.txt is a text: it has no fields") as caught:
        read("Who? I.", "a.txt", **fields)

    assert "leave it out" in str(caught.value.hint)


def test_only_what_was_asked_for_is_read() -> None:
    lines = b"".join(b'{"text": "row %d"}\n' % i for i in range(10)) + b"broken\n"
    notes: Notes = {}
    reading = read_file(File("a.jsonl", lines), DatasetConfig(source=Path("/nowhere")), notes)

    assert [next(reading).text for _ in range(10)] == [f"row {i}" for i in range(10)]
