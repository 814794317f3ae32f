"""A config resolved once and written down: what a run works from, whatever happens to the project file later.

{"format": 1, "config": "finetune_lovecraft/default", "class": "TrainConfig", "fingerprint": "…",
 "options": [{"path", "value", "type", "origin", "comment", "default"}], "inputs": {"corpus": "sha256…", …},
 "own": ["path", …], "versions": {…}, "git": {"commit", "dirty"}, "argv": […], "created": "2026-01-31T12:00:00+00:00",
 "changes": […]}

`own` names the options that users' classes declare: they act through the library's, and only those are replayed.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from lovecraft.config import base, schema, values
from lovecraft.config.base import Origin
from lovecraft.config.diff import Change, Entry, entries
from lovecraft.config.load import find_root
from lovecraft.config.override import override
from lovecraft.config.resolve import choices, fingerprint_values, rows
from lovecraft.errors import ConfigError

FORMAT = 1
NAME = "record.json"
_FIELDS = {  # what is read of a record, by type
    int: ("format",),
    str: ("config", "class", "fingerprint", "created"),
    list: ("options", "own", "changes"),
    dict: ("inputs",),
}
_VERSIONED = ("lovecraft-lc", "torch", "transformers", "tokenizers", "datasets", "safetensors", "numpy")


def fingerprint(cls: Any, root: Path | None) -> str:
    """Return the identity of a config: the hash of the values that can change the result.

    Names of users' classes and modules, origins and comments do not count; paths count relative to the root.
    """
    import hashlib  # with files' imports a twentieth of `lc show`, which prints no fingerprint

    text = json.dumps(fingerprint_values(cls, root), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make(cls: Any, name: str, root: Path, inputs: dict[str, str], argv: Sequence[str] = ()) -> dict[str, Any]:
    """Return the record of a config whose inputs have the given content hashes; `argv` are the words of the command."""
    return {
        "format": FORMAT,
        "config": name,
        "class": base.library_class(cls).__name__,
        "fingerprint": fingerprint(cls, root),
        "options": [attrs.asdict(e) for e in entries(cls, root)],
        "own": [row.path for row in rows(cls) if row.own],
        "inputs": inputs,
        "versions": _versions(),
        "git": _git(root),
        "argv": list(argv),
        "created": now(),
        "changes": [],
    }


def find_run(word: str | None) -> Path | None:
    """Return the run directory that `word` names, by path or as `project/config/NNN`; None if it names none."""
    if not word:
        return None
    path = Path(word)
    if path.name == NAME and path.is_file():
        return path.resolve().parent
    if (path / NAME).is_file():
        return path.resolve()
    if path.name.isdigit():
        try:
            path = find_root() / "runs" / word
        except ConfigError:  # outside a workspace only paths name runs
            return None
        return path if (path / NAME).is_file() else None
    return None


def find_record(word: str | None) -> Path | None:
    """Return the record that `word` names: that of a run, or a JSON file; None if it names none."""
    if run := find_run(word):
        return run / NAME
    return Path(word) if word and word.endswith(".json") and Path(word).is_file() else None


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    import datetime

    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record to a file, whole or not at all."""
    from lovecraft.files import write_atomic

    write_atomic(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Read a record; raise ConfigError for a file that is none, or that a newer lovecraft wrote."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable record: {error}") from None
    if not isinstance(record, dict):
        raise ConfigError(f"{path}: not a record: it is no JSON object")
    if record.get("format", FORMAT) != FORMAT:
        raise ConfigError(f"{path}: format {record['format']}, but this lovecraft reads {FORMAT}")
    if missing := [name for kind, names in _FIELDS.items() for name in names if not isinstance(record.get(name), kind)]:
        raise ConfigError(f"{path}: not a record: it has no {missing[0]!r}, or a damaged one")
    if not re.fullmatch(r"\w+(/\w+)*", record["config"]):  # it becomes the path of the next run
        raise ConfigError(f"{path}: its config cannot be called {record['config']!r}")
    try:
        options_of(record)
        [Change(**option) for change in record["changes"] for option in change["options"]]
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{path}: its options are damaged: {error}") from None
    return record


def options_of(record: dict[str, Any]) -> list[Entry]:
    """Return a record's options."""
    return [Entry(**row) for row in record["options"]]


def replay(record: dict[str, Any], root: Path) -> Any:
    """Return the config class that a record describes, built from the library's classes only.

    Raises ConfigError for a class or an option that this lovecraft does not have.
    """
    kinds = {k.__name__: k for k in (schema.TrainConfig, schema.DatasetConfig, schema.ModelConfig, schema.ServeConfig)}
    if record["class"] not in kinds:
        raise ConfigError(f"the record is of the unknown class {record['class']!r}")
    cls = kinds[record["class"]]
    recorded = {e.path: e for e in options_of(record) if e.path not in record["own"]}
    changes = _changes(cls, recorded, "", root)
    if unknown := next((path for path in recorded if path not in changes), None):
        raise ConfigError(f"the record has the option {unknown!r}, which this lovecraft does not have")
    fixed = Entry("", None, "", NAME)  # a section of one kind only, which has no row
    found = {path: recorded.get(path, fixed) for path in changes}
    return override(cls, changes, {path: Origin("", said=e.origin, comment=e.comment) for path, e in found.items()})


def _changes(cls: Any, recorded: dict[str, Entry], prefix: str, root: Path) -> dict[str, Any]:
    """Return what `override` must change in `cls` to give it the recorded values below `prefix`."""
    changes: dict[str, Any] = {}
    for name, option in cls.__options__.items():
        path = prefix + name
        if option.section is None:
            if path in recorded:
                changes[path] = values.unexport(recorded[path].value, option.hint, root)
            continue
        section: Any = option.section
        if path in recorded:
            if recorded[path].value is None:
                changes[path] = None
                continue
            known = choices(option.section)
            if recorded[path].value not in known:
                raise ConfigError(f"the record's {path} is the unknown class {recorded[path].value!r}")
            section = known[recorded[path].value]
        changes[path] = section
        changes |= _changes(section, recorded, f"{path}.", root)
    return changes


def _versions() -> dict[str, str]:
    import platform  # these two cost more than all of `lc show`, which reads records but makes none
    from importlib import metadata

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree without an install
            continue
    return found


def _git(root: Path) -> dict[str, Any] | None:
    """Return the commit of the workspace, and whether it is not all there is; None outside git, or before a commit.

    It is not where a tracked file has changed, or git knows nothing of workspace.py or of a file below projects/.
    """
    import subprocess

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "-uno") or git("status", "--porcelain", "--", "workspace.py", "projects")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None
