import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from lovecraft.engine.engine import SHUTDOWN, Engine, Job, events
from lovecraft.engine.request import Finish, Read, Request
from lovecraft.errors import ModelError, RequestError
from tests.fake import Scripts, Steps, scripted

Make = Callable[..., Engine]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Engine] = []

    def one(generate: Callable[[Request], Steps], max_queue: int = 2, slots: int = 1) -> Engine:
        made.append(Engine(Scripts(generate, slots=slots), max_queue=max_queue))
        return made[-1]

    yield one
    for engine in made:
        engine.abort()
        engine.join(2)
        assert not engine._thread.is_alive()


async def read(job: Job) -> list[int | Finish]:
    return [event async for event in events(job, 5) if not isinstance(event, Read)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.001)


def blocking(release: threading.Event) -> Callable[[Request], Steps]:
    """Return a `generate` that makes one token and then waits for `release` before each further one."""

    def generate(request: Request) -> Steps:
        for step in range(request.max_tokens):
            yield step
            release.wait(5)
        return Finish("length")

    return generate


def test_tokens_arrive_in_order_then_the_finish(make: Make) -> None:
    async def main() -> None:
        [job] = make(scripted([5, 6, 7])).submit([Request((1,), 4)])
        assert await read(job) == [5, 6, 7, 5, Finish("length")]

    asyncio.run(main())


def test_first_come_first_served(make: Make) -> None:
    async def main() -> None:
        engine = make(scripted([5, 6]), max_queue=10)
        jobs = [job for _ in range(4) for job in engine.submit([Request((1,), 3)])]
        done: list[int] = []

        async def follow(number: int) -> None:
            await read(jobs[number])
            done.append(number)

        await asyncio.gather(*map(follow, range(4)))
        assert done == [0, 1, 2, 3]
        await until(lambda: engine.jobs == 0)

    asyncio.run(main())


def test_full_queue_refuses_and_takes_none_of_a_group(make: Make) -> None:
    async def main() -> None:
        release = threading.Event()
        engine = make(blocking(release), max_queue=1)
        [first] = engine.submit([Request((1,), 2)])
        [second] = engine.submit([Request((1,), 2)])
        with pytest.raises(RequestError) as caught:
            engine.submit([Request((1,), 2)] * 3)
        assert (caught.value.status, caught.value.code) == (429, "queue_full")
        assert engine.jobs == 2
        release.set()
        assert await read(first) == await read(second) == [0, 1, Finish("length")]

    asyncio.run(main())


def test_a_group_that_would_pass_the_queue_is_refused_whole(make: Make) -> None:
    async def main() -> None:
        release = threading.Event()
        engine = make(blocking(release), max_queue=2)
        engine.submit([Request((1,), 2)])
        with pytest.raises(RequestError):
            engine.submit([Request((1,), 2)] * 3)
        assert len(engine.submit([Request((1,), 2)] * 2)) == 2
        release.set()

    asyncio.run(main())


def test_queue_of_zero_still_runs_one(make: Make) -> None:
    async def main() -> None:
        engine = make(scripted([5]), max_queue=0)
        assert await read(engine.submit([Request((1,), 1)])[0]) == [5, Finish("length")]

    asyncio.run(main())


def test_cancelling_frees_the_running_and_the_waiting(make: Make) -> None:
    async def main() -> None:
        release = threading.Event()
        engine = make(blocking(release), max_queue=5)
        running, waiting, last = engine.submit([Request((1,), 1000)] * 2 + [Request((1,), 1)])
        assert await running.events.get() == 0
        for job in (waiting, running, waiting, running):  # harmless twice
            engine.cancel(job)
        assert engine.jobs == 2
        release.set()
        assert await read(last) == [0, Finish("length")]
        await until(lambda: engine.jobs == 0)
        engine.cancel(last)

    asyncio.run(main())


@pytest.mark.parametrize("error", [ModelError("not finite"), ZeroDivisionError("secret path")])
def test_failing_request_fails_alone(make: Make, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def generate(request: Request) -> Steps:
        yield 1
        if request.prompt == (13,):
            raise error
        return Finish("length")

    async def main() -> None:
        engine = make(generate)
        bad, good = engine.submit([Request((13,), 2), Request((1,), 2)])
        finish = (await read(bad))[-1]
        assert isinstance(finish, Finish)
        assert finish.reason == "failed"
        assert "secret" not in finish.message
        assert await read(good) == [1, Finish("length")]

    asyncio.run(main())
    assert str(error) in caplog.text


def test_abort_ends_everyone_and_takes_no_more(make: Make) -> None:
    async def main() -> None:
        release = threading.Event()
        engine = make(blocking(release), max_queue=5)
        jobs = engine.submit([Request((1,), 1000)] * 3)
        assert await jobs[0].events.get() == 0
        engine.abort()
        release.set()
        assert [(await read(job))[-1] for job in jobs] == [SHUTDOWN] * 3
        with pytest.raises(RequestError) as caught:
            engine.submit([Request((1,), 1)])
        assert caught.value.status == 503

    asyncio.run(main())


def test_events_say_when_nothing_happens(make: Make) -> None:
    async def main() -> None:
        release = threading.Event()
        engine = make(blocking(release))
        stream = events(engine.submit([Request((1,), 2)])[0], 0.02)
        assert [await anext(stream), await anext(stream)] == [0, None]
        release.set()

    asyncio.run(main())


def test_as_many_run_as_there_are_slots(make: Make) -> None:
    async def main() -> None:
        release = threading.Event()
        engine = make(blocking(release), max_queue=3, slots=2)
        jobs = engine.submit([Request((1,), 2)] * 5)
        assert [await job.events.get() for job in jobs[:2]] == [0, 0]
        assert (engine.running, engine.waiting, engine.jobs) == (2, 3, 5)
        with pytest.raises(RequestError):
            engine.submit([Request((1,), 2)])
        release.set()
        for job in jobs[2:]:
            assert await read(job) == [0, 1, Finish("length")]
        await until(lambda: engine.jobs == 0)

    asyncio.run(main())


def test_a_cancelled_request_makes_way_at_the_next_pass(make: Make) -> None:
    async def main() -> None:
        engine = make(scripted([5], delay=0.001), slots=2)
        endless = engine.submit([Request((1,), 1_000_000)] * 2)
        [waiting] = engine.submit([Request((1,), 1)])
        assert isinstance(await endless[1].events.get(), Read)
        engine.cancel(endless[1])
        assert await read(waiting) == [5, Finish("length")]
        assert engine.running == 1
        engine.cancel(endless[0])
        await until(lambda: engine.jobs == 0)

    asyncio.run(main())


def test_beat_goes_on_while_idle_and_while_working(make: Make) -> None:
    async def main() -> None:
        engine = make(scripted([5], delay=0.001))
        before = engine.beat
        await read(engine.submit([Request((1,), 3)])[0])
        assert engine.beat > before
        assert engine.kv_usage == 0

    asyncio.run(main())
