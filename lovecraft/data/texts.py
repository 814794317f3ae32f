"""The documents of a file, one at a time: a whole text, its lines or paragraphs, or the rows of jsonl, csv, parquet.

Rows are read here and not by `datasets`, because a broken row must be named by its number in the file and not in some
chunk of it. Only a file that is one document is ever held in memory whole.
"""

import codecs
import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.chat import CORRECT, Conversation, conversation_of
from lovecraft.data.options import has_conversations
from lovecraft.data.sources import HUB, File
from lovecraft.errors import DataError

BOM = b"\xef\xbb\xbf"
ROWS = 256  # of a parquet file in memory at once

Notes = dict[str, None]
"""What had to be put right, one line each, in the order of its finding: a set that keeps its order."""


@attrs.frozen
class Text:
    """One document, and where it stands."""

    file: str
    text: str = attrs.field(repr=False)
    """Of a conversation what is said, one message after the other."""
    row: int = 0
    """Its number in a file of rows, from 1: the line of jsonl, else the row; 0 in a file of text."""
    part: int = 0
    """The number of the line, or the paragraph, in its text, from 1; 0 where the text is the document."""
    conversation: Conversation | None = attrs.field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The file's name, with `:number` for the row and the part."""
        return name_of(self.file, self.row, self.part)


def name_of(file: str, row: int, part: int) -> str:
    """Return the name of a document."""
    return ":".join([file, *(str(number) for number in (row, part) if number)])


def read_file(file: File, dataset: DatasetConfig, notes: Notes) -> Iterator[Text]:
    """Yield the documents of one file, and add to `notes` what had to be put right in it.

    Raises DataError, with the place, for what cannot be read as text: other encodings, NUL bytes, broken rows, an
    empty file.
    """
    kind = file.format(dataset)
    if kind is None:
        raise DataError(f"{file.name}: its ending does not say how to read it", hint='set format, such as "text"')
    if kind == "text" and has_conversations(dataset):
        hint = "leave it out of the patterns, or set neither messages_field nor prompt_field"
        raise DataError(f"{file.name} is a text: it has no fields of conversations", hint=hint)
    texts = _texts(file, dataset, notes) if kind == "text" else _rows(kind, file, dataset, notes)
    found = empty = 0
    for text in texts:
        if text.text.strip():
            found += 1
            yield text
        else:
            empty += 1
    if not found:
        raise DataError(f"{file.name} is empty", hint="remove it, or leave it out of the patterns")
    if empty:
        notes[f"{file.name}: {empty:,} empty rows left out"] = None


def _texts(file: File, dataset: DatasetConfig, notes: Notes) -> Iterator[Text]:
    if dataset.sample_by == "document":
        with file.open() as stream:
            yield Text(file.name, _clean(file.name, _decode(file.name, stream.read(), 0, notes), notes))
        return
    cleaned = (_clean(file.name, line, notes).removesuffix("\n") for line in _lines(file, notes))
    lines = (line for some in cleaned for line in some.split("\n"))  # a lone CR ended some of them
    for number, part in _parts(lines, dataset.sample_by):
        yield Text(file.name, part, part=number)


def _parts(lines: Iterable[str], by: str) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of the lines that are not blank, or of the paragraphs, which blank lines part."""
    if by == "line":
        yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        return
    number, paragraph = 0, []
    for line in lines:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield (number := number + 1), "\n".join(paragraph)
            paragraph = []
    if paragraph:
        yield number + 1, "\n".join(paragraph)


# --- text -----------------------------------------------------------------------------------------


def _lines(file: File, notes: Notes) -> Iterator[str]:
    """Yield the lines of a file, each with its end."""
    offset = 0
    with file.open() as stream:
        for line in stream:
            yield _decode(file.name, line, offset, notes)
            offset += len(line)


def _decode(name: str, data: bytes, offset: int, notes: Notes) -> str:
    """Return the text of the bytes at `offset` of a file; raise DataError with the place where it is none."""
    skipped = len(BOM) if offset == 0 and data.startswith(BOM) else 0
    if skipped:
        notes[f"{name}: byte order mark removed"] = None
    try:
        text = data[skipped:].decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"{name} is not UTF-8 at byte {offset + skipped + error.start}"
        wide = offset == 0 and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        hint = f"convert it, such as with iconv -f {'UTF-16' if wide else 'LATIN1'} -t UTF-8, or leave it out"
        raise DataError(where, hint=hint) from None
    if "\0" in text:
        raise DataError(
            f"{name} has a NUL at byte {offset + data.index(0)}", hint="is it a text? leave it out, or clean it"
        )
    return text


def _clean(name: str, text: str, notes: Notes) -> str:
    if "\r" not in text:
        return text
    notes[f"{name}: CRLF line ends changed to LF"] = None
    return text.replace("\r\n", "\n").replace("\r", "\n")


# --- rows -----------------------------------------------------------------------------------------


def _rows(kind: str, file: File, dataset: DatasetConfig, notes: Notes) -> Iterator[Text]:
    for number, row in numbered_rows(kind, file, dataset, notes):
        name = name_of(file.name, number, 0)
        if not isinstance(row, dict):
            raise DataError(f"{name} is {type(row).__name__}, not an object with fields", hint=CORRECT)
        if has_conversations(dataset):
            conversation = conversation_of(name, row, dataset)
            said = "\n\n".join(message["content"] for message in conversation.messages)
            yield Text(file.name, said, number, conversation=conversation)
            continue
        text = _clean(file.name, _text_of(name, row, dataset.text_field), notes)
        if dataset.sample_by == "document" or not text.strip():
            yield Text(file.name, text, number)
        else:
            for part, inner in _parts(text.split("\n"), dataset.sample_by):
                yield Text(file.name, inner, number, part)


def numbered_rows(kind: str, file: File, dataset: DatasetConfig, notes: Notes) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, row) of a file of rows; raise DataError where one is broken."""
    if kind == HUB:
        from lovecraft.data.hub import rows

        fields = (dataset.messages_field, dataset.prompt_field, dataset.response_field)
        return rows(str(file.content), file.name, [field for field in fields if field] or [dataset.text_field])
    if kind == "parquet":
        return _parquet_rows(file)
    return (_jsonl_rows if kind == "jsonl" else _csv_rows)(file, notes)


def _jsonl_rows(file: File, notes: Notes) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_lines(file, notes), 1):
        try:
            if row := line.strip():
                yield number, json.loads(row)
        except (ValueError, RecursionError) as error:  # the second is of too many brackets
            raise DataError(f"{file.name}:{number} is not JSON: {error}", hint=CORRECT) from None


def _csv_rows(file: File, notes: Notes) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(sys.maxsize)  # the module refuses texts above 128 KiB otherwise
    reader = csv.DictReader(_lines(file, notes), strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            if None in row or None in row.values():
                raise DataError(f"{file.name}:{number} has not as many fields as the header", hint=CORRECT)
            yield number, row
    except csv.Error as error:
        raise DataError(f"{file.name}:{number + 1} is not CSV: {error}", hint=CORRECT) from None


def _parquet_rows(file: File) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with file.open() as stream:
            batches = pyarrow.parquet.ParquetFile(stream).iter_batches(ROWS)
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except pyarrow.ArrowException as error:
        raise DataError(f"{file.name} is not parquet: {error}") from None


def _text_of(name: str, row: dict[Any, Any], field: str) -> str:
    if field not in row:
        fields = ", ".join(map(str, row)) or "none"
        raise DataError(f"{name} has no field {field!r}", hint=f"set text_field; its fields are {fields}")
    text = row[field]
    if not isinstance(text, str):
        raise DataError(f"{name}: {field} is {'null' if text is None else type(text).__name__}, not text", hint=CORRECT)
    if wrong := re.search("[\0\ud800-\udfff]", text):
        raise DataError(
            f"{name}: {field} holds {wrong.group()!r} at character {wrong.start()}, which is not text", hint=CORRECT
        )
    return text
