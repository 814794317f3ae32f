"""Reading a command line: the command's own flags, the target, and the options that follow it.

    lc train --new finetune_lovecraft --max-steps 10 --dataset.shuffle false
             own   target             options

The target is the first bare word that does not follow an option; what options exist is known only after it is loaded.
"""

import argparse
import math
from collections.abc import Callable, Sequence

import attrs


@attrs.frozen
class Words:
    """A command line, taken apart."""

    own: list[str]
    bare: list[str]
    options: list[str]


def split(argv: Sequence[str], parser: argparse.ArgumentParser, bare: int) -> Words:
    """Take `argv` apart: up to `bare` bare words, the parser's own flags, and everything else as options.

    An option's value may be joined (`--x=1`) or follow (`--x 1`, also a negative number). `--` ends the flags.
    """
    flags = {flag: action for action in parser._actions for flag in action.option_strings}
    own: list[str] = []
    found: list[str] = []
    options: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            room = bare - len(found)
            found, options = found + words[:room], options + words[room:]
            break
        name = word.partition("=")[0]
        if name in flags:
            value = [] if "=" in word else _argument(flags[name], words, targeted=len(found) == bare)
            own.append("=".join([word, *value]))  # joined, for argparse takes no value that looks like a flag
        elif is_flag(word):
            options.append(word)
            if "=" not in word and words and not is_flag(words[0]):
                options.append(words.pop(0))
        elif len(found) < bare and not (options and bare == 1):
            found.append(word)
        else:
            options.append(word)
    return Words(own, found, options)


def within(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """Return a reader of numbers between two bounds, for argparse."""
    wanted = "a whole number" if kind is int else "a number"
    bounds = f"from {low} to {high}" if high < math.inf else f"from {low}"

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected {wanted} {bounds}, not {text!r}")
        return value

    return read


def is_flag(word: str) -> bool:
    """Return whether a word is a flag; a negative number is none."""
    return word.startswith("--") or (word.startswith("-") and word[1:2].isalpha())


def _argument(action: argparse.Action, words: list[str], targeted: bool) -> list[str]:
    """Take from `words` what follows an own flag; an optional argument only where it cannot be the target."""
    if action.nargs == 0 or not words or (action.nargs == "?" and (is_flag(words[0]) or not targeted)):
        return []
    return [words.pop(0)]
