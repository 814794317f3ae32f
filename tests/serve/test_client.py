import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lovecraft.errors import ServeError
from lovecraft.serve.client import first_model, stream
from tests.serving import TEXT, Made, running

BODY = {"model": "org/tiny", "prompt": "so", "max_tokens": 100}


def complete(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return stream(url, "completions", body)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_chunks_of_our_own_server(make: Callable[..., Made], suffix: str) -> None:
    with running(make()) as server:
        url = server.url + suffix
        assert first_model(url) == "org/tiny"
        found = list(complete(url, BODY))
        assert "".join(choice["text"] for chunk in found for choice in chunk["choices"]) == TEXT
        with pytest.raises(ServeError, match=r"400: .*temperature"):
            list(complete(url, {**BODY, "temperature": 9}))


Answer = Callable[[bytes], str]


@pytest.fixture
def answer() -> Iterator[Answer]:
    """Return a function that makes a server which answers every request with the same bytes, and gives its URL."""
    servers = []

    def one(raw: bytes) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.wfile.write(raw)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield one
    for server in servers:
        server.shutdown()
        server.server_close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def test_comments_and_other_lines_are_passed_over(answer: Answer) -> None:
    url = answer(HEAD + b'\r\n: hello\n\nevent: x\ndata: {"choices": []}\r\n\r\ndata: [DONE]\n\n')
    assert list(complete(url, BODY)) == [{"choices": []}]


def test_stream_that_breaks_off_is_an_error(answer: Answer) -> None:
    for raw in (
        HEAD + b'\r\ndata: {"choices": []}\n\n',
        HEAD + b"Content-Length: 500\r\n\r\ndata: {}\n\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n10\r\ndata",
        HEAD + b'\r\ndata: {"choi',
    ):
        with pytest.raises(ServeError, match="broke off"):
            list(complete(answer(raw), BODY))


def test_error_in_the_stream_is_raised(answer: Answer) -> None:
    url = answer(HEAD + b'\r\ndata: {"error": {"message": "no memory"}}\n\n')
    with pytest.raises(ServeError, match="no memory"):
        list(complete(url, BODY))


def test_answer_that_is_not_openais_is_shown(answer: Answer) -> None:
    url = answer(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nsorry")
    with pytest.raises(ServeError, match="502: sorry"):
        first_model(url)


def test_web_page_is_not_shown_but_named_by_its_status(answer: Answer) -> None:
    url = answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\n<!DOCTYPE html>")
    with pytest.raises(ServeError, match=r"404: Not Found$") as caught:
        first_model(url)
    assert "OpenAI" in caught.value.hint


@pytest.mark.parametrize("body", [b"<!DOCTYPE html>", b"[]", b'{"data": [1]}', b"{}"])
def test_answer_without_a_list_of_models_is_an_error(answer: Answer, body: bytes) -> None:
    with pytest.raises(ServeError, match="no list of models") as caught:
        first_model(answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)))
    assert "OpenAI" in caught.value.hint


def test_refused_key_says_how_to_give_one(answer: Answer) -> None:
    url = answer(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nkey?")
    with pytest.raises(ServeError, match="401: key") as caught:
        first_model(url)
    assert "--api-key-file FILE" in caught.value.hint
    with pytest.raises(ServeError) as caught:
        first_model(url, "wrong")
    assert not caught.value.hint


def test_no_models_is_an_error(answer: Answer) -> None:
    with pytest.raises(ServeError, match="lists no model"):
        first_model(answer(b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"data": []}'))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://"])
def test_no_server_is_an_error_with_a_hint(url: str) -> None:
    with pytest.raises(ServeError, match="cannot reach") as caught:
        list(complete(url, BODY))
    assert "lc serve" in caught.value.hint


@pytest.mark.parametrize("url", ["nonsense", "file:///etc", "127.0.0.1:8000"])
def test_what_is_no_url_is_named_with_one(url: str) -> None:
    with pytest.raises(ServeError, match=f"'{url}' is not a server's URL") as caught:
        first_model(url)
    assert "http://" in caught.value.hint
