"""Where the texts come from: a directory, one file or an archive, read as named texts.

Archives are read in memory and never unpacked to disk. Rows of jsonl, csv and parquet are read here and not by
`datasets`, because a broken row must be named by its number in the file and not in some chunk of it.
"""

import codecs
import csv
import gzip
import io
import json
import re
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import attrs

from lovecraft.config.schema import DatasetConfig
from lovecraft.errors import DataError

MAX_UNPACKED = 1 << 30  # bytes that an archive may hold
# What the libraries raise for a damaged archive; ValueError and IndexError come from a zip's names.
BROKEN = (OSError, EOFError, ValueError, IndexError, zlib.error, tarfile.TarError, zipfile.error, NotImplementedError)
BOM = b"\xef\xbb\xbf"
FORMATS = {".txt": "text", ".md": "text", ".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}

STORIES_HINT = (
    "hp_lovecraft.tgz is public: it lies in the GitHub repository jdinalt/forgather under "
    "examples/tutorials/hp_lovecraft_project/ "
    "(sha256 0ddc4a7ef42dea0885bf36ae76e87865e9e30e2317ead15f53c94836f56fbd29); "
    "put it there, or set LOVECRAFT_CORPUS to where it is (the archive or the unpacked directory)"
)


@attrs.frozen
class File:
    """One file of a source, still on disk or already in memory."""

    name: str
    """Its path relative to the source, with forward slashes."""

    content: Path | bytes = attrs.field(repr=False)

    def read(self) -> bytes:
        """Return the content; raise DataError where it cannot be read."""
        if isinstance(self.content, bytes):
            return self.content
        try:
            return self.content.read_bytes()
        except OSError as error:
            raise DataError(f"{self.content} cannot be read: {error.strerror}") from error


@attrs.frozen
class Text:
    """One document: the name of its file, with `:number` where it is a row, a paragraph or a line of it."""

    name: str
    text: str = attrs.field(repr=False)


@attrs.frozen
class Reading:
    """The texts of one file, in its order, and what had to be put right in it."""

    texts: list[Text]
    notes: list[str]


def locate(source: Path | str) -> Path:
    """Return the source as a path; raise DataError when it is missing, or on the hub."""
    if isinstance(source, str):
        raise DataError(f"{source}: datasets on the hub cannot be read yet", hint="download it and give its path")
    if not source.exists():
        stories = source.name in ("hp_lovecraft", "hp_lovecraft.tgz")
        hint = STORIES_HINT if stories else "put the texts there, or set source to a directory, a file or an archive"
        raise DataError(f"the corpus {source} does not exist", hint=hint)
    return source


def list_files(source: Path) -> list[File]:
    """Return the files of a source sorted by name, hidden ones left out.

    Raises DataError when it is empty, or an archive that is broken or unsafe.
    """
    if source.is_dir():
        paths = (p for p in source.rglob("*") if p.is_file())
        files = [File(p.relative_to(source).as_posix(), p) for p in paths]
    elif source.name.endswith((".tgz", ".tar.gz", ".zip")):
        files = _read_archive(source)
    else:
        return [File(source.name, source)]
    files = sorted((f for f in files if not _hidden(f.name)), key=lambda file: file.name)
    if not files:
        raise DataError(f"there are no files in {source}")
    return files


def read_file(file: File, dataset: DatasetConfig) -> Reading:
    """Return the documents of one file.

    Raises DataError, with the place, for what cannot be read as text: other encodings, NUL bytes, broken rows, an
    empty file.
    """
    kind = dataset.format if dataset.format != "auto" else FORMATS.get(PurePosixPath(file.name).suffix.lower())
    if kind is None:
        raise DataError(f"{file.name}: its ending does not say how to read it", hint='set format, such as "text"')
    data = file.read()
    notes = [f"{file.name}: byte order mark removed"] if data.startswith(BOM) else []
    if kind == "text":
        found = [Text(file.name, _decode(file.name, data))]
    else:
        found = [Text(name, _text_of(name, row, dataset.text_field)) for name, row in _rows(kind, file.name, data)]
    clean = [Text(t.name, t.text.replace("\r\n", "\n").replace("\r", "\n")) for t in found]
    if clean != found:
        notes.append(f"{file.name}: CRLF line ends changed to LF")
    full = [t for t in clean if t.text.strip()]
    if not full:
        raise DataError(f"{file.name} is empty", hint="remove it, or leave it out of the patterns")
    if len(full) < len(clean):
        notes.append(f"{file.name}: {len(clean) - len(full):,} empty rows left out")
    return Reading([part for text in full for part in _sample(text, dataset.sample_by)], notes)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _sample(text: Text, by: str) -> Iterator[Text]:
    if by == "document":
        yield text
        return
    parts = text.text.split("\n") if by == "line" else re.split(r"\n\s*\n", text.text)
    for number, part in enumerate(parts, 1):
        if part.strip():
            yield Text(f"{text.name}:{number}", part)


# --- text and rows --------------------------------------------------------------------------------


def _decode(name: str, data: bytes) -> str:
    skipped = len(BOM) if data.startswith(BOM) else 0
    try:
        text = data[skipped:].decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"{name} is not UTF-8 at byte {error.start + skipped}"
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        hint = f"convert it, such as with iconv -f {'UTF-16' if wide else 'LATIN1'} -t UTF-8, or leave it out"
        raise DataError(where, hint=hint) from None
    if "\0" in text:
        raise DataError(f"{name} has a NUL at byte {data.index(0)}", hint="is it a text? leave it out, or clean it")
    return text


def _rows(kind: str, file: str, data: bytes) -> Iterator[tuple[str, object]]:
    """Yield (name, row) of a file of rows; the number in the name is the line of jsonl, else the row, from 1."""
    read = {"jsonl": _jsonl_rows, "csv": _csv_rows, "parquet": _parquet_rows}[kind]
    for number, row in read(file, data):
        yield f"{file}:{number}", row


def _jsonl_rows(file: str, data: bytes) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(_decode(file, data).split("\n"), 1):
        try:
            if line.strip():
                yield number, json.loads(line)
        except ValueError as error:
            raise DataError(f"{file}:{number} is not JSON: {error}") from None


def _csv_rows(file: str, data: bytes) -> Iterator[tuple[int, object]]:
    csv.field_size_limit(sys.maxsize)  # the module refuses texts above 128 KiB otherwise
    reader = csv.DictReader(io.StringIO(_decode(file, data), newline=""), strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            if None in row or None in row.values():
                raise DataError(f"{file}:{number} has not as many fields as the header")
            yield number, row
    except csv.Error as error:
        raise DataError(f"{file}:{number + 1} is not CSV: {error}") from None


def _parquet_rows(file: str, data: bytes) -> Iterator[tuple[int, object]]:
    import pyarrow
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(io.BytesIO(data)).iter_batches()
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except pyarrow.ArrowException as error:
        raise DataError(f"{file} is not parquet: {error}") from None


def _text_of(name: str, row: object, field: str) -> str:
    if not isinstance(row, dict):
        raise DataError(f"{name} is a {type(row).__name__}, not an object with fields")
    if field not in row:
        fields = ", ".join(map(str, row)) or "none"
        raise DataError(f"{name} has no field {field!r}", hint=f"set text_field; its fields are {fields}")
    text = row[field]
    if not isinstance(text, str):
        raise DataError(f"{name}: {field} is {type(text).__name__}, not text")
    if wrong := re.search("[\0\ud800-\udfff]", text):
        raise DataError(f"{name}: {field} holds {wrong.group()!r} at character {wrong.start()}, which is not text")
    return text


# --- archives -------------------------------------------------------------------------------------


def _read_archive(source: Path) -> list[File]:
    """Return the files of an archive; a folder that holds all of them is taken off their names."""
    members = _zip_members if source.suffix == ".zip" else _tar_members
    content: dict[PurePosixPath, bytes] = {}
    try:
        for name, data in members(source):
            path = _safe_name(source, name)
            if path in content:
                raise _unsafe(source, name, "is there twice")
            content[path] = data
    except BROKEN as error:
        raise DataError(f"{source} cannot be read as an archive: {error}", hint="is it complete?") from error
    tops = {name.parts[0] for name in content}
    nested = len(tops) == 1 and all(len(name.parts) > 1 for name in content)
    return [File("/".join(name.parts[nested:]), data) for name, data in content.items()]


def _tar_members(source: Path) -> Iterator[tuple[str, bytes]]:
    # Unpacked up to the cap first: whatever sizes the headers claim, nothing larger than this can be read from it.
    with gzip.open(source) as packed:
        data = packed.read(MAX_UNPACKED + 1)
    _check_size(source, len(data))
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise _unsafe(source, member.name, "is a link or a special file")
            file = archive.extractfile(member)
            assert file is not None  # only links and special files have none
            yield member.name, file.read()


def _zip_members(source: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(source) as archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
        _check_size(source, sum(m.file_size for m in members))  # zipfile reads no more than the size it claims
        for member in members:
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _unsafe(source, member.filename, "is a link")
            if member.flag_bits & 1:
                raise _unsafe(source, member.filename, "is encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others ask for any memory
                raise _unsafe(source, member.filename, "is not compressed by deflate")
            yield member.filename, archive.read(member)


def _check_size(source: Path, size: int) -> None:
    if size > MAX_UNPACKED:
        limit = f"{MAX_UNPACKED / 2**20:,.0f} MiB"
        raise DataError(f"{source} holds more than {limit}", hint="unpack it and give the directory")


def _safe_name(source: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise _unsafe(source, name, "is not a plain relative name")
    return path


def _unsafe(source: Path, name: str, what: str) -> DataError:
    return DataError(f"{source}: {name!r} {what}", hint="such archives are not read; unpack it and give the directory")
