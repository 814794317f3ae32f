"""Print the script that lets a shell complete `lc` at TAB: commands, configs, runs, options, their values.

In bash write this line into ~/.bashrc, in zsh into ~/.zshrc below `compinit`, with the shell's own name:

    source <(lc completion bash)

In fish write it into ~/.config/fish/config.fish:

    lc completion fish | source

Where `lc` is not on the PATH, write its path there. Completion imports no config: a config's options are those of the
last time that `lc` loaded it. `lc ls --check` loads all.
"""

import argparse
import importlib
import inspect
import json
import re
import shlex
import sys
import types
import typing
from pathlib import Path
from typing import Any

from lovecraft import cli
from lovecraft.cli import candidates, console
from lovecraft.config import base, schema, source, values
from lovecraft.config.resolve import choices
from lovecraft.errors import LovecraftError

USAGE = "bash|zsh|fish"
EXAMPLE = "lc completion bash"
TAKES_OPTIONS = False

MEANT = {
    "@config": "A B CONFIG",
    "@model": "MODEL",
    "@option": "OPTION",
    "@path": "DIR DST FILE FILE.svg SRC.gguf",
    "@project": "PROJECT",
    "@run": "A B RUN",
}
"""What the words of a usage line, and a flag's METAVAR, stand for; those in small letters stand for themselves."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc completion`: none."""


def run(args: argparse.Namespace) -> int:
    """Print the script of a shell."""
    shells = USAGE.split("|")
    if args.target not in shells:
        named = f"no script for {args.target!r}" if args.target else "no shell is named"
        raise LovecraftError(named, hint=f"it can be {', '.join(shells)}")
    script = Path(__file__).with_name(f"completion.{args.target}").read_text(encoding="utf-8")
    console.out(script.replace("@CANDIDATES@", shlex.join([sys.executable, "-I", candidates.__file__])).rstrip())
    return 0


def remember(name: str, cls: Any, root: Path) -> None:
    """Write down for completion which sections a config has, and the options that users declared in it."""
    sections: dict[str, str] = {}
    own: dict[str, Any] = {}

    def visit(path: str, cls: Any) -> None:
        library = base.library_class(cls)
        sections[path.rstrip(".")] = library.__name__
        for option in cls.__options__.values():
            if option.name not in library.__options__ or not base.is_library(library):
                own[path + option.name] = _entry(cls, option)
            if option.section is not None:
                inner = getattr(cls, option.name, option.section)
                sections[path + option.name] = "none"
                if isinstance(inner, type):
                    visit(f"{path}{option.name}.", inner)

    visit("", cls)
    _write(root / candidates.CACHE / f"{name}.{cls.__qualname__}.json", {"sections": sections, "own": own})


def remember_library(root: Path | None, stamp: dict[str, Any]) -> dict[str, Any]:
    """Return what completion knows of the commands and of the library's options; write it down in the workspace."""
    commands = {name: importlib.import_module(f"lovecraft.cli.{name}") for name in cli.COMMANDS}
    classes = [cls for cls in vars(schema).values() if inspect.isclass(cls) and issubclass(cls, base.Config)]
    takes = {name: "Config" if getattr(command, "TAKES_OPTIONS", True) else "" for name, command in commands.items()}
    found = {
        "stamp": stamp,
        "commands": cli.COMMANDS,
        "flags": {name: _flags(command) for name, command in commands.items()},
        "places": {name: _places(command) for name, command in commands.items()},
        "options": {name: getattr(command, "OPTIONS_OF", takes[name]) for name, command in commands.items()},
        "classes": {cls.__name__: {n: _entry(cls, o) for n, o in cls.__options__.items()} for cls in classes},
    }
    if root:
        _write(root / candidates.CACHE / "lovecraft.json", found)
    return found


def _write(file: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False)
    try:
        if not file.is_file() or file.read_bytes() != text.encode():
            from lovecraft.files import write_atomic

            write_atomic(file, text)
    except OSError:  # a read-only workspace is completed without it
        pass


def _flags(command: types.ModuleType) -> dict[str, Any]:
    """Return flag → [sentence, values, whether it takes one: NO, MAY, or "" for yes]."""
    parser = argparse.ArgumentParser(add_help=False)
    command.add_arguments(parser)
    parser.add_argument("--help", action="store_true", help="show this")
    found: dict[str, Any] = {}
    for action in parser._actions:
        values = list(map(str, action.choices or ())) or _meant(str(action.metavar or ""))
        how = candidates.NO if action.nargs == 0 else candidates.MAY if action.nargs == "?" else ""
        found |= {flag: [action.help, values, how] for flag in action.option_strings}
    return found


def _places(command: types.ModuleType) -> list[list[str]]:
    """Return what each bare word of a command may be, as the usage line says: `project NAME | config PROJECT/NAME`."""
    usage = getattr(command, "USAGE", "CONFIG").partition("[-")[0]
    usage = re.sub(r"\[(.*?)\]", lambda optional: optional[1].replace(" ", ""), usage)
    ways = [way.split() for way in usage.split(" | ")]
    return [[v for way in ways for word in way[i : i + 1] for v in _meant(word)] for i in range(max(map(len, ways)))]


def _meant(words: str) -> list[str]:
    small = [word for word in words.split("|") if word and word == word.lower()]
    return small + [kind for kind, names in MEANT.items() if set(names.split()) & set(words.split("|"))]


def _entry(cls: Any, option: base.Option) -> list[Any]:
    """Return [sentence, values, class of the section by default, or ""] of an option."""
    if option.section is None:
        return [source.sentence(cls, option.name), list(dict.fromkeys(_values(option.hint))), ""]
    named = [name for name in choices(option.section) if not name.endswith("Config")]
    configs = f"@{option.section.__name__.removesuffix('Config')}"  # those with a class of this name
    inner = getattr(cls, option.name, option.section)
    default = "none" if inner is None else base.library_class(inner).__name__
    return [source.sentence(cls, option.name), [*named, *(["none"] if option.optional else []), configs], default]


def _values(hint: Any) -> list[str]:
    """Return the words that an option's value can be, as far as its type says; `@path` for a path."""
    plain, _ = values.unwrap(hint)
    if typing.get_origin(plain) in (typing.Union, types.UnionType):
        return [value for kind in typing.get_args(plain) for value in _values(kind)]
    known = {bool: ["true", "false"], type(None): ["none"], Path: ["@path"]}
    return known.get(plain, list(values.choices(plain)))
