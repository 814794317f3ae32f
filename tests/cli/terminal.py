"""A terminal for tests: a program on a pty, what is typed into it, what it shows."""

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SPAWN = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"  # in a process of its own: pytest has threads


class Terminal:
    """A program that believes it has a person before it."""

    def __init__(self, command: Sequence[str], cwd: Path, **environment: str) -> None:
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", SPAWN, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=cwd,
            env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": str(cwd), **environment},
        )

    def type(self, text: str) -> None:
        """Press keys."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def until(self, pattern: str, seconds: float = 20) -> str:
        """Wait for a pattern; return what was shown up to its end since the last one."""
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        while not (match := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert more, f"no {pattern!r} in {self.seen!r}"
            self.seen += more.decode(errors="replace")
        shown, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return shown

    def leave(self, keys: str = "\x04") -> int:
        """Press keys that end the program; return its exit code."""
        self.type(keys)
        return self.process.wait(20)

    def close(self) -> None:
        """End the program, whatever it does."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.kill()
        self.process.wait()
