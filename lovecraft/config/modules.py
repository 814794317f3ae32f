"""Running users' modules: served from one workspace, with stdin and stdout kept, and mistakes told with their place.

`workspace` and `projects.*` are served from the workspace's root by a finder that stands in front of everything
installed under those names.
"""

import contextlib
import importlib
import importlib.machinery
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NoReturn

from lovecraft.config import source
from lovecraft.config.names import did_you_mean
from lovecraft.errors import ConfigError

LIBRARY = Path(__file__).resolve().parents[1]
OURS = ("workspace", "projects")


_read: dict[str, tuple[int, int]] = {}
"""The users' files that were read, and their time of change and size then."""


def _stamp(file: str) -> tuple[int, int]:
    try:
        found = os.stat(file)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


class _Source(importlib.machinery.SourceFileLoader):
    """Compiles the source, whatever `__pycache__` holds: that takes a file edited twice in a second for the same."""

    def get_code(self, fullname: str) -> CodeType:
        _read[self.path] = _stamp(self.path)
        return self.source_to_code(read(self.path), self.path)


class _Finder:
    """Serves `workspace` and `projects` from one root."""

    root: Path | None = None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if self.root is None or name.partition(".")[0] not in OURS:
            return None
        if name == "projects":
            spec = importlib.machinery.ModuleSpec(name, None)
            spec.submodule_search_locations = [str(self.root / "projects")]
            return spec
        found = importlib.machinery.PathFinder.find_spec(name, [str(self.root)] if name == "workspace" else path)
        if found is not None and found.origin and found.origin.endswith(".py"):
            found.loader = _Source(name, found.origin)
        return found


_finder = _Finder()
_one_at_a_time = threading.RLock()
"""Held while modules are loaded: what `workspace` means is one for the whole process."""
_loading: list[str] = []
"""The files of the configs that are being loaded, outermost first."""
_problems: list[str] = []
"""What is wrong in the classes that these have defined so far."""


def active_root() -> Path | None:
    """Return the workspace that `workspace` and `projects` are served from now."""
    return _finder.root


def use(root: Path) -> None:
    """Serve `workspace` and `projects` from `root`; new files are seen.

    What was loaded is dropped where it was another root, or a file has changed since.
    """
    root = root.resolve()
    if _loading and _finder.root != root:
        raise ConfigError(f"{_loading[-1]}: a config of one workspace cannot load one of another, {root}")
    for folder in [p for p in sys.path_importer_cache if p.startswith(str(root))]:
        del sys.path_importer_cache[folder]
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    if _finder.root != root or (not _loading and any(_stamp(file) != then for file, then in _read.items())):
        forget()
    _finder.root = root


def forget() -> None:
    """Drop every config that was loaded, and what was read of its source: an edited file is then read again."""
    for name in [n for n in sys.modules if n.partition(".")[0] in OURS]:
        del sys.modules[name]
    _read.clear()
    source.forget()


def shorten(file: str) -> str:
    """Write a path relative to the workspace's root or to the library's parent, where it lies below one of them."""
    path = Path(file)
    for top in filter(None, (_finder.root, LIBRARY.parent)):
        if path.is_relative_to(top):
            return path.relative_to(top).as_posix()
    return file


def read(file: str) -> str:
    """Return the text of a source file. Raises ConfigError where it is no text, or cannot be read."""
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{shorten(file)}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{shorten(file)}:{line}: the text is not in UTF-8; save it as UTF-8") from None
    if "\0" in text:
        raise ConfigError(f"{shorten(file)}:{text[: text.index(chr(0))].count(chr(10)) + 1}: a null byte; remove it")
    return text


def is_users(file: str) -> bool:
    """Return whether a file is of the workspace in use: what its user wrote, not what is installed."""
    root = _finder.root
    return root is not None and (Path(file) == root / "workspace.py" or Path(file).is_relative_to(root / "projects"))


def run(name: str, root: Path) -> ModuleType:
    """Import one of the workspace's modules by its dotted name.

    Raises ConfigError for what is wrong in its classes and those that it imports, all at once, and where it prints,
    reads input, ends the process, is part of an import cycle, or imports what the workspace does not have; what it
    raises itself passes through.
    """
    with _one_at_a_time:
        use(root)
        file = f"{name.replace('.', '/')}.py"
        if file in _loading:
            raise ConfigError(f"{' → '.join([*_loading, file])}: the configs load each other")
        _loading.append(file)
        try:
            with contextlib.chdir("."), _kept_console():  # a config may change the directory for itself only
                return importlib.import_module(name)
        except ConfigError as error:
            _problems.extend([error.message] if _problems else [])
            raise
        except SystemExit as error:
            said = f"it says {error.code!r}" if isinstance(error.code, str) else f"exit code {error.code or 0}"
            raise ConfigError(
                f"{_places(error)[-1]}: ends the process when it is imported ({said})",
                hint="raise an exception there, which says what is wrong",
            ) from None
        except (ImportError, AttributeError, TypeError) as error:
            if (told := _told(error, root)) is None:
                raise
            raise told from error
        finally:
            _loading.pop()
            if _problems and not _loading:
                forget()  # the next load shall meet the problems, too
                _refuse()


def tell(problems: list[str]) -> None:
    """Raise ConfigError for what is wrong in a class; while configs are loaded keep it, to tell all of it at once."""
    _problems.extend(problems)
    if not _loading:
        _refuse()


def _refuse() -> NoReturn:
    told = in_order(_problems)
    _problems.clear()
    raise ConfigError("\n".join(told))


def in_order(problems: Iterable[str]) -> list[str]:
    """Return each problem once, those of a file together, by line."""
    once = list(dict.fromkeys(problems))
    files = list(dict.fromkeys(line.partition(":")[0] for line in once))
    at = {line: (files.index(line.partition(":")[0]), *map(int, re.findall(r"^[^:]*:(\d+):", line))) for line in once}
    return sorted(once, key=at.__getitem__)


# --- stdin and stdout ---------------------------------------------------------------------------


class _Kept:
    """Stands in for stdin or stdout: refuses the configs, serves the libraries that they import."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.loading = True

    def __getattr__(self, name: str) -> Any:
        frame = sys._getframe(1)  # print and input, which are C, look `write` and `readline` up from their caller's
        where = f"{shorten(frame.f_code.co_filename)}:{frame.f_lineno}"
        if self.loading and name.startswith(("write", "read", "buffer")) and is_users(frame.f_code.co_filename):
            line = read(frame.f_code.co_filename).splitlines()[frame.f_lineno - 1]
            if name.startswith("read") or "input(" in line:  # which first writes its question
                raise ConfigError(f"{where}: reads input when it is imported; make what it asks for an option")
            raise ConfigError(f"{where}: prints when it is imported; stdout is for data: add file=sys.stderr")
        return (lambda: None) if name == "close" else getattr(self.stream, name)  # exit() closes stdin


@contextlib.contextmanager
def _kept_console() -> Iterator[None]:
    """Keep stdout for data and stdin for the command; what a library prints while it is imported goes to stderr."""
    before = (sys.stdin, sys.stdout)
    kept: Any = (_Kept(sys.stdin), _Kept(sys.stderr))
    sys.stdin, sys.stdout = kept
    try:
        yield
    finally:
        sys.stdin, sys.stdout = before
        for stand_in, stream in zip(kept, before, strict=True):  # a logger may hold it for good
            stand_in.stream, stand_in.loading = stream, False


_aside: list[Any] = []
"""The stdout that is put aside, once for each that wants it so."""
_swapping = threading.Lock()


@contextlib.contextmanager
def stdout_aside() -> Iterator[None]:
    """Send what is printed inside to stderr, in whichever threads."""
    with _swapping:
        _aside.append(_aside[0] if _aside else sys.stdout)
        sys.stdout = sys.stderr
    try:
        yield
    finally:
        with _swapping:
            first = _aside.pop()
            sys.stdout = sys.stdout if _aside else first


# --- what went wrong ----------------------------------------------------------------------------


def _places(error: BaseException) -> list[str]:
    """Return the lines of the user's files that an exception passed through, outermost first."""
    import traceback

    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename)]
    lines = {f.filename: f"{shorten(f.filename)}:{f.lineno}" for f in frames}  # a file's innermost line counts
    return list(lines.values()) or [_loading[-1]]


def _told(error: ImportError | AttributeError | TypeError, root: Path) -> ConfigError | None:
    """Return what a failed import of the workspace's or the library's own names means; None for other errors."""
    if isinstance(error, TypeError):
        what = "a config has no base with a metaclass of its own, as ABC and Protocol have; mix in a plain class"
        return ConfigError(f"{_places(error)[-1]}: {what}") if "metaclass conflict" in str(error) else None
    name = _missing(error)
    if name.partition(".")[0] not in (*OURS, "lovecraft"):
        return None
    module, places = name.rpartition(".")[0], _places(error)
    if "circular import" in str(error):
        again = f"{module.replace('.', '/')}.py"
        start = next((i for i, place in enumerate(places) if place.startswith(f"{again}:")), 0)
        chain = " → ".join([*places[start:], again])
        return ConfigError(f"{chain}: the imports form a cycle", hint="move what both need into a module of its own")
    files = [file.relative_to(root) for file in (root / "projects").rglob("*.py")]
    known = {".".join(path.with_suffix("").parts) for file in files for path in (file, *file.parents[:-2])}
    if name in known:
        return ConfigError(
            f"{places[-1]}: {name} cannot be imported; it is no file, or a module of its folder's name hides it"
        )
    known |= {f"{module}.{inner}" for inner in dir(sys.modules.get(module)) if not inner.startswith("_")}
    beside = [other for other in known if other.startswith(f"{module}.")]
    return ConfigError(f"{places[-1]}: there is no {name}{did_you_mean(name, beside)}")


def _missing(error: ImportError | AttributeError) -> str:
    """Return the dotted name that an import, or an attribute of a module, did not find; "" for other errors."""
    if isinstance(error, ModuleNotFoundError):
        return error.name or ""
    if isinstance(error, ImportError):
        found = re.match(r"cannot import name '(\w+)'", error.msg)  # Python 3.11 has no `name_from`
        return f"{error.name}.{found[1]}" if found else ""
    return f"{error.obj.__name__}.{error.name}" if isinstance(error.obj, ModuleType) else ""
