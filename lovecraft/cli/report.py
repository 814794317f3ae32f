"""How errors look: message and hint for users' mistakes, the user's own frames for what their config raised."""

import sys
from typing import Any

from lovecraft.cli import console
from lovecraft.config import modules
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

    told = traceback.TracebackException.from_exception(error)
    if modules.active_root() is None or not (_trim(told) or isinstance(error, SyntaxError)):
        return False  # of syntax: only what users wrote is compiled here
    console.say("".join(told.format()).rstrip().replace("recent call last)", "recent call last; your files only)"))
    return True


def _trim(told: Any) -> bool:
    """Leave only the user's frames, also of an exception's cause and of those it groups; return whether any is left."""
    frames = [frame for frame in told.stack or () if modules.is_users(frame.filename)]
    told.stack = type(told.stack).from_list(frames) if frames else None
    inner = [_trim(e) for e in (told.__cause__, told.__context__, *(told.exceptions or ())) if e]
    return any([*inner, frames])
