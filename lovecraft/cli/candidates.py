"""What TAB offers for a line. The printed scripts run this module.

It imports no config: a config's options are those that `lc` wrote down when it last loaded it (completion.py), stale or
not; without such a note, the library's options are offered.
"""

import argparse
import itertools
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from lovecraft.cli import COMMANDS, command_of, completion, words
from lovecraft.cli.completion import Entry
from lovecraft.cli.options import flag_of
from lovecraft.config import schema
from lovecraft.config.load import KINDS, default_of, find, find_root, listed, module_files
from lovecraft.errors import ConfigError

Pairs = Iterable[tuple[str, str]]
"""Words with what is said beside each."""
END = "\0"
MEANT = {
    "@config": "A B CONFIG",
    "@model": "MODEL",
    "@option": "OPTION",
    "@path": "DIR DST FILE FILE.svg SRC.gguf",
    "@project": "PROJECT",
    "@run": "A B RUN",
}
"""What the words of a usage line, and a flag's METAVAR, stand for; those in small letters stand for themselves."""


def main(shell: str, line: str, breaks: str = "") -> None:
    """Print the candidates, one a line, as a shell wants them; `breaks` is bash's COMP_WORDBREAKS."""
    text, quote, found = complete(line)
    for word, said in found.items():
        if shell == "bash":
            said = typed(word, text, line, quote, "" if quote else breaks.replace(" ", ""))
        elif shell == "zsh":
            said = re.sub(r"([\\:])", r"\\\1", word) + f":{said}"
        else:
            said = f"{word}\t{said}"
        sys.stdout.write(said + "\n")


def typed(word: str, text: str, line: str, quote: str, breaks: str) -> str:
    """Return what readline is to put for the word that it sees, which begins at a quote or after one of `breaks`."""
    seen = line.rpartition(quote)[2] if quote else text
    rest = word[len(text) - len(seen) + max((seen.rfind(mark) for mark in breaks), default=-1) + 1 :]
    return rest if quote else re.sub(r"([^\w@%+=:,./~-])", r"\\\1", rest) + ("" if rest.endswith(("/", "=")) else " ")


def complete(line: str, current: str = "") -> tuple[str, str, dict[str, str]]:
    """Return the word that the line ends in, the quote open around it, and what it may become, each with a sentence.

    `current` is the config that is meant where the line names none.
    """
    for quote in ("", '"', "'"):
        try:
            words = shlex.split(line + END + quote)
        except ValueError:  # that quote is not the open one
            continue
        text = words.pop().removesuffix(END)
        found = {word: said for word, said in _offered(words[1:], text, current) if word.startswith(text)}
        return text, quote, {w: "".join(filter(str.isprintable, s)) for w, s in found.items() if w.isprintable()}
    return "", "", {}


def _offered(given: list[str], text: str, current: str) -> Pairs:
    if given in ([], ["help"]):
        yield from COMMANDS.items()
    if not given or given[0] not in COMMANDS:
        return
    command, parser = command_of(given[0])
    root = _root()
    bare = words.split(given[1:], parser, getattr(command, "BARE", 1)).bare
    options = _options(command, given, bare[0] if bare else current)
    flags = {flag: _of_action(action) for action in parser._actions for flag in action.option_strings}
    flags |= {flag_of(path): entry for path, entry in options.items()}
    name, joined, value = text.partition("=")
    if joined and name in flags:
        yield from ((f"{name}={word}", said) for word, said in _values(flags[name][1], root, value, options))
        return
    _, can_be, needed = flags.get(given[-1], ("", [], False))
    left = [] if needed else places(command)[len(bare) :]
    for part, path in getattr(command, "PARTS", {}).items():
        if not any(f".{one}".endswith(f".{path}") for one in options):
            left = [[word for word in place if word != part] for place in left]
    if not text.startswith("-"):
        yield from _values(can_be + (left[0] if left else []), root, text, options)
    if text.startswith("-") or not (needed or left):
        yield from ((flag, entry[0]) for flag, entry in flags.items())
        yield from (("--no-" + flag[2:], entry[0]) for flag, entry in flags.items() if "false" in entry[1])


def _of_action(action: argparse.Action) -> Entry:
    can_be = list(map(str, action.choices or ())) or _meant(str(action.metavar or ""))
    return action.help or "", can_be, action.nargs not in (0, "?")


def places(command: ModuleType) -> list[list[str]]:
    """Return what each bare word of a command may be, as the usage line says: `project NAME | config PROJECT/NAME`."""
    usage = getattr(command, "USAGE", "CONFIG").partition("[-")[0]
    usage = re.sub(r"\[(.*?)\]", lambda optional: optional[1].replace(" ", ""), usage)
    ways = [way.split() for way in usage.split(" | ")]
    found = [[v for way in ways for word in way[i : i + 1] for v in _meant(word)] for i in range(max(map(len, ways)))]
    return [[f"@{getattr(command, 'KIND', 'config')}" if v == "@config" else v for v in place] for place in found]


def _meant(usage: str) -> list[str]:
    small = [word for word in usage.split("|") if word and word == word.lower()]
    return small + [kind for kind, names in MEANT.items() if set(names.split()) & set(usage.split("|"))]


def _root() -> Path | None:
    try:
        return find_root()
    except ConfigError:
        return None


def _options(command: ModuleType, given: Sequence[str], target: str) -> dict[str, Entry]:
    """Return the options, by path, that a command takes with its target and the sections that the line swaps."""
    if not getattr(command, "TAKES_OPTIONS", True):
        return {}
    of = getattr(command, "OPTIONS_OF", "")
    found = completion.options_of(getattr(schema, of)) if of else _of_config(target)
    for flag, value in [*itertools.pairwise(given), *(word.split("=", 1) for word in given if "=" in word)]:
        path, section = flag[2:].replace("-", "_"), getattr(schema, value, None)
        if path in found and (value == "none" or hasattr(section, "__options__")):
            found = {one: entry for one, entry in found.items() if not one.startswith(f"{path}.")}
            found |= completion.options_of(section, f"{path}.") if section else {}
    return found


def _of_config(target: str) -> dict[str, Entry]:
    try:
        key, wanted, root = find(re.sub(r"^runs/|/\d+/?$", "", target))
    except ConfigError:
        return completion.options_of(schema.TrainConfig) if target else {}
    classes = listed(root, key).classes
    cls = wanted or next(iter([*(name for name in KINDS if name in classes), *classes]), "")
    return completion.recall(key, cls, root) or completion.options_of(KINDS.get(cls, schema.TrainConfig))


# --- values, and the words that name things -----------------------------------------------------------


def _values(can_be: Sequence[str], root: Path | None, text: str, options: dict[str, Entry]) -> Pairs:
    """Yield the values that are words, and what those that begin with `@` stand for."""
    for value in can_be:
        if value == "@option":
            yield from ((path, entry[0]) for path, entry in options.items())
        elif value == "@project":
            yield from ((name.partition("/")[0], "") for name in _modules(root))
        elif value == "@run":
            config = text.rpartition("/")[0] or "-"
            runs = root.glob(f"runs/{config}/*/record.json") if root else []
            yield from ((f"{config}/{file.parent.name}", "a run") for file in sorted(runs))
        elif value == "@model":
            yield from ((path[:-1], "a model") for path, _ in _paths("models/") if Path(path, "config.json").is_file())
            yield from _paths(text, ".gguf") if text else ()
        elif value == "@path":
            yield from _paths(text)
        elif value[0] == "@":
            yield from _configs(root, text, value[1:])
            yield from _paths(text, ".py") if "/" in text else ()
        else:
            yield value, ""


def _paths(text: str, ending: str = "") -> Pairs:
    """Yield the files that a path may become, and the directories, with a slash."""
    folder, slash, start = text.rpartition("/")
    try:
        entries = sorted(Path(folder + slash).expanduser().iterdir())
    except (OSError, RuntimeError):  # no such directory, or no such user
        return
    for entry in entries:
        shown = entry.name.startswith(start) and (start or not entry.name.startswith("."))
        if shown and (entry.is_dir() or entry.name.endswith(ending)):
            yield folder + slash + entry.name + ("/" if entry.is_dir() else ""), ""


def _modules(root: Path | None) -> list[str]:
    return list(module_files(root)) if root else []


def _configs(root: Path | None, text: str, kind: str) -> Pairs:
    """Yield projects, modules and, behind a colon, classes, of one kind or of any; only what can match is read."""
    start, colon, _ = text.partition(":")
    modules = _modules(root)
    for word in sorted({*modules, *(name.partition("/")[0] for name in modules)}):
        name = default_of(word, modules) if word not in modules else word
        if root is None or name is None or not word.startswith(start):
            continue
        item = listed(root, name)
        fits = kind == "config" or kind in item.classes or not KINDS.keys() & item.classes
        if fits and (item.classes or item.error):
            said = item.error or item.description
            yield from ((f"{word}:{cls}", said) for cls in item.classes) if colon else [(word, said)]


if __name__ == "__main__":
    main(*sys.argv[1:])
