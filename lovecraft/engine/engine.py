"""The thread that owns the model, and the queue in front of it. Imports no torch.

Everything else runs on an asyncio loop; these two meet in `submit`, `cancel` and the jobs' event queues only. Requests
run one after the other, first come first served.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import attrs

from lovecraft.engine.request import Finish, Read, Request, Steps
from lovecraft.errors import LovecraftError, RequestError

log = logging.getLogger(__name__)

SHUTDOWN = Finish("failed", "the server is shutting down", "server_shutdown", status=503)


@attrs.define(eq=False)
class Job:
    """A request in the engine. `events` says what happens to it, on the loop that submitted it, up to a `Finish`."""

    request: Request
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[int | Read | Finish] = attrs.field(factory=asyncio.Queue)
    cancelled: bool = False


class Engine:
    """Runs `generate` on a thread of its own.

    `context` is the number of tokens that `generate` can hold, `max_queue` the number of requests that may wait.
    """

    def __init__(self, generate: Callable[[Request], Steps], *, context: int, max_queue: int) -> None:
        self.context = context
        self._generate = generate
        self._max_queue = max_queue
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def jobs(self) -> int:
        """Requests that run or wait."""
        return len(self._waiting) + (self._running is not None)

    def submit(self, requests: Sequence[Request]) -> list[Job]:
        """Queue requests that belong together, all or none. Called on the loop that will read the events.

        Raises RequestError (429) when too many wait already.
        """
        jobs = [Job(request, asyncio.get_running_loop()) for request in requests]
        with self._changed:
            if self._closed:
                raise RequestError(SHUTDOWN.message, code=SHUTDOWN.code, status=SHUTDOWN.status)
            if self.jobs and self.jobs - 1 + len(jobs) > self._max_queue:  # one of them runs, the others wait
                raise RequestError(
                    f"{self.jobs} requests run or wait already; try again later", code="queue_full", status=429
                )
            self._waiting += jobs
            self._changed.notify()
        return jobs

    def cancel(self, job: Job) -> None:
        """Let the engine drop a job before its next step. Harmless when it has ended; no event follows."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)

    def abort(self) -> None:
        """Fail every job that runs or waits, and take no more. Called on the loop of the jobs."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *([self._running] if self._running else [])]
            self._changed.notify()
        for job in jobs:
            self.cancel(job)
            job.events.put_nowait(SHUTDOWN)

    def join(self, timeout: float) -> None:
        """Wait for the thread to end, after `abort`."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while job := self._next():
            finish = self._drive(job)
            with self._changed:
                self._running = None
            if not job.cancelled:
                _post(job, finish)

    def _next(self) -> Job | None:
        """Wait for a job; None ends the thread."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            self._running = self._waiting.popleft() if self._waiting else None
            return self._running

    def _drive(self, job: Job) -> Finish:
        steps = self._generate(job.request)
        try:
            while not job.cancelled:
                event = next(steps)
                if event is not None:
                    _post(job, event)
            return Finish("cancelled")
        except StopIteration as end:
            return end.value
        except LovecraftError as error:
            log.error("%s", error)
            return Finish("failed", message=error.message, code="model_error")
        except Exception:  # the boundary of one request: it fails, the others go on
            log.exception("a request failed")
            return Finish("failed", message="internal error", code="internal_error")
        finally:
            steps.close()


async def events(job: Job, timeout: float) -> AsyncIterator[int | Read | Finish | None]:
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


def _post(job: Job, event: int | Read | Finish) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: its reader is gone with its server
        job.loop.call_soon_threadsafe(job.events.put_nowait, event)
