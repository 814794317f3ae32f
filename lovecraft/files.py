"""Files that are either whole or absent: atomic writes, directories that appear at once, content hashes."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
log = logging.getLogger(__name__)  # what nobody configures goes to stderr as it is
SETTLED = 2_000_000_000  # ns; a file changed later than this may change again within one tick of the disk's clock


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old content or the new, never half of it."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def new_file(final: Path) -> Iterator[Path]:
    """Yield an empty file beside `final`; on success it is synced to disk and takes the place of `final`.

    On any error, an interrupt included, it is removed and `final` is untouched.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=final.parent, prefix=f".{final.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        _sync_file(temporary)
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(final.parent)


@contextlib.contextmanager
def new_directory(final: Path) -> Iterator[Path]:
    """Yield an empty directory beside `final`; on success it is synced to disk and renamed to `final`.

    On any error, an interrupt included, it is removed and `final` is untouched. After a SIGKILL a `.name.tmp*`
    directory may be left behind, which nothing ever reads.
    Raises FileExistsError when `final` exists.
    """
    if final.exists():
        raise FileExistsError(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.tmp"))
    temporary.chmod(0o755)
    try:
        yield temporary
        for file in sorted(p for p in temporary.rglob("*") if p.is_file()):
            file.chmod(0o644)  # safetensors writes files that only their owner reads
            _sync_file(file)
        for folder in sorted((p for p in temporary.rglob("*") if p.is_dir()), reverse=True):
            _sync_directory(folder)
        _sync_directory(temporary)
        os.rename(temporary, final)
        _sync_directory(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_directory(path: Path) -> None:
    """Remove a directory so that a reader sees all of it or nothing; `sweep` ends what a SIGKILL cuts short."""
    aside = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.tmp")
    os.rename(path, aside)
    shutil.rmtree(aside)


def sweep(parent: Path, name: str = "*") -> None:
    """Remove what killed processes left of `name`, or of anything, in `parent`. The caller holds its lock."""
    for leftover in parent.glob(f".{name}.tmp*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def locked(final: Path, what: str) -> Iterator[None]:
    """Hold the lock of the artifact `final`; where another process holds it, say that it builds `what`, and wait.

    What killed builders left is removed, of this artifact and of those that nobody builds now.
    """
    from filelock import FileLock, Timeout  # costs a tenth of `lc show`, which builds nothing

    final.parent.mkdir(parents=True, exist_ok=True)
    file = final.parent / f"{final.name}.lock"
    lock = FileLock(file)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        pid = file.read_text(encoding="utf-8") or "unknown"
        log.warning("waiting for another lc, which builds the same %s (pid %s)", what, pid)
        lock.acquire()
    try:
        file.write_text(str(os.getpid()), encoding="utf-8")
        sweep(final.parent, final.name)
        for leftover in final.parent.glob(".*.tmp*"):
            other = FileLock(final.parent / f"{leftover.name[1:].partition('.tmp')[0]}.lock")
            with contextlib.suppress(Timeout), other.acquire(timeout=0):
                shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        lock.release()


def write_manifest(directory: Path) -> None:
    """Write `manifest.json`: the size in bytes and the SHA-256 of every other file in `directory`."""
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST)
    rows = {p.relative_to(directory).as_posix(): {"bytes": p.stat().st_size, "sha256": hash_file(p)} for p in files}
    (directory / MANIFEST).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def check_manifest(directory: Path) -> list[str]:
    """Return what is wrong with `directory` against its manifest, one line a problem; empty if it is sound."""
    try:
        rows = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        written = {name: (row["bytes"], row["sha256"]) for name, row in rows.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # absent, no JSON, or JSON of another shape
        return [f"{MANIFEST} is missing or unreadable"]
    problems = []
    for name, (size, digest) in written.items():
        file = directory / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file.stat().st_size != size:
            problems.append(f"{name} has {file.stat().st_size} bytes, {size} were written")
        elif hash_file(file) != digest:
            problems.append(f"{name} has changed since it was written")
    return problems


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: Path, cache: Path | None = None, only: Collection[str] = ("*",)) -> str:
    """Return the SHA-256 of a file, or of the (relative name, hash) pairs of a directory's files, see `file_hashes`.

    Of a directory, those count whose names, without folders, fit one of the patterns `only`.
    """
    if not path.is_dir():
        return file_hashes(path.parent, [path.name], cache)[path.name]
    names = [name for name in files_below(path) if any(fnmatchcase(os.path.basename(name), fit) for fit in only)]
    hashes = file_hashes(path, names, cache)
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in hashes.items()).encode()).hexdigest()


def files_below(directory: Path) -> list[str]:
    """Return the relative names of the files in and below a directory, sorted, no hidden ones. Links are followed.

    Raises OSError for a directory that cannot be read, or that links reach twice; a link to nothing is among the files.
    """
    found, folders, seen = list[str](), [""], set()
    for below in folders:  # which grows; names are text and not Path, for there may be very many
        folder = directory / below
        if (place := os.path.realpath(folder)) in seen:
            raise OSError(errno.ELOOP, "this directory is reached twice, by links", str(folder))
        seen.add(place)
        with os.scandir(folder) as entries:
            for entry in (entry for entry in entries if not entry.name.startswith(".")):
                if entry.is_dir():
                    folders.append(f"{below}{entry.name}/")
                elif entry.is_file() or entry.is_symlink():  # no pipes and devices
                    found.append(below + entry.name)
    return sorted(found)


def file_hashes(directory: Path, names: Iterable[str], cache: Path | None = None) -> dict[str, str]:
    """Return the SHA-256 of files by their `names` relative to a directory.

    `cache` is a JSON file that remembers hashes by (path, size, times of modification and change in ns, inode), if it
    can be written. Raises OSError for what does not exist or cannot be read.
    """
    known = _read_cache(cache)
    before, place = dict(known), os.path.abspath(directory)
    hashes = {name: _cached_hash(f"{place}/{name}", known) for name in names}
    if cache is not None and known != before:
        with contextlib.suppress(OSError):  # a cache may always be thrown away
            write_atomic(cache, json.dumps(known, indent=0))
    return hashes


def _cached_hash(file: str, known: dict[str, list[Any]]) -> str:
    now, stat = time.time_ns(), os.stat(file)
    # The time of change is the system's own: `cp -p` and `touch` cannot set it, as they can that of modification.
    # The inode tells files apart that a link may name by turns.
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    row = known.get(file)
    if row is not None and row[:-1] == stamp:
        return str(row[-1])
    digest = hash_file(Path(file))
    if now - stat.st_ctime_ns > SETTLED:
        known[file] = [*stamp, digest]
    return digest


def _read_cache(cache: Path | None) -> dict[str, list[Any]]:
    if cache is None or not cache.exists():
        return {}
    try:
        return dict(json.loads(cache.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
