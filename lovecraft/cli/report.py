"""How errors look: message and hint for users' mistakes, the user's own frames for what their config raised."""

import sys
from pathlib import Path

from lovecraft.cli import console
from lovecraft.config import load
from lovecraft.errors import LovecraftError


def print_error(error: LovecraftError) -> None:
    """Print an error and its hint to stderr."""
    red, plain = ("\033[1;31m", "\033[0m") if console.fancy(sys.stderr) else ("", "")
    console.say(f"{red}error:{plain} {error.message}")
    if error.hint:
        console.say(f"\nhint: {error.hint}")


def print_user_frames(error: BaseException) -> bool:
    """Print an exception that a config raised, trimmed to the workspace's own frames; False if it has none."""
    import traceback

    root = load.active_root()
    if root is None:
        return False
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(Path(f.filename), root)]
    broken = isinstance(error, SyntaxError)  # only what users wrote is compiled here
    if not frames and not broken:
        return False
    lines = ["Traceback (most recent call last; your files only):\n", *traceback.format_list(frames)] if frames else []
    console.say("".join(lines + traceback.format_exception_only(error)).rstrip())
    return True


def _is_users(file: Path, root: Path) -> bool:
    return file == root / "workspace.py" or file.is_relative_to(root / "projects")
