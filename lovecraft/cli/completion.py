"""Print the script that lets a shell complete `lc` at TAB: commands, configs, runs, options, their values.

In bash write this line into ~/.bashrc, in zsh into ~/.zshrc below `compinit`, with the shell's own name:

    source <(lc completion bash)

In fish write it into ~/.config/fish/config.fish:

    lc completion fish | source

Where `lc` is not on the PATH, write its path there. Completion imports no config: a config's options are those of the
last time that `lc` loaded it. `lc ls --check` loads all.
"""

import argparse
import json
import shlex
import sys
import types
import typing
from pathlib import Path
from typing import Any

from lovecraft.cli import console
from lovecraft.config import base, schema, source, values
from lovecraft.config.resolve import choices, walk
from lovecraft.errors import LovecraftError

USAGE = "bash|zsh|fish"
EXAMPLE = "lc completion bash"
TAKES_OPTIONS = False

CANDIDATES = "lovecraft.cli.candidates"
CACHE = ".lc/cache/completion"
Entry = tuple[str, list[str], bool]
"""What is said of a flag, the words that its value can be, and whether it needs one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc completion`: none."""


def run(args: argparse.Namespace) -> int:
    """Print the script of a shell."""
    shells = USAGE.split("|")
    if args.target not in shells:
        named = f"no script for {args.target!r}" if args.target else "no shell is named"
        raise LovecraftError(named, hint=f"it can be {', '.join(shells)}")
    script = Path(__file__).with_name(f"completion.{args.target}").read_text(encoding="utf-8").rstrip()
    console.out(script.replace("@CANDIDATES@", shlex.join([sys.executable, "-P", "-m", CANDIDATES])))
    return 0


def remember(name: str, cls: Any, root: Path) -> None:
    """Write down a config's options by path: the library's class that one is of, or the entry of a user's own."""
    found: dict[str, Any] = {}
    for path, owner, option in walk(cls):
        library = base.library_class(owner)
        theirs = base.is_library(library) and option in library.__options__
        found[path] = library.__name__ if theirs else _entry(owner, option)
    text, file = json.dumps(found, ensure_ascii=False), _file(name, cls.__qualname__, root)
    try:
        if not file.is_file() or file.read_bytes() != text.encode():
            from lovecraft.files import write_atomic

            write_atomic(file, text)
    except OSError:  # a read-only workspace is completed without it
        pass


def recall(name: str, cls: str, root: Path) -> dict[str, Entry]:
    """Return the options of a config, by path, as they were when it was last loaded; none if it never was."""
    try:
        known = json.loads(_file(name, cls, root).read_bytes())
        return {
            path: _entry(getattr(schema, found), path.rpartition(".")[2]) if isinstance(found, str) else tuple(found)
            for path, found in known.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, KeyError):  # absent, damaged, or of another library
        return {}


def options_of(cls: Any, prefix: str = "") -> dict[str, Entry]:
    """Return the options of a class of the library, by path."""
    return {path: _entry(owner, name) for path, owner, name in walk(cls, prefix)}


def _file(name: str, cls: str, root: Path) -> Path:
    return root / CACHE / f"{name}.{cls}.json"


def _entry(cls: Any, name: str) -> Entry:
    option, said = cls.__options__[name], source.sentence(cls, name)
    if option.section is None:
        can_be = list(dict.fromkeys(_values(option.hint)))
        return said, can_be, "false" not in can_be
    named = [name for name in choices(option.section) if not name.endswith("Config")]
    configs = f"@{option.section.__name__.removesuffix('Config')}"  # those with a class of this name
    return said, [*named, *(["none"] if option.optional else []), configs], True


def _values(hint: Any) -> list[str]:
    """Return the words that an option's value can be, as far as its type says; `@path` for a path."""
    plain, _ = values.unwrap(hint)
    if typing.get_origin(plain) in (typing.Union, types.UnionType):
        return [value for kind in typing.get_args(plain) for value in _values(kind)]
    known = {bool: ["true", "false"], type(None): ["none"], Path: ["@path"]}
    return known.get(plain, list(values.choices(plain)))
