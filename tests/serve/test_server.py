import hashlib
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from lovecraft import ServeConfig
from lovecraft.errors import ModelError, ServeError
from lovecraft.serve import server
from lovecraft.serve.server import bind, is_loopback, make_access
from tests.serving import connect, wait_for


def test_port_in_use_is_named() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"127.0.0.1:{port}: Address already in use") as caught:
            bind("127.0.0.1", port)
    assert "--port" in caught.value.hint


def test_small_pieces_are_sent_at_once() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP, "else asyncio leaves Nagle's algorithm on"


def test_port_is_taken_before_the_model_is_loaded() -> None:
    with bind("127.0.0.1", 0) as taken:
        config = ServeConfig(port=taken.getsockname()[1])
        with pytest.raises(ServeError):
            server.run(config, ["m"], load=lambda: pytest.fail("it was loaded"), ready=lambda *_: None)


def test_unknown_host_is_named() -> None:
    with pytest.raises(ServeError, match=r"256\.0\.0\.1"):
        bind("256.0.0.1", 0)


def test_what_loading_raises_ends_the_server() -> None:
    def load() -> None:
        raise ModelError("damaged")

    with pytest.raises(ModelError, match="damaged"):
        server.run(ServeConfig(port=0), ["m"], load, lambda *_: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    access = make_access(ServeConfig(host=host))
    assert access.hosts is not None
    assert {"localhost", "127.0.0.1"} <= access.hosts


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.example.org", ""])
def test_other_hosts_need_a_key(host: str, tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="open to other machines") as caught:
        make_access(ServeConfig(host=host))
    assert "--api-key-file" in caught.value.hint
    (tmp_path / "keys").write_text("sesame\n\nöffne\n", encoding="utf-8")
    access = make_access(ServeConfig(host=host, api_key_file=tmp_path / "keys"))
    assert access.keys == tuple(hashlib.sha256(key.encode()).digest() for key in ("sesame", "öffne"))
    assert access.hosts is None


PROGRAM = """
    import pathlib, sys, time
    from lovecraft import ServeConfig
    from lovecraft.engine.engine import Engine
    from lovecraft.serve.server import run
    from lovecraft.serve.service import Served
    from lovecraft.tokenizer import load_tokenizer
    from tests.fake import Scripts, scripted

    def load():
        print("loading", flush=True)
        time.sleep({loading})
        engine = Engine(Scripts(scripted([70], delay=0.002)), max_queue=4)
        return dict(m=Served(load_tokenizer(pathlib.Path(sys.argv[1])), engine))

    config = ServeConfig(port=0, context="roll", drain_timeout={drain})
    run(config, ["m"], load, lambda url, served: print(url, flush=True))
    print("ended", flush=True)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(model_dir: Path) -> Iterator[Start]:
    """Return a starter of servers in processes of their own."""
    processes = []

    def one(loading: float = 0.0, drain: float = 0.1) -> subprocess.Popen[str]:
        code = textwrap.dedent(PROGRAM).format(loading=loading, drain=drain)
        command = [sys.executable, "-c", code, str(model_dir)]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        return process

    yield one
    for process in processes:
        process.kill()
        process.communicate()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_an_idle_server_with_code_zero(start: Start, number: signal.Signals) -> None:
    process = start()
    assert httpx.get(url_of(process) + "/health").json() == {"status": "ready"}
    process.send_signal(number)
    assert process.communicate(timeout=5)[0] == "ended\n"
    assert process.returncode == 0


def test_signal_while_loading_does_not_wait_for_the_model(start: Start) -> None:
    process = start(loading=60)
    before = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=5)[0] == "ended\n"
    assert process.returncode == 0
    assert time.monotonic() - before < 3


def test_second_signal_ends_running_requests_at_once(start: Start) -> None:
    process = start(drain=60)
    url = url_of(process)
    body = {"model": "m", "prompt": "so", "max_tokens": 1_000_000, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=5) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        process.send_signal(signal.SIGTERM)
        port = int(url.rpartition(":")[2])
        wait_for(lambda: not _listens(port))
        assert next(lines) == ""
        process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert "server_shutdown" in rest[-1]
    assert process.communicate(timeout=5)[0] == "ended\n"
    assert process.returncode == 0


def _listens(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return False
    return True
