"""Write a new module that subclasses a given config.

With --texts it is a dataset of the texts, rows or conversations in and below a directory, whose kind, fields and splits
are recognised; with --dataset a training on that dataset. Without --from it subclasses the workspace's Train.
"""

import argparse
import ast
import json
import re
from pathlib import Path

from lovecraft.cli import console
from lovecraft.config.load import KINDS, NAMES, Loaded, find_root, fitting, load
from lovecraft.config.schema import DatasetConfig, TrainConfig
from lovecraft.errors import ConfigError

USAGE = (
    "project NAME | config PROJECT/NAME  [--from CONFIG] [--dataset CONFIG] [--texts DIR] [--description TEXT] [--copy]"
)
EXAMPLE = "lc new project my_finetune --from finetune_lovecraft/default"
TAKES_OPTIONS = False
BARE = 2
LONGEST = 100  # characters of a description, which is one line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc new`."""
    parser.add_argument("--from", dest="base", metavar="CONFIG", help="the config to subclass")
    parser.add_argument("--dataset", metavar="CONFIG", help="what the new Train config trains on")
    parser.add_argument("--texts", metavar="DIR", help="make a dataset of what this directory, file or archive holds")
    parser.add_argument("--description", metavar="TEXT", help="what `lc ls` says of it")
    parser.add_argument("--copy", action="store_true", help="copy the source of --from instead of subclassing it")


def run(args: argparse.Namespace) -> int:
    """Write the module; print its path to stdout."""
    if len(args.bare) != 2 or args.bare[0] not in ("project", "config"):
        raise ConfigError("lc new takes `project NAME` or `config PROJECT/NAME`", hint=f"for example: {EXAMPLE}")
    if args.texts and (args.base or args.dataset):
        other = "--from subclasses a config" if args.base else "--dataset trains on one that there is"
        raise ConfigError(f"--texts makes a new dataset, {other}", hint="give one of them")
    if args.copy and not args.base:
        raise ConfigError("--copy copies a config's source, and none is named", hint="add --from CONFIG")
    if args.copy and (args.description or args.dataset):
        raise ConfigError("--copy takes the source of --from as it is, its description too", hint="give --from alone")
    root = find_root()
    parts = _parts(*args.bare)
    path = _free(root, parts, args.bare[0])
    text = _source(root, args, _description(args, parts))
    console.write(path, text, parents=True)
    console.out(str(path))
    console.say(f"next: {_next(args, '/'.join(parts))}")
    return 0


def _free(root: Path, parts: list[str], kind: str) -> Path:
    """Return the file to write. Raises ConfigError where something of that name is there, or its project is not."""
    path = root.joinpath("projects", *parts).with_suffix(".py")
    taken = [path, path.with_suffix(""), *([path.parent] if kind == "project" else [])]
    taken += [
        folder.with_suffix(".py") for folder in path.parents if folder.is_relative_to(root / "projects" / parts[0])
    ]
    if found := next((there for there in taken if there.exists()), None):
        raise ConfigError(f"{found} exists already")
    if kind == "config" and not (root / "projects" / parts[0]).is_dir():
        raise ConfigError(f"no project {parts[0]!r}", hint=f"`lc new project {parts[0]}` makes it")
    return path


def _next(args: argparse.Namespace, name: str) -> str:
    """Return what can be done with the new config as it is."""
    if args.texts:
        return f"`lc data {name}`, then `lc new project NAME --dataset {name}` to train on it"
    return f"`lc show {name}`" if args.base or args.dataset else f"`lc show {name} --dataset CONFIG`, or name one there"


def _parts(kind: str, name: str) -> list[str]:
    """Return the names of the folders and of the module to write."""
    parts = name.strip("/").split("/")
    if kind == "config" and len(parts) < 2:
        raise ConfigError(f"{name!r} names no project", hint=f"write PROJECT/{name}")
    if kind == "project" and len(parts) > 1:
        raise ConfigError(f"{name!r} is no project's name", hint=f"`lc new config {name}` makes a config in one")
    if wrong := next((part for part in parts if fitting(part) != part), ""):
        raise ConfigError(f"{wrong!r} cannot be a module's name", hint=f"write {fitting(wrong)}: {NAMES}")
    return [*parts, "default"] if kind == "project" else parts


def _description(args: argparse.Namespace, parts: list[str]) -> str:
    """Return the docstring of the new module, which is one line."""
    title = " ".join(parts).removesuffix(" default").replace("_", " ")
    said = " ".join((args.description or "").split()) or title[:1].upper() + title[1:] + "."
    if len(said) > LONGEST:
        raise ConfigError(f"--description has {len(said)} characters", hint=f"a line has room for {LONGEST}")
    return said


def _quoted(text: str) -> str:
    """Write a string as Python source: JSON's escapes are Python's."""
    return json.dumps(text, ensure_ascii=False)


def _source(root: Path, args: argparse.Namespace, description: str) -> str:
    """Return the new module's text."""
    if args.texts:
        return _dataset(root, Path(args.texts), description)
    if args.copy:
        return _copied(load(args.base, root=root))
    imports, base, example = "import workspace", "workspace.Train", "dataset = ..."
    if args.base:
        loaded = _load(args.base, root, (TrainConfig,) if args.dataset else tuple(KINDS.values()))
        package, _, module = _name(loaded).rpartition(".")
        imports, base, example = f"from {package} import {module}", f"{module}.{loaded.cls.__name__}", "option = value"
    body = f"    pass  # write what differs here, as `{example}`"
    if args.dataset:
        found = _load(args.dataset, root, (DatasetConfig,))
        name = found.cls.__name__
        imports = "\n".join(
            sorted([imports, f"from {_name(found)} import {name}"], key=lambda line: (line[0] == "f", line))
        )
        body = f"    dataset = {name}\n    # what differs is written here, as `epochs = 2`"
    return _module(description, imports, f"{base.rpartition('.')[2]}({base})", body)


def _load(name: str, root: Path, kinds: tuple[type, ...]) -> Loaded:
    loaded = load(name, root=root)
    if not issubclass(loaded.cls, kinds):
        raise ConfigError(f"{name} is no {' or '.join(k.__name__ for k in kinds)}", hint="`lc ls` lists the configs")
    return loaded


def _name(loaded: Loaded) -> str:
    """Return the name that Python imports a config's module by."""
    return "projects." + loaded.name.replace("/", ".")


def _module(description: str, imports: str, head: str, body: str) -> str:
    return f'""{_quoted(description)}""\n\n{imports}\n\n\nclass {head}:\n{body}\n'


def _copied(loaded: Loaded) -> str:
    """Return a config's source with its relative imports made absolute; say which lines name the file itself."""
    file = (loaded.root / "projects" / loaded.name).with_suffix(".py")
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = ".".join(_name(loaded).split(".")[: -node.level])
            module = f"{package}.{node.module}" if node.module else package
            lines[node.lineno - 1] = re.sub(r"from\s+\.[\w.]*", f"from {module}", lines[node.lineno - 1])
        elif isinstance(node, ast.Name) and node.id == "__file__":
            console.say(f"line {node.lineno} uses __file__, which is the copy's own now")
    return "".join(lines)


def _dataset(root: Path, texts: Path, description: str) -> str:
    from lovecraft.data.recognition import recognise

    place = texts.expanduser().resolve()
    if not place.exists():
        raise ConfigError(f"--texts {texts}: no such directory or file")
    options, notes = recognise(place)
    for note in notes:
        console.say(note)
    inside = place.is_relative_to(root)
    name = _quoted(place.relative_to(root).as_posix() if inside else str(place))
    imports = "from lovecraft import DatasetConfig\nfrom workspace import ROOT"
    if not inside:
        imports = f"from pathlib import Path\n\n{imports.splitlines()[0]}"
    body = [f"    source = ROOT / {name}" if inside else f"    source = Path({name})"]
    for option, value in options.items():
        written = f"({_quoted(value[0])},)" if isinstance(value, tuple) else json.dumps(value, ensure_ascii=False)
        body.append(f"    {option} = {written}" + "  # held out of train" * option.startswith("validation"))
    return _module(description, imports, "Dataset(DatasetConfig)", "\n".join(body))
