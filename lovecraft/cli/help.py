"""`lc COMMAND [CONFIG] --help`: how a command is used, its own flags, and the options of the config it is given."""

import argparse
import shutil
import textwrap
from types import ModuleType
from typing import Any

from lovecraft.cli import COMMANDS, console, options
from lovecraft.config.render import columns


def explain(name: str, command: ModuleType, parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Print a command's help to stdout."""
    usage = getattr(command, "USAGE", "CONFIG [--option value …]")
    console.out(f"usage: lc {name} {usage}".rstrip() + f"\n\n{COMMANDS[name]}")
    if words := (command.__doc__ or "").partition("\n\n")[2].strip():
        console.out("\n" + words)
    flags = [(_spelled(action), action.help or "") for action in parser._actions]
    console.out("\nflags:\n" + _indent(columns(flags)))
    cls = _config(command, args)
    if cls is not None:
        console.out(f"\noptions of {args.target or cls.__name__}:\n" + _listed(cls))
    console.out(f"\nexample: {command.EXAMPLE}")


def _config(command: ModuleType, args: argparse.Namespace) -> Any:
    """Return the config class whose options the help lists: the command's own, or that of the config named."""
    if own := getattr(command, "OPTIONS_OF", None):
        from lovecraft.config import schema

        return getattr(schema, own)
    if args.target is None or not getattr(command, "TAKES_OPTIONS", True):
        return None
    from lovecraft.cli.target import load_config

    return load_config(args).cls


def _spelled(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings)
    if action.nargs == 0:
        return name
    metavar = str(action.metavar or action.dest.upper())
    return f"{name} [{metavar}]" if action.nargs == "?" else f"{name} {metavar}"


def _listed(cls: Any) -> str:
    """Return two lines an option: flag, value and type; below it the sentence, wrapped to the terminal's width."""
    width = max(60, shutil.get_terminal_size().columns)
    lines = []
    for flag, kind, value, sentence in options.describe(cls):
        lines.append(f"  {flag}  {value}  ({kind})")
        lines += textwrap.wrap(sentence, width, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _indent(text: str) -> str:
    return textwrap.indent(text, "  ")
