"""What an option may be called: its name is also a flag, and a key of records. What a wrong name was meant to be."""

import difflib
from collections.abc import Collection, Iterable

RESERVED = {
    *("also", "blocks", "check", "checkpoint", "diff", "dry_run", "find", "gpu", "help", "histogram", "json", "new"),
    *("python", "split", "stats", "step", "tflops", "why"),
}
"""The flags of the commands that take a config's options; a test holds that these are all."""


def flag_of(path: str) -> str:
    """Return the flag of an option: `dataset.block_size` → `--dataset.block-size`."""
    return "--" + path.replace("_", "-")


def objection(name: str, known: Collection[str]) -> str:
    """Return why a user's new option cannot be called `name` beside the `known` ones; empty where it can."""
    if not name.isascii():
        return f"{strange(name)}; an option's name has only a-z, 0-9 and _"
    if not name.isidentifier() or name.startswith("_"):
        return "an option's name begins with a letter and has only a-z, 0-9 and _"
    if name in RESERVED or f"no_{name}" in RESERVED:
        return f"--{name.replace('_', '-')} is a flag of lc itself; choose another name"
    bare = name.removeprefix("no_")
    if f"no_{name}" in known or (bare != name and bare in known):
        return f"--no-{bare.replace('_', '-')} would mean two options; choose another name"
    twin = next((other for other in known if other != name and other.lower() == name.lower()), "")
    return f"it differs from {twin} only in case; choose another name" if twin else ""


def strange(name: str) -> str:
    """Name the characters of `name` that are not ASCII, which may look like some that are."""
    import unicodedata

    return ", ".join(f"{c!r} is {unicodedata.name(c, 'nameless').lower()}" for c in name if not c.isascii())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or the known names where none is close and they are few."""
    names = list(known)
    if near := close(name, names):
        return f"; did you mean {near[0]!r}?"
    return f"; it has {', '.join(sorted(names))}" if 0 < len(names) <= 20 else ""


def close(wrong: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Return the known name that is closest to a wrong one, in whatever case; none where none is."""
    by_case = {name.lower(): name for name in known}
    return [by_case[name] for name in difflib.get_close_matches(wrong.lower(), by_case, 1, cutoff)]


def nearest(wrong: str, known: Collection[str], mark: str) -> list[str]:
    """Return up to two names that are nearest to a wrong one, wherever they are nested; `mark` parts them."""
    by_last: dict[str, list[str]] = {}
    for name in known:
        by_last.setdefault(name.rpartition(mark)[2], []).append(name)
    if near := close(wrong, known, cutoff=0.8):
        return near
    last = close(wrong.rpartition(mark)[2], by_last)
    return [name for part in last for name in by_last[part]][:2] or close(wrong, known)
