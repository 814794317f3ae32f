"""Who may train a run, and how a training is told to stop: a lock, signals, a file in the run's directory, the clock.

The loop asks `reason` once after each step, so what it is told takes effect between two steps; evaluating and sampling,
which may take minutes, call `heed` as they go.
"""

import contextlib
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import attrs
from filelock import FileLock, Timeout

from lovecraft.errors import RunError
from lovecraft.files import sweep, write_atomic
from lovecraft.runs import Run

LOCK = "lock"
REQUEST = "stop"
REQUESTS = ("stop", "save", "abort")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DIVERGED = "not finite"  # the reasons in the status of a run that the same options would only end again
SPIKED = "loss spike"
PATIENCE = "patience"  # the reason of a run that is finished before its last step


class Stopped(Exception):
    """Something long was told to end; it is done again when the run goes on."""


@attrs.define
class Control:
    """What this process was told since it began to train, and has not done yet."""

    directory: Path
    deadline: float
    asked: str = ""

    def reason(self) -> str:
        """Return what to do after this step: "" to go on, a signal's name, "stop", "save", "abort" or "max_minutes"."""
        if self.asked in ("", "save"):
            late = "max_minutes" if time.monotonic() > self.deadline else ""
            self.asked = take_request(self.directory) or self.asked or late
        return self.asked

    def heed(self) -> None:
        """Raise Stopped if the training is to end."""
        if self.reason() not in ("", "save"):
            raise Stopped


@contextlib.contextmanager
def controlled(directory: Path, max_minutes: float | None) -> Iterator[Control]:
    """Own the run in `directory` for the time of a training and listen to what stops it.

    Raises RunError when another process trains it. Signals are handled in the main thread only.
    """
    with only_one(directory):
        take_request(directory)  # what was asked of a process that is gone
        sweep(directory / "checkpoints")  # what a killed one had half written
        minutes = float("inf") if max_minutes is None else max_minutes
        control = Control(directory, time.monotonic() + 60 * minutes)
        with _listening(control):
            yield control


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the run's lock, which the system frees however the process ends. Raises RunError when it cannot be had."""
    lock = FileLock(directory / LOCK, is_singleton=True)  # who holds it may take it again
    try:
        lock.acquire(timeout=0.5)  # `is_running` holds it for a moment
    except Timeout:
        run = Run(directory)
        pid = run.status.get("pid", "unknown")
        raise RunError(f"{run.name} is being trained by process {pid}", hint=f"`lc stop {run.name}` ends it") from None
    except OSError as error:
        raise RunError(
            f"{directory} is not writable: {error.strerror}", hint="make it writable, or give --new"
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_running(directory: Path) -> bool:
    """Return whether a process trains the run in `directory`."""
    if not (directory / LOCK).exists():
        return False
    try:
        with FileLock(directory / LOCK, timeout=0):
            return False
    except OSError:  # `Timeout` is one; a lock that another user may not open can tell nothing: what was said holds
        return True


def request(directory: Path, what: str) -> None:
    """Ask the process that trains the run in `directory` to "stop", "save" or "abort" after its current step."""
    assert what in REQUESTS
    write_atomic(directory / REQUEST, what)


def take_request(directory: Path) -> str:
    """Return what was asked through the run's directory and remove the request; "" if nothing was."""
    try:
        what = (directory / REQUEST).read_text(encoding="utf-8")
        (directory / REQUEST).unlink()
    except FileNotFoundError:
        return ""
    return what if what in REQUESTS else ""


@contextlib.contextmanager
def _listening(control: Control) -> Iterator[None]:
    """Note the first signal; the second finds the handlers as they were before, and ends the process at once."""
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    if previous[signal.SIGHUP] == signal.SIG_IGN:  # nohup: the training outlives its terminal
        del previous[signal.SIGHUP]

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        control.asked = signal.Signals(number).name
        if number == signal.SIGHUP:  # comes twice, from the shell and from the terminal
            signal.signal(number, signal.SIG_IGN)
            _leave_terminal()
        else:
            restore()

    for number in previous:
        signal.signal(number, note)
    try:
        yield
    finally:
        restore()


def _leave_terminal() -> None:
    """Let what went to a terminal go nowhere: one that is gone refuses it, and saving comes first."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)
