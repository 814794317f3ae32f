"""The `lc` command: a table of commands, one of which is imported and run."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

from lovecraft.cli import console, report, words
from lovecraft.config.names import did_you_mean
from lovecraft.errors import LovecraftError

COMMANDS = {
    "init": "make a workspace",
    "new": "write a new project or config that subclasses another",
    "ls": "list projects and configs",
    "show": "print a resolved config, a run or a model",
    "diff": "print what differs between two configs or runs",
    "data": "look at a dataset: splits, texts, blocks, lengths",
    "build": "bring the tokenizer, blocks and model of a config up to date",
    "plan": "predict memory, steps and time before loading anything",
    "train": "build what is missing, train, resume",
    "runs": "list runs, or show one",
    "stop": "ask a running training to save and stop",
    "eval": "measure the loss on held-out text",
    "convert": "turn a model into a model directory or a GGUF file",
    "serve": "serve a model over the OpenAI API",
    "generate": "continue a text",
    "chat": "talk to a model",
    "edit": "open a config in the editor",
    "doctor": "say what this machine has and what is missing",
    "shell": "the same commands without `lc`",
    "completion": "print the script that lets a shell complete `lc` at TAB",
}

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the only place where errors become messages."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"] and len(arguments) > 1:  # `lc help train` is `lc train --help`
        arguments = [*arguments[1:], "--help"]
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            console.out(usage())
            return 0
        if arguments[0] == "--version":
            from lovecraft import __version__

            console.out(f"lovecraft {__version__}")
            return 0
        return _run(arguments[0], arguments[1:])
    except LovecraftError as error:
        report.print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if not report.print_user_frames(error):
            raise
        return LovecraftError.exit_code


def usage(commands: Mapping[str, str] = COMMANDS) -> str:
    """Return the help of `lc` itself."""
    width = max(map(len, commands))
    lines = [f"  {name.ljust(width)}  {line}" for name, line in commands.items()]
    return "\n".join(
        [
            "usage: lc COMMAND [CONFIG] [--option value …]",
            "",
            "lovecraft finetunes language models from configs written as Python classes.",
            "",
            *lines,
            "",
            "`lc COMMAND --help` explains one; `lc COMMAND CONFIG --help` lists the config's options.",
        ]
    )


def _run(name: str, argv: list[str]) -> int:
    if name not in COMMANDS:
        raise LovecraftError(f"no command {name!r}{did_you_mean(name, COMMANDS)}", hint="`lc --help` lists them")
    command, parser = command_of(name)
    split = words.split(argv, parser, getattr(command, "BARE", 1))
    args = parser.parse_args(split.own)
    args.argv = [name, *argv]
    args.target, args.bare, args.options = (split.bare[0] if split.bare else None), split.bare, split.options
    if args.help:
        from lovecraft.cli.help import explain

        explain(name, command, parser, args)
        return 0
    if split.options and not getattr(command, "TAKES_OPTIONS", True):
        raise LovecraftError(f"lc {name} takes no {split.options[0]!r}", hint=f"`lc {name} --help` lists its flags")
    return int(command.run(args))


def command_of(name: str) -> tuple[ModuleType, "Parser"]:
    """Return a command's module, and the parser of its own flags."""
    command = importlib.import_module(f"lovecraft.cli.{name}")
    parser = Parser(prog=f"lc {name}", add_help=False, allow_abbrev=False, argument_default=None)
    command.add_arguments(parser)
    parser.add_argument("-h", "--help", action="store_true", help="show this")
    return command, parser


class Parser(argparse.ArgumentParser):
    """argparse with our errors: a message and a hint, no usage dump."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise LovecraftError."""
        raise LovecraftError(f"{self.prog}: {message}", hint=f"`{self.prog} --help` shows how it is used")
