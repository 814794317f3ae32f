"""Finding the workspace and its configs: names to modules, modules to config classes.

Listing parses files and imports nothing.
"""

import ast
import builtins
import inspect
import keyword
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from lovecraft.config import modules
from lovecraft.config.base import Config, _Meta, written
from lovecraft.config.modules import read
from lovecraft.config.names import did_you_mean, nearest
from lovecraft.config.schema import DatasetConfig, ModelConfig, ServeConfig, TrainConfig
from lovecraft.errors import ConfigError

KINDS: dict[str, type[Config]] = {
    "Train": TrainConfig,
    "Dataset": DatasetConfig,
    "Model": ModelConfig,
    "Serve": ServeConfig,
}
"""The class that a module's config is called by, first match first, and what it must be."""

NAMES = "letters a-z, digits and _, a letter first"
"""What modules are called: imports can spell no other name."""


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


def find_root(start: Path | None = None) -> Path:
    """Return the directory at or above `start` (default: the current one) that holds workspace.py.

    Raises ConfigError where there is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "workspace.py").is_file():
            return folder
    raise ConfigError(f"no workspace.py in {start} or above", hint="`lc init` makes a workspace here")


# --- listing ------------------------------------------------------------------------------------


@attrs.frozen
class Listed:
    """One module of a project, read without importing it."""

    name: str
    description: str = ""
    error: str = ""
    classes: tuple[str, ...] = ()
    """Those that may be configs."""


def module_files(root: Path) -> dict[str, Path]:
    """Return every module below projects/ by the name a user gives it: `project/config`."""
    found = (path for path in _sources(root) if not path.name.startswith("_"))
    return {path.relative_to(root / "projects").with_suffix("").as_posix(): path for path in found}


def _sources(root: Path) -> list[Path]:
    """Return the files in the folders of projects/, links followed; of a folder that cannot be read its default.py."""
    top, seen, found = root / "projects", set[str](), list[Path]()

    def unreadable(error: OSError) -> None:
        found.append(Path(error.filename, "default.py"))

    for folder, inner, files in os.walk(top, onerror=unreadable, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith((".", "_"))]
        found.extend(Path(folder, name) for name in (*inner, *files) if name.endswith(".py"))
        real = os.path.realpath(folder)
        inner[:] = [] if real in seen else inner  # a link to a folder above
        seen.add(real)
    return sorted(path for path in found if path.parent != top)


def listing(root: Path) -> Iterator[Listed]:
    """Yield the modules that define a config class, judged by their text; broken ones with their error."""
    names = (path.relative_to(root / "projects").with_suffix("").as_posix() for path in _sources(root))
    found = (listed(root, name) for name in names if "/_" not in name or name.endswith("/__init__"))
    return (item for item in found if item.classes or item.error)


def listed(root: Path, name: str) -> Listed:
    """Return what a module's text says of it."""
    place = f"projects/{name}.py"
    try:
        tree = ast.parse(read(str(root / place)), place)
    except SyntaxError as error:
        return Listed(name, error=f"{place}:{error.lineno}: {error.msg}")
    except ConfigError as error:
        return Listed(name, error=error.message.replace(f"{root}/", ""))
    classes, part = tuple(_configs_in(tree)), _unfit(name)
    wrong = f"{place}: {part!r} cannot be a module's name; write {fitting(part)}" if part and classes else ""
    return Listed(name, (ast.get_docstring(tree) or "").partition("\n")[0], wrong, classes)


def _configs_in(tree: ast.Module) -> Iterator[str]:
    """Yield the classes that may be configs: those called so, or with a base that is not known to be no config."""
    strange = set(vars(builtins))
    for node in tree.body:
        if isinstance(node, ast.Import):
            strange |= {(a.asname or a.name).partition(".")[0] for a in node.names if not _ours(a.name)}
        elif isinstance(node, ast.ImportFrom) and not node.level and not _ours(str(node.module)):
            strange |= {a.asname or a.name for a in node.names}
        elif isinstance(node, ast.ClassDef):
            bases = {re.split(r"[.\[]", ast.unparse(base))[0] for base in node.bases}
            if bases and (node.name in KINDS or not bases <= strange):
                yield node.name
            else:
                strange.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):  # a function may make one
            yield from (target.id for target in node.targets if isinstance(target, ast.Name) and target.id in KINDS)


def _ours(module: str) -> bool:
    return module.partition(".")[0] in (*modules.OURS, "lovecraft")


def default_of(project: str, names: Iterable[str], root: Path | None = None) -> str | None:
    """Return which of a project's configs its bare name means: `default`, or the only one.

    With the root given, `names` are modules, of which those that define no config do not count.
    """
    inside = [n for n in names if n.startswith(project + "/")]
    if f"{project}/default" in inside:
        return f"{project}/default"
    if root is not None and len(inside) > 1:
        inside = [n for n in inside if (item := listed(root, n)).classes or item.error]
    return inside[0] if len(inside) == 1 else None


# --- loading ------------------------------------------------------------------------------------


def load(name: str | None = None, *, root: Path | None = None, kind: Any = Config) -> Loaded:
    """Import the config that `name` means and return its class.

    `name` is `project/config`, `project`, a file's path, each with `:Class` or not; None is the project that the
    current directory lies in. Of a module that defines several, it is the first that is of the given kind.
    Raises ConfigError for a name that means nothing, and for a config of another kind; an error inside the user's
    own module passes through as it is.
    """
    if not (isinstance(kind, _Meta) and issubclass(kind, Config)):
        raise ConfigError(f"{kind!r} is no kind of config", hint="write kind=TrainConfig, or another config class")
    key, wanted, root = find(name, root)
    module = modules.run("projects." + key.replace("/", "."), root)
    return Loaded(_pick(module, key, wanted, kind), key, root)


def find(name: str | None, root: Path | None = None) -> tuple[str, str, Path]:
    """Return the module's name `project/config`, the class asked for or "", and the root, without importing anything.

    Raises ConfigError like `load`.
    """
    root = (root or find_root(_absolute(name))).resolve()
    word, _, wanted = (name or _here(root)).partition(":")
    return _key(word, root), wanted, root


def _absolute(name: str | None) -> Path | None:
    """Return a name that is a file's whole path, which also says where its workspace is."""
    return Path(name) if name and Path(name).is_absolute() else None


def _here(root: Path) -> str:
    """Return the project that the current directory lies in: the innermost folder with a config of its own."""
    projects, here = root / "projects", Path.cwd().resolve()
    if not here.is_relative_to(projects) or here == projects:
        raise ConfigError("no config is named", hint="name one, as `lc ls` lists them, or stand in a project")
    names, inside = module_files(root), here.relative_to(projects)
    folders = [folder.as_posix() for folder in (inside, *inside.parents[:-1])]
    return next((folder for folder in folders if default_of(folder, names, root)), folders[-1])


def _key(word: str, root: Path) -> str:
    """Turn a config's name or file path into the name of its module, `project/config`."""
    files = module_files(root)
    if word.endswith(".py") or (Path(word).is_dir() and word not in files and default_of(word, files, root) is None):
        path = Path(word).resolve()
        if not path.is_relative_to(root / "projects") or path == root / "projects":
            why = "is no model directory: it has no config.json" if path.is_dir() else "is not below projects/"
            raise ConfigError(f"{word} {why}", hint="`lc ls` lists the configs")
        word = path.relative_to(root / "projects").with_suffix("").as_posix()
    word = word.strip("/")
    if word not in files:
        word = word.removeprefix("projects/")
    config, _, number = word.rpartition("/")
    if "/" in config and number.isdigit():
        raise ConfigError(f"{word!r} names a run, which is no config", hint=f"its config is {config}")
    key = word if word in files else default_of(word, files, root) or word
    if "." not in key and (part := _unfit(key)):
        why = f"{part!r} cannot be a module's name"
        raise ConfigError(f"no config {word!r}: {why}", hint=f"write {fitting(part)}: {NAMES}")
    if key in files:
        return key
    if inside := [n for n in files if n.startswith(word + "/")]:
        raise ConfigError(f"project {word!r} has no default config", hint="one of: " + ", ".join(inside))
    if (root / "projects" / f"{word}.py").is_file():
        raise ConfigError(f"projects/{word}.py lies in no project", hint=f"move it to projects/{word}/default.py")
    close = " or ".join(nearest(word, {**files, **{name.partition("/")[0]: None for name in files}}, "/"))
    raise ConfigError(
        f"no config {word!r}" + (f"; did you mean {close}?" if close else ""), hint="`lc ls` lists the configs"
    )


def fitting(name: str) -> str:
    """Return the nearest name that a module can have: `4k` → `k4`, `my-config` → `my_config`, `naïve` → `naive`."""
    if name == "__init__":
        return "default"
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.sub(r"\W+", "_", plain)
    rest = words.lstrip("0123456789_")
    digits = words[: len(words) - len(rest)].replace("_", "")
    found = (rest or "k") + digits
    return f"{found}_" if keyword.iskeyword(found) else found


def _unfit(key: str) -> str:
    """Return the first part of a config's name that no import statement could name; "" for none."""
    return next((part for part in key.split("/") if fitting(part) != part), "")


def _pick(module: ModuleType, key: str, wanted: str, kind: Any) -> Any:
    """Return the class of a module that is its config of the given kind, or the one that is asked for."""
    roots = {n: c for n, c in vars(module).items() if isinstance(c, _Meta) and c.__module__ == module.__name__}
    kinds = tuple(KINDS.values()) if kind is Config and not wanted else kind
    found = {n: c for n, c in roots.items() if issubclass(c, kinds) and wanted in ("", n)}
    for name, must_be in KINDS.items():
        if name in found and issubclass(found[name], must_be):
            return found[name]
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ConfigError(f"{key} defines several configs", hint=f"one of: {', '.join(f'{key}:{n}' for n in found)}")
    raise _no_config(module, key, wanted, kind, roots)


def _no_config(module: ModuleType, key: str, wanted: str, kind: Any, roots: dict[str, Any]) -> ConfigError:
    """Return what to say of a module without the config that is asked for."""
    name = wanted or next((n for n in KINDS if n in vars(module)), "")
    value = vars(module).get(name)
    if isinstance(value, type) and not isinstance(value, _Meta) and value.__module__ == module.__name__:
        place, base = f"projects/{key}.py:{inspect.getsourcelines(value)[1]}", KINDS.get(name, TrainConfig).__name__
        return ConfigError(f"{place}: {name} is no config", hint=f"write `class {name}({base}):`")
    if isinstance(value, _Meta) and value.__module__ != module.__name__:
        what = f"{key} only imports {name}, which is {value.__qualname__} of {value.__module__}"
        return ConfigError(what, hint=f"write `class {name}(...):` here, with it as the base")
    if kind is not Config and roots and wanted in ("", *roots):
        got = wanted or next((n for n in KINDS if n in roots), next(iter(roots)))
        return ConfigError(f"{written(roots[got])}: expected {kind.__name__}, got {got}")
    if wanted:
        return ConfigError(f"{key} defines no config {wanted!r}{did_you_mean(wanted, roots)}")
    return ConfigError(f"{key} defines no config", hint="`class Train(...)` or `class Dataset(...)` would be one")
