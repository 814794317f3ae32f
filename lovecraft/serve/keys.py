"""API key files."""

from pathlib import Path

from lovecraft.errors import ServeError

HINT = "it holds one key a line; lines that begin with # are comments"


def read_keys(file: Path) -> list[str]:
    """Return the keys in `file`, one a line. Raises ServeError when there is none."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "it is not UTF-8")
        raise ServeError(f"API key file {file} cannot be read: {reason}", hint=HINT) from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ServeError(f"API key file {file} holds no key", hint=HINT)
    return keys
