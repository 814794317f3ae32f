"""Open a config's file in $VISUAL, $EDITOR or VS Code."""

import argparse
import os
import shlex
import shutil
import subprocess

from lovecraft.config.load import find
from lovecraft.errors import LovecraftError

USAGE = "[CONFIG]"
EXAMPLE = "lc edit finetune_lovecraft/default"
TAKES_OPTIONS = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc edit`: none."""


def run(args: argparse.Namespace) -> int:
    """Run the editor on the config's file and wait for it; return its exit code."""
    name, _, root = find(args.target)  # not loaded: a broken config must open, too
    file = root / "projects" / f"{name}.py"
    editor = _editor()
    if not editor:
        raise LovecraftError("no editor is set", hint="set VISUAL or EDITOR, for example: export EDITOR=vim")
    try:
        return subprocess.run([*editor, str(file)], check=False).returncode
    except OSError as error:
        raise LovecraftError(f"cannot run {editor[0]!r}: {error.strerror}", hint="set VISUAL or EDITOR") from None


def _editor() -> list[str]:
    """Return the editor's command: VS Code's own inside its terminal, then $VISUAL, $EDITOR, then `code`."""
    code = shutil.which("code")
    if code and os.environ.get("VSCODE_IPC_HOOK_CLI"):
        return [code]
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    return shlex.split(named) if named else [code, "--wait"] if code else []
