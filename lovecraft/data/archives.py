"""Archives of texts, read in memory and never unpacked to disk: no links, no `..`, nothing larger than the cap."""

import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lovecraft.errors import DataError

MAX_UNPACKED = 1 << 30  # bytes that an archive may hold
# What the libraries raise for a damaged archive; ValueError and IndexError come from a zip's names.
BROKEN = (OSError, EOFError, ValueError, IndexError, zlib.error, tarfile.TarError, zipfile.error, NotImplementedError)


def read_archive(source: Path) -> dict[str, bytes]:
    """Return the files of an archive, name → content; a folder that holds all of them is taken off their names.

    Raises DataError for one that is broken, too large, or unsafe to read.
    """
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
    return {"/".join(name.parts[nested:]): data for name, data in content.items()}


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
