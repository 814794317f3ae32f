"""Open a config in the editor: VS Code inside its own terminal, else $VISUAL, $EDITOR, or VS Code.

CONFIG:Class opens the file at that class, `workspace` the workspace's own file. Without a config it is that of the
project you stand in, or one of a menu.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from lovecraft.cli import console
from lovecraft.config.load import default_of, find, find_root, listing
from lovecraft.config.modules import read
from lovecraft.errors import ConfigError, LovecraftError

USAGE = "[CONFIG|workspace]"
EXAMPLE = "lc edit finetune_lovecraft/default"
TAKES_OPTIONS = False

AT_LINE = {
    ("code", "code-insiders", "codium", "cursor"): ("-g", "{file}:{line}"),
    ("vi", "vim", "nvim", "nano", "emacs", "emacsclient", "micro", "kak"): ("+{line}", "{file}"),
}
"""How editors are told a line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc edit`: none."""


def run(args: argparse.Namespace) -> int:
    """Run the editor on the config's file and wait for it; return its exit code."""
    found = _find(args.target)
    if found is None:
        return 0
    editor = _editor()
    if not editor:
        raise LovecraftError("no editor is set", hint="set VISUAL or EDITOR, for example: export EDITOR=vim")
    try:
        return subprocess.run([*editor, *_place(editor[0], *found)], check=False).returncode
    except OSError as error:
        raise LovecraftError(f"cannot run {editor[0]!r}: {error.strerror}", hint="set VISUAL or EDITOR") from None


def _find(word: str | None) -> tuple[Path, str] | None:
    """Return the file to open and the class in it, if one is named; None where the menu was left.

    Nothing is loaded: a broken config must open, too.
    """
    if word == "workspace":
        return find_root() / "workspace.py", ""
    try:
        name, cls, root = find(word)
    except ConfigError:
        if word or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        name, cls, root = _menu(find_root()), "", find_root()
    return (root / "projects" / f"{name}.py", cls) if name else None


def _menu(root: Path) -> str:
    """Let the user choose a config by its number or a part of its name; return "" for none."""
    said = {item.name: item.error or item.description for item in listing(root)}
    if not said:
        raise ConfigError("no configs yet", hint="`lc new project NAME` makes one")
    names = list(said)
    while len(names) != 1:
        stars = ["*" if default_of(name.partition("/")[0], list(said)) == name else "" for name in names]
        rows = [(str(i), star, name, said[name]) for i, (name, star) in enumerate(zip(names, stars, strict=True), 1)]
        console.table(rows, ("", "", "config", "description"), stream=sys.stderr)
        if not (word := console.ask("number or part of a name: ").strip()):
            return ""
        meant = word if word in said else default_of(word, list(said))
        chosen = names[int(word) - 1 : int(word)] if word.isdecimal() and word != "0" else [meant] if meant else []
        chosen = chosen or [name for name in said if word in name]
        if not chosen:
            console.say(f"no config is {word!r}\n")
        names = chosen or names
    return names[0]


def _place(editor: str, file: Path, cls: str) -> list[str]:
    """Return what an editor is given to open a file, at a class if it is named. Raises ConfigError if there is none."""
    if not cls:
        return [str(file)]
    found = re.search(rf"^class {re.escape(cls)}\b", text := read(str(file)), re.MULTILINE)
    if found is None:
        known = ", ".join(re.findall(r"^class (\w+)", text, re.MULTILINE))
        raise ConfigError(f"{file.name} defines no {cls!r}", hint=f"it defines {known}" if known else "")
    line = text[: found.start()].count("\n") + 1
    forms = [form for names, form in AT_LINE.items() if Path(editor).stem in names]
    return [part.format(file=file, line=line) for part in forms[0]] if forms else [str(file)]


def _editor() -> list[str]:
    """Return the editor's command: VS Code's own inside its terminal, then $VISUAL, $EDITOR, then `code`."""
    code = shutil.which("code")
    if code and os.environ.get("VSCODE_IPC_HOOK_CLI"):
        return [code]
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    try:
        return shlex.split(named) if named else [code, "--wait"] if code else []
    except ValueError as error:
        raise LovecraftError(f"cannot run the editor {named!r}: {error}".lower(), hint="set VISUAL or EDITOR") from None
