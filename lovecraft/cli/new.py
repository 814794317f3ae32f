"""Write a new module that subclasses a given config.

With --texts it is a dataset of the .txt files in and below a directory; without --from it subclasses the workspace's
Train.
"""

import argparse
import glob
import json
import keyword
from pathlib import Path

from lovecraft.cli import console
from lovecraft.config.load import find_root, load
from lovecraft.errors import ConfigError

USAGE = "project NAME | config PROJECT/NAME  [--from CONFIG] [--texts DIR] [--description TEXT] [--copy]"
EXAMPLE = "lc new project my_finetune --from finetune_lovecraft/default"
TAKES_OPTIONS = False
BARE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc new`."""
    parser.add_argument("--from", dest="base", metavar="CONFIG", help="the config to subclass")
    parser.add_argument("--texts", metavar="DIR", help="make a dataset of the .txt files in and below this directory")
    parser.add_argument("--description", metavar="TEXT", help="what `lc ls` says of it")
    parser.add_argument("--copy", action="store_true", help="copy the source of --from instead of subclassing it")


def run(args: argparse.Namespace) -> int:
    """Write the module; print its path to stdout."""
    if len(args.bare) != 2 or args.bare[0] not in ("project", "config"):
        raise ConfigError("lc new takes `project NAME` or `config PROJECT/NAME`", hint=f"for example: {EXAMPLE}")
    if args.texts and args.base:
        raise ConfigError("--texts makes a new dataset, --from subclasses a config", hint="give one of them")
    if args.copy and not args.base:
        raise ConfigError("--copy copies a config's source, and none is named", hint="add --from CONFIG")
    if args.copy and args.description:
        raise ConfigError("--copy takes the source of --from as it is, its description too", hint="give --from alone")
    root = find_root()
    parts = _parts(*args.bare)
    path = root.joinpath("projects", *parts).with_suffix(".py")
    if path.exists() or (args.bare[0] == "project" and path.parent.exists()):
        raise ConfigError(f"{path} exists already")
    text = _source(root, args, " ".join(parts).removesuffix(" default").replace("_", " "))
    console.write(path, text, parents=True)
    console.out(str(path))
    console.say(f"next: {_next(args, '/'.join(parts))}")
    return 0


def _next(args: argparse.Namespace, name: str) -> str:
    """Return what can be done with the new config as it is."""
    if args.texts:
        return f"`lc data {name}`"
    return f"`lc show {name}`" if args.base else f"name its dataset there, or try `lc show {name} --dataset CONFIG`"


def _parts(kind: str, name: str) -> list[str]:
    """Return the names of the folders and of the module to write."""
    parts = name.strip("/").split("/")
    if kind == "config" and len(parts) < 2:
        raise ConfigError(f"{name!r} names no project", hint=f"write PROJECT/{name}")
    if kind == "project" and len(parts) > 1:
        raise ConfigError(f"{name!r} is no project's name", hint=f"`lc new config {name}` makes a config in one")
    for part in parts:
        if keyword.iskeyword(part):
            raise ConfigError(f"{part!r} is a word of Python itself", hint=f"write {part}s, or any other name")
        if not (part.isidentifier() and part[0].isalpha()):
            raise ConfigError(f"{part!r} is not a module name", hint="letters, digits and _, a letter first")
    return [*parts, "default"] if kind == "project" else parts


def _quoted(text: str) -> str:
    """Write a string as Python source: JSON's escapes are Python's."""
    return json.dumps(text, ensure_ascii=False)


def _source(root: Path, args: argparse.Namespace, title: str) -> str:
    """Return the new module's text."""
    description = args.description or title[:1].upper() + title[1:] + "."
    if args.texts:
        return _dataset(root, Path(args.texts), description)
    if args.base is None:
        return _subclass(description, "import workspace", "class Train(workspace.Train)", "dataset = ...")
    loaded = load(args.base, root=root)
    package, _, module = ("projects." + loaded.name.replace("/", ".")).rpartition(".")
    if args.copy:
        return (root / "projects" / loaded.name).with_suffix(".py").read_text(encoding="utf-8")
    cls = loaded.cls.__name__
    return _subclass(description, f"from {package} import {module}", f"class {cls}({module}.{cls})", "option = value")


def _subclass(description: str, imports: str, head: str, example: str) -> str:
    return (
        f'""{_quoted(description)}""\n\n{imports}\n\n\n{head}:\n    pass  # write what differs here, as `{example}`\n'
    )


def _dataset(root: Path, texts: Path, description: str) -> str:
    from lovecraft.data.sources import list_files

    directory = texts.expanduser().resolve()
    if not directory.is_dir():
        raise ConfigError(f"--texts {texts}: no such directory")
    found = [file.name for file in list_files(directory) if file.name.endswith(".txt")]
    if not found:
        raise ConfigError(f"--texts {texts}: it holds no .txt file")
    inside = directory.is_relative_to(root)
    name = _quoted(directory.relative_to(root).as_posix() if inside else str(directory))
    source = f"ROOT / {name}" if inside else f"Path({name})"
    imports = "from lovecraft import DatasetConfig\nfrom workspace import ROOT"
    if not inside:
        imports = f"from pathlib import Path\n\n{imports.splitlines()[0]}"
    pattern = _quoted(glob.escape(found[-1]))
    held_out = f"    validation = ({pattern},)  # held out of train\n" if len(found) > 1 else ""
    console.say(f"{len(found):,} texts" + (f"; {found[-1]} is held out of train" if held_out else ", none held out"))
    body = f'    source = {source}\n    train = ("*.txt",)\n{held_out}'
    return f'""{_quoted(description)}""\n\n{imports}\n\n\nclass Dataset(DatasetConfig):\n{body}'
