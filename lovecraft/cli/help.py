"""`lc COMMAND [CONFIG] --help`: how a command is used, its own flags, and the options of the config it is given."""

import argparse
import shutil
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

from lovecraft.cli import COMMANDS, console, options
from lovecraft.config.render import breaks, columns
from lovecraft.errors import ConfigError

LAYOUT: Any = {"subsequent_indent": "      ", "break_on_hyphens": False, "break_long_words": False}


def explain(name: str, command: ModuleType, parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Print a command's help to stdout. What is wrong with the config that it is given is raised after all is told."""
    usage = getattr(command, "USAGE", "CONFIG [--option value …]")
    console.out(f"usage: lc {name} {usage}".rstrip() + f"\n\n{COMMANDS[name]}")
    if words := (command.__doc__ or "").partition("\n\n")[2].strip():
        console.out("\n" + words)
    flags = [(_spelled(action), action.help or "") for action in parser._actions]
    console.out("\nflags:\n" + _indent(columns(flags)))
    try:
        wrong = _options(name, command, args)
    finally:
        console.out(f"\nexample: {command.EXAMPLE}")
    if wrong:
        raise wrong


def _options(name: str, command: ModuleType, args: argparse.Namespace) -> ConfigError | None:
    """Print the options of the command, or of the config that it is given; return what is wrong with that."""
    if own := getattr(command, "OPTIONS_OF", None):
        from lovecraft.config import schema

        _list(own, getattr(schema, own), None)
    elif getattr(command, "TAKES_OPTIONS", True) and args.target is None:
        console.out(f"\nThe options of a config are flags, too: `lc {name} CONFIG --help` lists them.")
    elif getattr(command, "TAKES_OPTIONS", True):
        from lovecraft.cli.target import load_config

        try:
            loaded = load_config(args)
        except ConfigError as error:  # of a flag, where the config alone can be listed
            args.options = []
            loaded = load_config(args)
            _list(args.target, loaded.cls, loaded.root)
            return error
        return _list(args.target, loaded.cls, loaded.root)
    return None


def _list(name: str, cls: Any, root: Path | None) -> ConfigError | None:
    found, wrong = options.describe(cls, root)
    console.out(f"\noptions of {name}:\n{_listed(found)}")
    return wrong


def _spelled(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings)
    if action.nargs == 0:
        return name
    metavar = str(action.metavar or action.dest.upper())
    return f"{name} [{metavar}]" if action.nargs == "?" else f"{name} {metavar}"


def _listed(found: list[options.Described]) -> str:
    """Return the options, section by section: flag, value, type and origin, and below them the sentence."""
    width = max(40, shutil.get_terminal_size().columns)
    lines: list[str] = []
    for one, apart in zip(found, breaks([one.path for one in found]), strict=True):
        flag = options.flag_of(one.path)
        head = "  ".join(filter(None, (flag, one.value, f"({one.type})", one.origin)))
        lines += [""] if apart else []
        for text, first in ((head, "  "), (one.sentence, "      ")):
            lines += textwrap.wrap(text, width, initial_indent=first, **LAYOUT)
    return "\n".join(lines)


def _indent(text: str) -> str:
    return textwrap.indent(text, "  ")
