"""Where the texts come from: a directory, one file, an archive or a dataset on the hub, as named files."""

import io
import os.path
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import attrs

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.archives import read_archive
from lovecraft.errors import DataError
from lovecraft.files import content_hash, file_hashes, files_below

ARCHIVES = (".tgz", ".tar.gz", ".zip")
FORMATS = {".txt": "text", ".md": "text", ".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}
HUB = "hub"

STORIES_HINT = (
    "hp_lovecraft.tgz is public: it lies in the GitHub repository jdinalt/forgather under "
    "examples/tutorials/hp_lovecraft_project/ "
    "(sha256 0ddc4a7ef42dea0885bf36ae76e87865e9e30e2317ead15f53c94836f56fbd29); "
    "put it there, or set LOVECRAFT_CORPUS to where it is (the archive or the unpacked directory)"
)


@attrs.frozen
class File:
    """One file of a source: on disk, in memory, or a split of a dataset on the hub."""

    name: str
    """Its path relative to the source, with forward slashes."""

    content: Path | bytes | str = attrs.field(repr=False)
    """The directory that `name` is relative to, what it holds, or the name of the hub's dataset."""

    def open(self) -> BinaryIO:
        """Open the content for reading; raise DataError where it cannot be read."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        try:
            return Path(self.content, self.name).open("rb")
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    def format(self, dataset: DatasetConfig) -> str | None:
        """Return how the file is to be read; None where neither the dataset nor its ending says."""
        if isinstance(self.content, str):
            return HUB
        return dataset.format if dataset.format != "auto" else FORMATS.get(os.path.splitext(self.name)[1].lower())


def locate(source: Path | str) -> Path | str:
    """Return the source; raise DataError when it is on this machine and missing."""
    if isinstance(source, str) or source.exists():
        return source
    stories = source.name in ("hp_lovecraft", "hp_lovecraft.tgz")
    hint = STORIES_HINT if stories else "put the texts there, or set source to a directory, a file or an archive"
    raise DataError(f"the corpus {source} does not exist", hint=hint)


def content_hashes(source: Path | str, cache: Path, names: Iterable[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of a directory's `names`, or of what else the texts are read from; `cache` remembers them.

    Raises DataError where the source is missing or cannot be read.
    """
    source = locate(source)
    known = cache / "hashes.json"
    try:
        if isinstance(source, Path):
            return file_hashes(source, names, known) if source.is_dir() else {source.name: content_hash(source, known)}
        from lovecraft.data.hub import cached_files

        return {file.name: content_hash(file, known) for file in cached_files(source)}
    except OSError as error:
        raise DataError(f"{error.filename or source} cannot be read: {error.strerror or error}") from error


def list_files(source: Path | str) -> list[File]:
    """Return the files of a source sorted by name, hidden ones left out; of a hub's dataset its splits.

    Raises DataError when it is empty or cannot be read, an archive that is unsafe, or a dataset that cannot be fetched.
    """
    if isinstance(source, str):
        from lovecraft.data.hub import split_names

        return [File(name, source) for name in split_names(source)]
    if source.is_dir():
        try:
            files = [File(name, source) for name in files_below(source)]
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    elif source.name.endswith(ARCHIVES):
        files = [File(name, data) for name, data in sorted(read_archive(source).items()) if not _hidden(name)]
    else:
        files = [File(source.name, source.parent)]
    if not files:
        raise DataError(f"there are no files in {source}")
    return files


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
