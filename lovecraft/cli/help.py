"""`lc COMMAND [CONFIG] --help`: how a command is used, its own flags, and the options of the config it is given."""

import argparse
import shutil
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from lovecraft.cli import COMMANDS, console, options
from lovecraft.config import base, source, values
from lovecraft.config.base import Derived, Option
from lovecraft.config.render import breaks, text_of
from lovecraft.config.resolve import Row, all_rows, choices, rows_so_far
from lovecraft.errors import ConfigError


@attrs.frozen
class Described:
    """An option as `--help` lists it."""

    path: str
    type: str
    value: str
    origin: str
    sentence: str


def explain(name: str, command: ModuleType, parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Print a command's help to stdout. What is wrong with the config that it is given is raised after all is told."""
    usage = getattr(command, "USAGE", "CONFIG [--option value …]").replace(" ", "\xa0").replace("\xa0[", " [")
    usage = _filled(f"usage: lc {name} {usage}".rstrip(), "", "      ").replace("\xa0", " ")  # broken before a [ only
    console.out(f"{usage}\n\n{COMMANDS[name]}")
    for words in filter(None, (command.__doc__ or "").strip().split("\n\n")[1:]):
        console.out("\n" + (words if "   " in words else _filled(words)))  # a table, or what is to be typed
    flags = {_spelled(action): action.help or "" for action in parser._actions}
    room = max(map(len, flags)) + 4
    console.out("\nflags:")
    for flag, said in flags.items():
        console.out(_filled(f"  {flag}".ljust(room) + said, "", " " * min(room, _width() // 2)))
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
    found, wrong = describe(cls, root)
    console.out(f"\noptions of {name}:\n{_listed(found)}")
    return wrong


def _spelled(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings)
    if action.nargs == 0:
        return name
    metavar = str(action.metavar or action.dest.upper())
    return f"{name} [{metavar}]" if action.nargs == "?" else f"{name} {metavar}"


def _width() -> int:
    return max(40, shutil.get_terminal_size().columns)


def _filled(text: str, first: str = "", rest: str = "") -> str:
    """Return a text in lines of the terminal's width; no word is broken."""
    lines = {"initial_indent": first, "subsequent_indent": rest}
    return textwrap.fill(text, _width(), **lines, break_on_hyphens=False, break_long_words=False)


def _listed(found: list[Described]) -> str:
    """Return the options, section by section: flag, value, type and origin, and below them the sentence."""
    lines: list[str] = []
    for one, apart in zip(found, breaks([one.path for one in found]), strict=True):
        flag = options.flag_of(one.path)
        head = "  ".join(filter(None, (flag, one.value, f"({one.type})", one.origin)))
        lines += [""] if apart else []
        lines += [_filled(text, first, "      ") for text, first in ((head, "  "), (one.sentence, "      ")) if text]
    return "\n".join(lines)


def describe(cls: Any, root: Path | None) -> tuple[list[Described], ConfigError | None]:
    """Return every option of a config, also of one that is not complete, or wrong; and what is wrong with it."""
    wrong = None
    try:
        found = {row.path: row for row in all_rows(cls)}
    except ConfigError as error:
        found, wrong = {row.path: row for row in rows_so_far(cls)}, error
    return [_described(path, owner, name, found.get(path), root) for path, owner, name in options.walk(cls)], wrong


def _described(path: str, owner: Any, name: str, row: Row | None, root: Path | None) -> Described:
    option, history = owner.__options__[name], base.history(owner, name)
    raw, origin = history[0] if history else (None, base.origin_of(owner, name))
    value = "required" if not history else "derived" if isinstance(raw, Derived) else getattr(raw, "__name__", raw)
    shown = text_of(row.value if row else value, root)
    return Described(path, _kind(option), shown, base.place(origin) if history else "", source.sentence(owner, name))


def _kind(option: Option) -> str:
    if option.section is None:
        return values.name_type(option.hint).replace("'", "")
    return ", ".join([*choices(option.section), *(["none"] if option.optional else []), "or a config"])
