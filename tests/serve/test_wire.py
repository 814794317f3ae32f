"""The bytes on a real connection, and what happens to the engine when clients leave."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from lovecraft.engine.request import Finish, Read, Request
from lovecraft.serve import app, reply, sse, wire
from lovecraft.serve.server import bind
from lovecraft.tokenizer import Tokenizer
from tests.fake import Steps, scripted
from tests.serving import TEXT, Made, Running, connect, running, wait_for

Make = Callable[..., Made]


@pytest.fixture
def server(make: Make) -> Iterator[Running]:
    with running(make()) as found:
        yield found


def request(path: str = "/v1/completions", *lines: str, **body: object) -> bytes:
    """Return a request's bytes."""
    content = json.dumps({"model": "org/tiny", "prompt": "so", "max_tokens": 100, **body}).encode()
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *lines]
    return "\r\n".join([*head, f"Content-Length: {len(content)}", "", ""]).encode() + content


def receive(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data


def test_stream_is_chunked_and_ends_with_done(server: Running) -> None:
    with connect(server.port) as connection:
        connection.sendall(request(stream=True))
        data = receive(connection, b"\r\n0\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 200 ok"
    assert b"content-type: text/event-stream; charset=utf-8" in lines
    assert b"transfer-encoding: chunked" in lines
    assert not any(line.startswith((b"content-length", b"content-encoding")) for line in lines)
    assert body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_connection_is_reused_after_an_error(server: Running) -> None:
    with connect(server.port) as connection:
        for wrong in (request("/v1/nope"), request(temperature=9), request(model="x")):
            connection.sendall(wrong)
            assert b'"error"' in receive(connection, b"}}")
        connection.sendall(request())
        assert b'"usage"' in receive(connection, b"}}}")


def test_too_long_a_body_closes_the_connection(server: Running) -> None:
    with connect(server.port) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Content-Length: 99999999\r\n\r\n{")
        data = receive(connection, b"never")
    assert data.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in data.lower()


def test_client_that_leaves_while_sending_is_no_error(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with running(make()) as server:
        with connect(server.port) as connection:
            connection.sendall(request()[:-5])
        with connect(server.port) as connection:
            connection.sendall(request())
            assert b'"usage"' in receive(connection, b"}}}")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def endless(generated: list[int]) -> Callable[[Request], Steps]:
    """Return a `generate` that counts its tokens and never ends by itself."""
    plain = scripted([70], delay=0.002)

    def generate(request: Request) -> Steps:
        for event in plain(request):
            generated.append(1)
            yield event
        return Finish("length")

    return generate


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_frees_the_engine(make: Make, stream: bool) -> None:
    made = make(endless([]), policy="roll")
    with running(made) as server:
        for _ in range(3):
            with connect(server.port) as connection:
                connection.sendall(request(stream=stream, max_tokens=1_000_000))
                if stream:
                    receive(connection, b'"text"')
                wait_for(lambda: made.engine.jobs == 1)
            wait_for(lambda: made.engine.jobs == 0, 1.0)


def test_two_hundred_clients_that_leave_hold_nothing(make: Make) -> None:
    made = make(endless([]), policy="roll", max_queue=300, slots=4)
    with running(made) as server:
        files = len(os.listdir("/proc/self/fd"))
        for number in range(200):
            with connect(server.port) as connection:
                connection.sendall(request(stream=number % 2 == 0, max_tokens=1_000_000))
        wait_for(lambda: made.engine.jobs == 0, 5)
        with connect(server.port) as connection:
            connection.sendall(request(max_tokens=3))
            assert b'"usage"' in receive(connection, b"}}}")
        wait_for(lambda: len(os.listdir("/proc/self/fd")) <= files)


def test_client_that_leaves_the_queue_frees_its_place(make: Make) -> None:
    made = make(endless([]), policy="roll")
    with running(made) as server, connect(server.port) as first:
        first.sendall(request(stream=True, max_tokens=1_000_000))
        receive(first, b'"text"')
        with connect(server.port) as second:
            second.sendall(request())
            wait_for(lambda: made.engine.jobs == 2)
        wait_for(lambda: made.engine.jobs == 1, 1.0)


def test_stop_string_frees_the_engine(make: Make, tokenizer: Tokenizer) -> None:
    generated: list[int] = []
    made = make(endless(generated), policy="roll")
    with running(made) as server, connect(server.port) as connection:
        letter = tokenizer.decode([70])
        connection.sendall(request(stop=letter * 3, max_tokens=1_000_000))
        assert b'"finish_reason":"stop"' in receive(connection, b"}}}")
        wait_for(lambda: made.engine.jobs == 0)
    assert len(generated) < 100


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel hold little of what a client does not read."""

    def bind_narrow(host: str, port: int) -> socket.socket:
        listener = bind(host, port)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return listener

    monkeypatch.setattr("tests.serving.bind", bind_narrow)


@contextlib.contextmanager
def slow_reader(server: Running) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", server.port))
        yield connection


@pytest.mark.usefixtures("narrow")
def test_client_that_does_not_read_does_not_stop_another(make: Make) -> None:
    made = make(scripted([70]), policy="roll")
    with running(made) as server, slow_reader(server) as slow, connect(server.port) as other:
        slow.sendall(request(stream=True, max_tokens=2_000))
        other.sendall(request())
        assert b'"usage"' in receive(other, b"}}}")


@pytest.mark.usefixtures("narrow")
def test_client_that_takes_nothing_is_given_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "STALLED_SECONDS", 0.2)
    made = make(endless([]), policy="roll")
    with running(made) as server, slow_reader(server) as slow:
        slow.sendall(request(stream=True, max_tokens=1_000_000))
        wait_for(lambda: made.engine.jobs == 1)
        wait_for(lambda: made.engine.jobs == 0, 5)


def test_comments_keep_a_waiting_client(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "KEEP_ALIVE_SECONDS", 0.02)
    release = threading.Event()

    def generate(request: Request) -> Steps:
        yield Read(0)
        release.wait(5)
        yield 70
        return Finish("length")

    with running(make(generate)) as server, connect(server.port) as connection:
        connection.sendall(request(stream=True))
        assert b": keep-alive\n\n" in receive(connection, b": keep-alive\n\n")
        release.set()
        assert b"[DONE]" in receive(connection, b"[DONE]")


def test_draining_finishes_what_runs_and_refuses_the_rest(make: Make, tokenizer: Tokenizer) -> None:
    made = make(scripted(tokenizer.encode(TEXT), delay=0.005))
    with running(made, drain_timeout=5) as server, connect(server.port) as connection:
        connection.sendall(request(stream=True))
        data = receive(connection, b'"text"')
        server.stop()
        data += receive(connection, b"[DONE]")
        assert data.count(b'"finish_reason":"length"') == 1


def test_what_does_not_finish_in_time_ends_with_an_error(make: Make) -> None:
    made = make(endless([]), policy="roll")
    with running(made, drain_timeout=0.1) as server, connect(server.port) as connection, connect(server.port) as plain:
        connection.sendall(request(stream=True, max_tokens=1_000_000))
        data = receive(connection, b'"text"')
        plain.sendall(request(max_tokens=1_000_000))
        wait_for(lambda: made.engine.jobs == 2)
        server.stop()
        data += receive(connection, b"\r\n0\r\n\r\n")
        assert b'"code":"server_shutdown"' in data
        assert b"[DONE]" not in data
        answer = receive(plain, b"}}")
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"server_shutdown" in answer


# --- limits


def test_head_that_comes_too_slowly_is_cut_off(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.2)
    with running(make()) as server, connect(server.port) as silent, connect(server.port) as slow:
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
        with connect(server.port) as fine:
            fine.sendall(request())
            assert b'"usage"' in receive(fine, b"}}}")
        for connection in (silent, slow):
            assert receive(connection, b"never") == b""


def test_head_that_is_too_long_is_refused(server: Running) -> None:
    with connect(server.port) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                connection.sendall(b"x-long: " + b"x" * 8000 + b"\r\n")
            assert receive(connection, b"never").startswith(b"HTTP/1.1 431")


def test_long_body_is_no_long_head(server: Running) -> None:
    with connect(server.port) as connection:
        for _ in range(2):
            connection.sendall(request(prompt="so", metadata={"note": "x" * 300_000}))
            assert b'"usage"' in receive(connection, b"}}}")


def test_body_that_comes_too_slowly_is_408(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS", 0.1)
    with running(make()) as server, connect(server.port) as connection:
        connection.sendall(request()[:-5])
        assert receive(connection, b"}}").startswith(b"HTTP/1.1 408")
