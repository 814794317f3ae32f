import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lovecraft.serve.sse import EventStream, frame, unless_disconnected


@given(st.dictionaries(st.text(max_size=5), st.text(), max_size=4))
def test_a_frame_is_one_line_and_a_blank_one(value: dict[str, str]) -> None:
    data = frame(value)
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    assert data.count(b"\n") == 2
    assert b"\r" not in data
    assert json.loads(data.removeprefix(b"data: ")) == value


def test_text_is_not_escaped() -> None:
    assert frame({"text": "海"}) == 'data: {"text":"海"}\n\n'.encode()


async def never() -> Any:
    await asyncio.Event().wait()


async def gone() -> dict[str, str]:
    return {"type": "http.disconnect"}


def test_work_is_done_while_the_client_is_there() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 5

    assert asyncio.run(unless_disconnected(never, work())) == 5


def test_work_is_cancelled_and_cleaned_up_when_the_client_leaves() -> None:
    freed = []

    async def work() -> int:
        try:
            return await never()
        finally:
            freed.append(True)

    assert asyncio.run(unless_disconnected(gone, work())) is None
    assert freed == [True]


def test_what_a_stream_holds_is_freed_even_if_it_never_began() -> None:
    freed = []

    async def frames() -> AsyncGenerator[bytes, None]:
        yield b""

    async def send(message: object) -> None:
        await never()

    asyncio.run(EventStream(frames(), lambda: freed.append(True))({"type": "http"}, gone, send))
    assert freed == [True]
