"""The same commands without `lc`, with history and completion. `exit` or Ctrl-D leaves.

`use CONFIG` makes a config or a run the current one, and the prompt says so: `show` or `train --max-steps 10` then mean
it. `use` alone forgets it.
"""

import argparse
import contextlib
import itertools
import shlex
import sys
import traceback
from pathlib import Path
from types import ModuleType

import attrs

import lovecraft.cli as cli
from lovecraft.cli import candidates, console, report
from lovecraft.cli.words import split
from lovecraft.config import modules
from lovecraft.config.load import find, find_root
from lovecraft.config.record import find_run
from lovecraft.errors import ConfigError, LovecraftError

USAGE = "[CONFIG]"
EXAMPLE = "lc shell finetune_lovecraft"
TAKES_OPTIONS = False

OWN = {"use": "make a config or a run the current one; alone: forget it", "exit": "leave"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc shell`: none."""


def run(args: argparse.Namespace) -> int:
    """Read commands until the end of the input; return the last one's exit code."""
    session = Session(find_root())
    if args.target:
        session.use([args.target])
    history, typed = session.root / ".lc" / "history", sys.stdin.isatty()
    readline = _readline(session, history) if typed else None
    while True:
        try:
            line = input(f"lc {session.current}".rstrip() + "> " if typed else "")
        except EOFError:
            if typed:
                console.say()
            return session.code
        except KeyboardInterrupt:
            console.say()
            continue
        if readline is not None:
            with contextlib.suppress(OSError):  # a history that cannot be kept is no reason to stop
                readline.write_history_file(history)
        if session.do(line):
            return session.code


@attrs.define
class Session:
    """What the shell remembers between lines."""

    root: Path
    current: str = ""
    code: int = 0
    found: list[str] = attrs.field(factory=list)

    def use(self, words: list[str]) -> None:
        """Make a config the current one. Raises ConfigError where there is none of that name."""
        if len(words) > 1:
            raise ConfigError(f"use takes one config, not {' '.join(words)!r}")
        if words and find_run(words[0]) is None:
            find(words[0])  # not loaded: one can well use a config to mend it
        self.current = "".join(words)

    def do(self, line: str) -> bool:
        """Run the commands of a line and keep the last one's exit code; return whether the shell is to be left."""
        try:
            for words in commands(line):
                if words in (["exit"], ["quit"]):
                    return True
                self.code = self._one(words)
        except LovecraftError as error:
            report.print_error(error)
            self.code = error.exit_code
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            self.code = 1  # as Python itself ends
        return False

    def _one(self, words: list[str]) -> int:
        if words[0] == "use":
            self.use(words[1:])
            return 0
        if words[0] == "shell":
            raise ConfigError("this is lc shell already", hint="`use CONFIG` makes a config the current one")
        if words in (["help"], ["--help"]):
            console.out(cli.usage(cli.COMMANDS | OWN))
            return 0
        modules.forget()  # a config may have been edited since the last command
        return cli.main(self._named(words))

    def _named(self, words: list[str]) -> list[str]:
        """Name the current config where a command that takes one is given none; `generate "A text"` gives none."""
        if not self.current or words[0] not in cli.COMMANDS:
            return words
        command, parser = cli.command_of(words[0])
        places = candidates.places(command)
        bare = split(words[1:], parser, getattr(command, "BARE", 1)).bare
        takes = bool(places) and not {"@config", f"@{getattr(command, 'KIND', '')}"}.isdisjoint(places[0])
        none = not bare or (len(bare) < len(places) and " " in bare[0])
        return [words[0], self.current, *words[1:]] if takes and "@project" not in places[0] and none else words

    def complete(self, text: str, state: int) -> str | None:
        """Return the state-th completion of the line that readline holds."""
        import readline

        if state == 0:
            line = readline.get_line_buffer()[: readline.get_endidx()]
            asked = "shell" + line[3:] if line.startswith("use ") else line  # which takes a config, too
            word, quote, found = candidates.complete(f"lc {asked}", self.current)
            names = [*found, *(name for name in OWN if " " not in line and name.startswith(line))]
            self.found = [candidates.typed(name, word, line, quote, " ") for name in names]
        return self.found[state] if state < len(self.found) else None


def commands(line: str) -> list[list[str]]:
    """Return the commands of a line, or of several that were pasted. Raises ConfigError where a quote is left open."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="\n")
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t\r", "", True
    try:
        lines = [list(words) for ends, words in itertools.groupby(lexer, lambda word: set(word) == {"\n"}) if not ends]
    except ValueError as error:
        raise ConfigError(f"{error}".lower()) from None
    return [words[words[0] == "lc" :] for words in lines if words != ["lc"]]


def _readline(session: Session, history: Path) -> ModuleType | None:
    """Return readline with our completion and the history of earlier sessions; None in a Python without it."""
    try:
        import readline
    except ImportError:
        return None
    with contextlib.suppress(OSError):
        history.parent.mkdir(exist_ok=True)
        readline.read_history_file(history)
    readline.set_history_length(1000)
    readline.set_completer(session.complete)
    readline.set_completer_delims(" \t\n")
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in str(readline.__doc__) else "tab: complete")
    return readline
