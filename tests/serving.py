"""Servers for tests: an application over a fake engine, and a real uvicorn on a free port in a thread."""

import asyncio
import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import attrs
import httpx2 as httpx
from starlette.testclient import TestClient

from lovecraft.chat_template import ChatTemplate
from lovecraft.engine.engine import Engine
from lovecraft.engine.request import Policy, Request
from lovecraft.serve.app import make_app
from lovecraft.serve.asgi import Access
from lovecraft.serve.server import Server, bind
from lovecraft.serve.service import Served, Service
from lovecraft.tokenizer import Tokenizer
from tests.fake import Scripts, Steps, scripted
from tests.tiny import EOS_ID

MODEL = "org/tiny"
TEXT = "The lamp on the pier — 海 😀 — had burned for eleven winters."
CONTEXT = 128


@attrs.define
class Made:
    """A service and the engine behind it."""

    service: Service
    engine: Engine

    def client(self, *, keys: Sequence[str] = (), hosts: frozenset[str] | None = None) -> TestClient:
        """Return a client of the application itself."""
        access = Access(tuple(hashlib.sha256(key.encode()).digest() for key in keys), hosts)
        return TestClient(make_app(self.service, access), raise_server_exceptions=False)


@contextlib.contextmanager
def serving(
    tokenizer: Tokenizer,
    generate: Callable[[Request], Steps] | None = None,
    *,
    policy: Policy = "error",
    max_queue: int = 64,
    slots: int = 1,
    template: ChatTemplate | None = None,
) -> Iterator[Made]:
    """Make a service over a fake engine, which says TEXT and EOS unless told otherwise."""
    generate = generate or scripted([*tokenizer.encode(TEXT), EOS_ID])
    engine = Engine(Scripts(generate, CONTEXT, slots), max_queue=max_queue)
    yield Made(Service([MODEL], policy, served={MODEL: Served(tokenizer, engine, template)}), engine)
    engine.abort()
    engine.join(2)


@attrs.define
class Running:
    """A real server on a loopback port."""

    server: Server
    port: int
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Do what a signal does."""
        self.loop.call_soon_threadsafe(self.server.stop)


@contextlib.contextmanager
def running(made: Made, *, drain_timeout: float = 1.0) -> Iterator[Running]:
    """Serve in a thread; stop at the end."""
    listener = bind("127.0.0.1", 0)
    server = Server(made.service, Access(), drain_timeout)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve([listener])), daemon=True)
    thread.start()
    found = Running(server, listener.getsockname()[1], loop)
    try:
        wait_for(lambda: _answers(found.port))
        yield found
    finally:
        if not server.should_exit:
            found.stop()
        thread.join(5)
        assert not thread.is_alive()
        loop.close()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.ConnectError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def connect(port: int) -> socket.socket:
    """Return a raw connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=5)
