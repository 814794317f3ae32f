"""What TAB offers for a line. The printed scripts run this file by itself, with nothing but the standard library.

It imports no config: what a config's options are stands in the cache that `lc` wrote when it last loaded it
(completion.py), stale or not; without one, the library's options are offered.
"""

import itertools
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Pairs = Iterator[tuple[str, str]]
"""Words with what is said beside each."""

CACHE = ".lc/cache/completion"
KINDS = ("Train", "Dataset", "Model", "Serve")  # those of config/load.py, which takes too long to import
NO, MAY = "--no-", "?"  # of a flag: it takes no value, it may take one
END = "\0"


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


def _offered(words: list[str], text: str, current: str) -> Pairs:
    root = next((p for p in (Path.cwd(), *Path.cwd().parents) if (p / "workspace.py").is_file()), None)
    known = library(root)
    if not words:
        yield from known["commands"].items()
    if not words or words[0] not in known["flags"]:
        return
    own, places = known["flags"][words[0]], known["places"][words[0]]
    named = bare(words, own)
    options = _options(known, words, root, named[0] if named else current)
    flags = {**own, **{"--" + path.replace("_", "-"): entry for path, entry in options.items()}}
    name, joined, value = text.partition("=")
    if joined and name in flags:
        yield from ((f"{name}={word}", says) for word, says in _values(flags[name][1], root, value, options))
        return
    _, values, how = flags.get(words[-1], ("", [], NO))
    free, left = how in (NO, MAY) or "false" in values, places[len(named) :]  # the word may be no flag's value
    if not text.startswith("-"):
        yield from _values(values + (left[0] if free and left else []), root, text, options)
    if text.startswith("-") or (free and not left):
        yield from ((name, entry[0]) for name, entry in flags.items())
        yield from (("--no-" + name[2:], entry[0]) for name, entry in flags.items() if "false" in entry[1])


def bare(words: list[str], own: dict[str, Any]) -> list[str]:
    """Return the words behind a command that are no flags and not what a flag is given; the first is the target."""

    def waits(flag: str) -> bool:
        return flag.startswith("-") and "=" not in flag and own.get(flag, ["", [], flag[:5]])[2] not in (NO, MAY)

    return [word for before, word in itertools.pairwise(words) if word[:1] != "-" and not waits(before)]


# --- what lc wrote down -----------------------------------------------------------------------------


def library(root: Path | None) -> dict[str, Any]:
    """Return the commands, their flags and the library's options; from the cache, unless the library has changed."""
    package = Path(__file__).parents[1]
    changed = max(file.stat().st_mtime_ns for part in ("cli", "config") for file in (package / part).glob("*.py"))
    stamp = {"package": str(package), "changed": changed}
    known = _json(root / CACHE / "lovecraft.json") if root else {}
    if known.get("stamp") == stamp:
        return known
    from lovecraft.cli import completion

    return completion.remember_library(root, stamp)


def _json(file: Path) -> dict[str, Any]:
    try:
        return {name: dict(value) for name, value in json.loads(file.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # absent, or damaged: as if it were absent
        return {}


def _options(library: Any, words: list[str], root: Path | None, target: str) -> dict[str, Any]:
    """Return path → [sentence, values, class if it is a section] of the options that a command takes with its target.

    Sections that the line swaps for a class of the library have that class's options.
    """
    known: dict[str, Any] = {}
    of = library["options"][words[0]]
    if of == "Config":
        here = re.match(re.escape(f"{root}/projects/") + "(.+)", str(Path.cwd()))
        target = target or (here[1] if here else "")
        name, classes, _ = _named(_modules(root), target)
        of = f"{classes[0]}Config" if classes and classes[0] in KINDS else "TrainConfig" if target else ""
        known = _json(root / CACHE / f"{name}.{classes[0]}.json") if root and classes else {}
    pairs = [*itertools.pairwise(words), *(word.split("=", 1) for word in words if "=" in word)]
    swaps = {a[2:].replace("-", "_"): b for a, b in pairs if b == "none" or b in library["classes"]}
    sections = {"": of, **known.get("sections", {}), **swaps}
    found: dict[str, Any] = {}

    def visit(path: str, section: str) -> None:
        for option, entry in library["classes"].get(section, {}).items():
            found[path + option] = entry
            visit(f"{path}{option}.", sections.get(path + option, entry[2]))

    visit("", sections[""])
    return found | known.get("own", {})


# --- values, and the words that name things -----------------------------------------------------------


def _values(values: Sequence[str], root: Path | None, text: str, options: dict[str, Any]) -> Pairs:
    """Yield the values that are words, and what those that begin with `@` stand for."""
    for value in values:
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


def _modules(root: Path | None) -> dict[str, Path]:
    """Return the modules below projects/ by the name that a user gives them: `project/config`."""
    found = {str(p)[len(f"{root}/projects/") : -3]: p for p in sorted(root.glob("projects/*/**/*.py"))} if root else {}
    return {name: file for name, file in found.items() if not re.search(r"(^|/)[._]", name)}


def _named(modules: dict[str, Path], word: str) -> tuple[str, list[str], str]:
    """Return the module that a word names, or that of a run; its classes, the one it means first; its description."""
    word, _, wanted = word.partition(":")
    word = re.sub(r"^(projects|runs)/|(/\d+)?/?$|\.py$", "", word)
    if word not in modules:  # a project: its default, or the only one in it
        inside = [name for name in modules if name.startswith(f"{word}/")]
        word = f"{word}/default" if f"{word}/default" in inside else inside[0] if len(inside) == 1 else ""
    text = _text(modules[word]) if word else ""
    classes = re.findall(r"^class (\w+)\(", text, re.MULTILINE)
    said = re.match(r"""\s*[rR]?(\"{3}|'{3}|"|')\s*(.*?)\s*(\1|\n)""", text)
    return word, [*(c for c in (wanted, *KINDS) if c in classes), *classes], said[2] if said else ""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # one that cannot be read defines nothing
        return ""


def _configs(root: Path | None, text: str, kind: str) -> Pairs:
    """Yield projects, modules and, behind a colon, classes, of one kind or of any; only what can match is read."""
    start, colon, _ = text.partition(":")
    modules = _modules(root)
    for word in sorted({*modules, *(name.partition("/")[0] for name in modules)}):
        _, classes, said = _named(modules, word) if word.startswith(start) else ("", [], "")
        if classes and (kind == "config" or kind in classes):
            yield from ((f"{word}:{name}", said) for name in classes) if colon else [(word, said)]


if __name__ == "__main__":
    main(*sys.argv[1:])
