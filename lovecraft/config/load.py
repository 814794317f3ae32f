"""Finding the workspace and its configs: names to modules, modules to config classes.

`workspace` and `projects.*` are served from the workspace's root by a finder that stands in front of everything
installed under those names. Listing parses files and imports nothing.
"""

import ast
import difflib
import importlib
import importlib.machinery
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import attrs

from lovecraft.config import source
from lovecraft.config.base import Config, _Meta
from lovecraft.config.schema import DatasetConfig, ModelConfig, ServeConfig, TrainConfig
from lovecraft.errors import ConfigError

LIBRARY = Path(__file__).resolve().parents[1]
KINDS: dict[str, type[Config]] = {
    "Train": TrainConfig,
    "Dataset": DatasetConfig,
    "Model": ModelConfig,
    "Serve": ServeConfig,
}
"""The class that a module's config is called by, first match first, and what it must be."""


@attrs.frozen
class Loaded:
    """A config as the command line named it."""

    cls: Any
    name: str
    """`project/config`, without the class."""
    root: Path

    @property
    def cache(self) -> Path:
        """Where what can be built again is kept."""
        return self.root / ".lc" / "cache"


class _Source(importlib.machinery.SourceFileLoader):
    """Compiles the source, whatever `__pycache__` holds: that takes a file edited twice in a second for the same."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


class _Finder:
    """Serves `workspace` and `projects` from one root."""

    root: Path | None = None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if self.root is None or name.partition(".")[0] not in ("workspace", "projects"):
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


def use(root: Path) -> None:
    """Serve `workspace` and `projects` from `root`; what another root had loaded is dropped. New files are seen."""
    root = root.resolve()
    for folder in [p for p in sys.path_importer_cache if p.startswith(str(root))]:
        del sys.path_importer_cache[folder]
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    if _finder.root != root:
        forget()
    _finder.root = root


def forget() -> None:
    """Drop every config that was loaded, and what was read of its source: an edited file is then read again."""
    for name in [n for n in sys.modules if n.partition(".")[0] in ("workspace", "projects")]:
        del sys.modules[name]
    source.forget()


def find_root(start: Path | None = None) -> Path:
    """Return the directory at or above `start` (default: the current one) that holds workspace.py.

    Raises ConfigError where there is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "workspace.py").is_file():
            return folder
    raise ConfigError(f"no workspace.py in {start} or above", hint="`lc init` makes a workspace here")


def shorten(file: str) -> str:
    """Write a path relative to the workspace's root or to the library's parent, where it lies below one of them."""
    path = Path(file)
    for top in filter(None, (_finder.root, LIBRARY.parent)):
        if path.is_relative_to(top):
            return path.relative_to(top).as_posix()
    return file


# --- listing ------------------------------------------------------------------------------------


@attrs.frozen
class Listed:
    """One module of a project, read without importing it."""

    name: str
    description: str
    error: str = ""


def module_files(root: Path) -> dict[str, Path]:
    """Return every module below projects/ by the name a user gives it: `project/config`."""
    top = root / "projects"
    files = sorted(p for p in top.rglob("*.py") if p.name != "__init__.py" and not _private(p.relative_to(top)))
    return {p.relative_to(top).with_suffix("").as_posix(): p for p in files if p.parent != top}


def _private(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def listing(root: Path) -> Iterator[Listed]:
    """Yield the modules that define a config class, judged by their text; broken ones with their error."""
    for name, file in module_files(root).items():
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        except (SyntaxError, ValueError, OSError) as error:  # ValueError: not UTF-8, or a null byte
            line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            why = error.msg if isinstance(error, SyntaxError) else str(error)
            yield Listed(name, "", f"{file.relative_to(root).as_posix()}{line}: {why}")
            continue
        if any(isinstance(node, ast.ClassDef) and node.bases for node in tree.body):
            yield Listed(name, (ast.get_docstring(tree) or "").partition("\n")[0])


def default_of(project: str, names: list[str]) -> str | None:
    """Return which of a project's configs its bare name means: `default`, or the only one."""
    inside = [n for n in names if n.startswith(project + "/")]
    return f"{project}/default" if f"{project}/default" in inside else inside[0] if len(inside) == 1 else None


# --- loading ------------------------------------------------------------------------------------


def load(name: str | None = None, *, root: Path | None = None) -> Loaded:
    """Import the config that `name` means and return its class.

    `name` is `project/config`, `project`, a file's path, each with `:Class` or not; None is the project that the
    current directory lies in. Raises ConfigError for a name that means nothing; an error inside the user's own
    module passes through as it is.
    """
    key, wanted, root = find(name, root)
    use(root)
    try:
        module = importlib.import_module("projects." + key.replace("/", "."))
    except SystemExit as error:
        raise ConfigError(f"importing {key} ends the process (exit code {error.code})") from None
    return Loaded(_pick(module, key, wanted), key, root)


def find(name: str | None, root: Path | None = None) -> tuple[str, str, Path]:
    """Return the module's name `project/config`, the class asked for or "", and the root, without importing anything.

    Raises ConfigError like `load`.
    """
    root = (root or find_root()).resolve()
    word, _, wanted = (name or _here(root)).partition(":")
    return _key(word, root), wanted, root


def _here(root: Path) -> str:
    """Return the project that the current directory lies in."""
    projects, here = root / "projects", Path.cwd().resolve()
    if not here.is_relative_to(projects) or here == projects:
        raise ConfigError("no config is named", hint="name one, as `lc ls` lists them, or stand in a project")
    return here.relative_to(projects).parts[0]


def _key(word: str, root: Path) -> str:
    """Turn a config's name or file path into the name of its module, `project/config`."""
    files = module_files(root)
    if word.endswith(".py") or (Path(word).is_dir() and word not in files and default_of(word, list(files)) is None):
        path = Path(word).resolve()
        if not path.is_relative_to(root / "projects") or path == root / "projects":
            why = "is no model directory: it has no config.json" if path.is_dir() else "is not below projects/"
            raise ConfigError(f"{word} {why}", hint="`lc ls` lists the configs")
        word = path.relative_to(root / "projects").with_suffix("").as_posix()
    word = word.strip("/")
    config, _, number = word.rpartition("/")
    if "/" in config and number.isdigit():
        raise ConfigError(f"{word!r} names a run, which is no config", hint=f"its config is {config}")
    if part := next((p for p in word.split("/") if p[:1].isdigit()), ""):
        raise ConfigError(f"no config {word!r}: a module's name starts with a letter", hint=f"write {_lettered(part)}")
    if word in files:
        return word
    if found := default_of(word, list(files)):
        return found
    inside = [n for n in files if n.startswith(word + "/")]
    if inside:
        raise ConfigError(f"project {word!r} has no default config", hint="one of: " + ", ".join(inside))
    raise ConfigError(f"no config {word!r}{_closest(word, files)}", hint="`lc ls` lists the configs")


def _lettered(part: str) -> str:
    """Move the leading digits of a name behind its letters: `4k` → `k4`."""
    digits = part[: len(part) - len(part.lstrip("0123456789"))]
    return (part[len(digits) :].strip("_-") or "k") + digits


def _closest(word: str, files: dict[str, Path]) -> str:
    candidates = {**{n.rpartition("/")[2]: n for n in files}, **{(p := n.partition("/")[0]): p for n in files}}
    close = difflib.get_close_matches(word, files, 2) or [
        candidates[c] for c in difflib.get_close_matches(word, candidates, 2)
    ]
    return f"; did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""


def _pick(module: ModuleType, key: str, wanted: str) -> Any:
    roots = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, _Meta) and value.__module__ == module.__name__
    }
    if wanted:
        if wanted not in roots:
            raise ConfigError(f"{key} defines no config {wanted!r}", hint=f"it defines {', '.join(roots) or 'none'}")
        return roots[wanted]
    for name in KINDS:
        if name in roots:
            return roots[name]
    whole = {n: c for n, c in roots.items() if issubclass(c, tuple(KINDS.values()))}
    if len(whole) == 1:
        return next(iter(whole.values()))
    if not whole:
        raise ConfigError(f"{key} defines no config", hint="`class Train(...)` or `class Dataset(...)` would be one")
    raise ConfigError(f"{key} defines several configs", hint=f"one of: {', '.join(f'{key}:{n}' for n in whole)}")


def active_root() -> Path | None:
    """Return the workspace that `workspace` and `projects` are served from now."""
    return _finder.root
