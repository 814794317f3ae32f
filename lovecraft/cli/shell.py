"""The same commands without `lc`, with completion of commands and configs, and a history. Ctrl-D leaves."""

import argparse
import contextlib
import readline
import shlex

import lovecraft.cli as cli
from lovecraft.cli import console
from lovecraft.config.load import find_root, forget, module_files
from lovecraft.errors import ConfigError

USAGE = ""
EXAMPLE = "lc shell"
TAKES_OPTIONS = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc shell`: none."""


def run(args: argparse.Namespace) -> int:
    """Read commands until the end of the input; return the last one's exit code."""
    root = find_root()
    history = root / ".lc" / "history"
    history.parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        readline.read_history_file(history)
    readline.set_completer(_complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    code = 0
    while True:
        try:
            line = input("lc> ")
        except EOFError:
            console.say()
            return code
        except KeyboardInterrupt:
            console.say()
            continue
        readline.write_history_file(history)
        if line.strip() in ("exit", "quit"):
            return code
        code = _one(line, code)


def _one(line: str, code: int) -> int:
    try:
        words = shlex.split(line)
    except ValueError as error:
        console.say(f"error: {error}")
        return 2
    forget()  # a config may have been edited since the last command
    return cli.main(words) if words else code


def _complete(text: str, state: int) -> str | None:
    """Return the state-th completion: a command for the first word, then configs."""
    first = not readline.get_line_buffer()[: readline.get_begidx()].strip()
    try:
        names = list(cli.COMMANDS) if first else list(module_files(find_root()))
    except ConfigError:
        names = list(cli.COMMANDS)
    found = [name for name in names if name.startswith(text)]
    return found[state] if state < len(found) else None
