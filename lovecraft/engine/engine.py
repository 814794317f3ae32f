"""The thread that owns the model, and the queue in front of it. Imports no torch.

Everything else runs on an asyncio loop; these two meet in `submit`, `cancel` and the jobs' event queues only. Who waits
gets a slot in the order of coming.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Protocol

import attrs

from lovecraft.engine.request import Event, Finish, Request
from lovecraft.errors import LovecraftError, RequestError

log = logging.getLogger(__name__)

SHUTDOWN = Finish("failed", "the server is shutting down", "server_shutdown", status=503)


class Batch(Protocol):
    """What the engine drives: `lovecraft.engine.batch.Batch`, or a stand-in that has no model."""

    slots: int
    context: int

    @property
    def usage(self) -> float:
        """The part of the cache that is used."""

    def add(self, request: Request) -> Any:
        """Begin a request, of at most `slots` at a time; what is returned names it from here on."""

    def drop(self, one: Any) -> None:
        """Forget a request."""

    def work(self) -> Iterator[tuple[Sequence[Any], Callable[[], Sequence[tuple[Any, Event]]]]]:
        """Yield the passes of one step: whom each moves, and what runs it and returns what happened to whom."""


@attrs.define(eq=False)
class Job:
    """A request in the engine. `events` says what happens to it, on the loop that submitted it, up to a `Finish`."""

    request: Request
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Event] = attrs.field(factory=asyncio.Queue)
    cancelled: bool = False


class Engine:
    """Runs a batch on a thread of its own. `max_queue` is the number of requests that may wait."""

    def __init__(self, batch: Batch, *, max_queue: int) -> None:
        self.context = batch.context
        self.beat = time.monotonic()
        """When the thread last began a pass, or found nothing to do."""
        self._batch = batch
        self._max_queue = max_queue
        self._waiting: deque[Job] = deque()
        self._running: dict[Any, Job] = {}  # by the batch's names for them
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Requests that have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return len(self._waiting)

    @property
    def jobs(self) -> int:
        """Requests that run or wait."""
        return self.waiting + self.running

    @property
    def kv_usage(self) -> float:
        """The part of the key-value cache that running requests use, 0 to 1."""
        with self._changed:
            return self._batch.usage

    def submit(self, requests: Sequence[Request]) -> list[Job]:
        """Queue requests that belong together, all or none. Called on the loop that will read the events.

        Raises RequestError (429) when too many wait already.
        """
        jobs = [Job(request, asyncio.get_running_loop()) for request in requests]
        with self._changed:
            if self._closed:
                raise RequestError(SHUTDOWN.message, code=SHUTDOWN.code, status=SHUTDOWN.status)
            if self.jobs and self.jobs - self._batch.slots + len(jobs) > self._max_queue:  # the others have slots
                raise RequestError(
                    f"{self.jobs} requests run or wait already; try again later", code="queue_full", status=429
                )
            self._waiting += jobs
            self._changed.notify()
        return jobs

    def cancel(self, job: Job) -> None:
        """Let the engine drop a job before its next pass. Harmless when it has ended; no event follows."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)

    def abort(self) -> None:
        """Fail every job that runs or waits, and take no more. Called on the loop of the jobs."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *self._running.values()]
            self._changed.notify()
        for job in jobs:
            self.cancel(job)
            job.events.put_nowait(SHUTDOWN)

    def join(self, timeout: float) -> None:
        """Wait for the thread to end, after `abort`."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while self._admit():
            for ones, run in self._batch.work():
                self.beat = time.monotonic()
                self._deliver(_attempt(ones, run))

    def _admit(self) -> bool:
        """Give slots to those who wait; with nobody there, wait for one. False ends the thread."""
        with self._changed:
            self._sweep()
            while not (self._waiting or self._running or self._closed):
                self.beat = time.monotonic()
                self._changed.wait(timeout=1)
            while self._waiting and self.running < self._batch.slots:
                job = self._waiting.popleft()
                self._running[self._batch.add(job.request)] = job
            return bool(self._running)

    def _deliver(self, found: Sequence[tuple[Any, Event]]) -> None:
        """Hand out what happened, with one call a loop, and free the slots of those who ended."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job, Event]]] = defaultdict(list)
        with self._changed:
            for one, event in found:
                job = self._running[one]
                if not job.cancelled:
                    by_loop[job.loop].append((job, event))
                if isinstance(event, Finish):
                    self._end(one)
            self._sweep()
        for loop, news in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: its reader is gone with its server
                loop.call_soon_threadsafe(_post, news)

    def _sweep(self) -> None:
        for one in [one for one, job in self._running.items() if job.cancelled]:
            self._end(one)

    def _end(self, one: Any) -> None:
        self._batch.drop(one)
        del self._running[one]


async def events(job: Job, timeout: float) -> AsyncIterator[Event | None]:
    """Yield a job's events up to its `Finish`; None whenever `timeout` seconds pass without one."""
    while True:
        try:
            async with asyncio.timeout(timeout):
                event = await job.events.get()
        except TimeoutError:
            yield None
            continue
        yield event
        if isinstance(event, Finish):
            return


def _attempt(ones: Sequence[Any], run: Callable[[], Sequence[tuple[Any, Event]]]) -> Sequence[tuple[Any, Event]]:
    """Run a pass; if it fails, so do the requests that it was to move, and no other."""
    try:
        return run()
    except LovecraftError as error:
        log.error("%s", error)
        finish = Finish("failed", message=error.message, code="model_error")
    except Exception:  # the boundary of a pass: its requests fail, the others go on
        log.exception("a pass failed")
        finish = Finish("failed", message="internal error", code="internal_error")
    return [(one, finish) for one in ones]


def _post(news: Sequence[tuple[Job, Event]]) -> None:
    for job, event in news:
        job.events.put_nowait(event)
