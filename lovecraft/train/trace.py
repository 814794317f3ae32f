"""A profile of a few steps, on request: RUN/trace.json for chrome://tracing or ui.perfetto.dev, and a short table."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import torch
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from lovecraft.config.render import columns
from lovecraft.files import new_file

NAME = "trace.json"
OPERATORS = 12


@attrs.define
class Trace:
    """Profiles `steps` steps after the first, which warms up."""

    directory: Path
    steps: int
    say: Callable[[str], None]
    taken: int = 0
    profiler: profile | None = None

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Take part in a step: before the second begin, after the last one write what there is."""
        if self.taken == 1 and self.steps:
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it says that it begins and ends, into the bar
            kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * torch.cuda.is_available()]
            self.profiler = profile(activities=kinds, acc_events=True)
            self.profiler.start()
        yield
        self.taken += 1
        if self.taken == 1 + self.steps:
            self.write()

    def write(self) -> None:
        """End the profile, if there is one, write the trace and print the operators that took longest."""
        if self.profiler is not None:
            self.profiler.stop()
            with new_file(self.directory / NAME) as path:
                self.profiler.export_chrome_trace(str(path))
            self.say(f"{table(list(self.profiler.key_averages()))}\ntrace: {self.directory / NAME}")
            self.profiler = None


@contextlib.contextmanager
def traced(directory: Path, steps: int | None, say: Callable[[str], None]) -> Iterator[Trace]:
    """Profile `steps` steps of a training, or those that it takes if it ends before."""
    trace = Trace(directory, steps or 0, say)
    try:
        yield trace
    finally:
        trace.write()
    if steps and trace.taken < 2:
        say("no trace: the first step is not profiled, and there was no second")


def table(events: list[FunctionEventAvg]) -> str:
    """Return the operators with the most time of their own, on the GPU where there is one."""
    on_gpu = any(event.self_device_time_total for event in events)
    spent = {str(e.key): (e.self_device_time_total if on_gpu else e.self_cpu_time_total, e.count) for e in events}
    whole = sum(us for us, _ in spent.values()) or 1
    most = sorted(spent.items(), key=lambda item: -item[1][0])[:OPERATORS]
    rows = [(f"{us / whole:6.1%}", f"{us / 1e3:9.1f} ms", f"{count:8,} ×", _short(key)) for key, (us, count) in most]
    return columns([("share", "own time", "calls", "operator"), *rows])


def _short(name: str) -> str:
    """Leave out the middle of a very long name, so that its line fits a terminal."""
    return name if len(name) <= 44 else f"{name[:20]}…{name[-23:]}"
