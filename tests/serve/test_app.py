import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from lovecraft.engine.request import Finish, Read, Request
from lovecraft.errors import ModelError
from lovecraft.tokenizer import Tokenizer
from tests.fake import Steps, scripted
from tests.serve.test_protocol import MALFORMED, values
from tests.serving import CONTEXT, TEXT, Made

Make = Callable[..., Made]


def post(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/completions", json={"model": "org/tiny", "prompt": "so", "max_tokens": 100, **fields})


def chunks(response: Any) -> list[dict[str, Any]]:
    """Return a stream's objects, after checking its frames to the byte."""
    assert response.status_code == 200
    frames = response.text.split("\n\n")
    assert frames.pop() == ""
    assert frames.pop() == "data: [DONE]"
    assert all(frame.startswith("data: {") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def text_of(found: list[dict[str, Any]], index: int = 0) -> str:
    return "".join(choice["text"] for chunk in found for choice in chunk["choices"] if choice["index"] == index)


def error_of(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    return error


# --- completions


def test_completion_has_openais_shape(client: TestClient, tokenizer: Tokenizer) -> None:
    reply = post(client).json()
    prompt, new = 1 + len(tokenizer.encode("so")), len(tokenizer.encode(TEXT)) + 1
    assert reply["id"].startswith("cmpl-")
    assert (reply["object"], reply["model"]) == ("text_completion", "org/tiny")
    assert reply["choices"] == [{"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}]
    assert reply["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": new,
        "total_tokens": prompt + new,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_limit_defaults_to_sixteen_tokens(client: TestClient) -> None:
    reply = post(client, max_tokens=None).json()
    assert (reply["usage"]["completion_tokens"], reply["choices"][0]["finish_reason"]) == (16, "length")


def test_ignore_eos_goes_on_to_the_limit(client: TestClient) -> None:
    reply = post(client, ignore_eos=True).json()
    assert (reply["usage"]["completion_tokens"], reply["choices"][0]["finish_reason"]) == (100, "length")
    assert reply["choices"][0]["text"].startswith(TEXT + "The lamp")


@pytest.mark.parametrize("stop", ["had", [" had burned", "winters"], ["ad b", "xyz", "winters"]])
def test_stop_string_ends_the_text_and_is_not_in_it(client: TestClient, stop: str | list[str]) -> None:
    first = min(TEXT.find(s) for s in ([stop] if isinstance(stop, str) else stop) if s in TEXT)
    whole = post(client, stop=stop).json()
    assert (whole["choices"][0]["text"], whole["choices"][0]["finish_reason"]) == (TEXT[:first], "stop")
    streamed = chunks(post(client, stop=stop, stream=True))
    assert text_of(streamed) == TEXT[:first]
    assert whole["usage"]["completion_tokens"] < 60


def test_echo_comes_first_and_only_once(client: TestClient) -> None:
    assert post(client, echo=True).json()["choices"][0]["text"] == "so" + TEXT
    assert text_of(chunks(post(client, echo=True, stream=True))) == "so" + TEXT
    ids = [0, 70, 80]
    assert post(client, echo=True, prompt=ids).json()["choices"][0]["text"].endswith(TEXT)


def test_choices_are_ordered_prompts_times_n_and_prompts_count_once(client: TestClient, tokenizer: Tokenizer) -> None:
    reply = post(client, prompt=["so", "it was"], n=2, max_tokens=3).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    prompt = 2 + len(tokenizer.encode("so")) + len(tokenizer.encode("it was"))
    assert reply["usage"]["prompt_tokens"] == prompt
    assert reply["usage"]["completion_tokens"] == 12


def test_token_ids_are_taken_as_they_are(make: Make) -> None:
    seen: list[Request] = []

    def generate(request: Request) -> Steps:
        seen.append(request)
        yield Read(0)
        return Finish("length")

    client = make(generate).client()
    post(client, prompt=[[70], [71, 72]], temperature=0.5, top_k=3, seed=9)
    assert [request.prompt for request in seen] == [(70,), (71, 72)]
    assert (seen[0].sampling.temperature, seen[0].sampling.top_k, seen[0].sampling.seed) == (0.5, 3, 9)


@pytest.mark.parametrize("ids", [[-1], [300], [2**70]])
def test_ids_outside_the_vocabulary_are_refused(client: TestClient, ids: list[int]) -> None:
    assert error_of(post(client, prompt=ids), 400)["param"] == "prompt"


def test_prompt_longer_than_the_context_is_refused_with_both_numbers(make: Make) -> None:
    for policy in ("error", "stop", "roll"):
        error = error_of(post(make(policy=policy).client(), prompt=[70] * CONTEXT, stream=True), 400)
        assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
        assert f"{CONTEXT} tokens" in error["message"]
        assert f"context is {CONTEXT}" in error["message"]


def test_only_the_policy_error_refuses_a_long_continuation(make: Make) -> None:
    error = error_of(post(make().client(), max_tokens=CONTEXT), 400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "max_tokens")
    assert f"{CONTEXT} more" in error["message"]
    assert post(make(policy="stop").client(), max_tokens=CONTEXT).status_code == 200


def test_rolls_are_reported(make: Make) -> None:
    def generate(request: Request) -> Steps:
        yield from (Read(2), 70, Read(1), 71, Read(1))
        return Finish("length")

    client = make(generate, policy="roll").client()
    reply = post(client).json()
    assert reply["lovecraft"] == {"context_rolls": 2}
    assert reply["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert chunks(post(client, stream=True))[-1]["lovecraft"] == {"context_rolls": 2}


# --- streams


def test_stream_is_the_whole_in_pieces(client: TestClient) -> None:
    response = post(client, stream=True)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    found = chunks(response)
    assert text_of(found) == TEXT == post(client).json()["choices"][0]["text"]
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in found}) == 1
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in found]
    assert reasons == [None] * (len(found) - 1) + ["stop"]
    assert all(chunk["choices"][0]["text"] for chunk in found[:-1])
    assert all("usage" not in chunk for chunk in found)
    assert not any("\ufffd" in chunk["choices"][0]["text"] for chunk in found)


def test_usage_is_the_last_chunk_when_asked_for(client: TestClient) -> None:
    found = chunks(post(client, stream=True, n=2, stream_options={"include_usage": True}))
    assert found[-1]["choices"] == []
    assert found[-1]["usage"] == post(client, n=2).json()["usage"]
    assert all(chunk["usage"] is None for chunk in found[:-1])


def test_choices_of_a_stream_begin_with_the_first(client: TestClient) -> None:
    found = chunks(post(client, stream=True, n=2))
    indices = [choice["index"] for chunk in found for choice in chunk["choices"]]
    assert indices == sorted(indices)
    assert text_of(found, 0) == text_of(found, 1) == TEXT


def test_choices_of_a_stream_come_mixed(make: Make) -> None:
    found = chunks(post(make(scripted([70]), slots=2).client(), stream=True, n=2, max_tokens=20))
    indices = [choice["index"] for chunk in found for choice in chunk["choices"]]
    assert indices[0] == 0
    assert indices != sorted(indices)


def test_nothing_comes_before_the_first_choice(make: Make) -> None:
    def generate(request: Request) -> Steps:
        yield Read(0)
        if request.sampling.seed == 5:  # the first choice is late
            for _ in range(20):
                time.sleep(0.002)
                yield None
        yield 70
        yield 71
        return Finish("length")

    found = chunks(post(make(generate, slots=2).client(), stream=True, n=2, seed=5))
    assert [choice["index"] for chunk in found for choice in chunk["choices"]][:2] == [0, 1]
    assert text_of(found, 0) == text_of(found, 1) != ""
    assert [c["choices"][0]["finish_reason"] for c in found].count("length") == 2


tokens = st.lists(st.integers(0, 299), min_size=1, max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(ids=tokens, stops=st.lists(st.text("the sa", min_size=1, max_size=4), max_size=3))
def test_any_tokens_give_the_same_text_streamed_and_whole(make: Make, ids: list[int], stops: list[str]) -> None:
    client = make(scripted(ids)).client()
    whole = post(client, max_tokens=40, stop=stops or None, ignore_eos=True).json()["choices"][0]
    found = chunks(post(client, max_tokens=40, stop=stops or None, ignore_eos=True, stream=True))
    assert text_of(found) == whole["text"]
    assert found[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert not any(stop in whole["text"] for stop in stops)


# --- errors


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bodies_are_400(client: TestClient, name: str) -> None:
    response = client.post("/v1/completions", content=MALFORMED[name], headers={"content-type": "application/json"})
    assert error_of(response, 400)["type"] == "invalid_request_error"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["prompt", "n", "stop", "stream", "temperature", "seed", "best_of"]), values))
def test_no_json_is_500(client: TestClient, fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "org/tiny", "prompt": "so", **fields}).encode(errors="surrogatepass")
    response = client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
def test_other_content_types_are_415(client: TestClient, kind: str) -> None:
    body = json.dumps({"model": "org/tiny", "prompt": "so"}).encode()
    error_of(client.post("/v1/completions", content=body, headers={"content-type": kind}), 415)


def test_content_type_may_name_its_charset(client: TestClient) -> None:
    body = json.dumps({"model": "org/tiny", "prompt": "so"}).encode()
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post("/v1/completions", content=body, headers=headers).status_code == 200


def test_unknown_paths_and_methods_have_openais_errors(client: TestClient) -> None:
    assert "nope" in error_of(client.get("/v1/nope"), 404)["message"]
    for method in ("GET", "PUT", "OPTIONS", "DELETE"):
        response = client.request(method, "/v1/completions")
        error_of(response, 405)
        assert response.headers["allow"] == "POST"


def test_unknown_model_is_404(client: TestClient) -> None:
    error = error_of(post(client, model="gpt-4"), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_models(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["org/tiny"])
    assert client.get("/v1/models/org%2Ftiny").json() == client.get("/v1/models/org/tiny").json() == listed["data"][0]
    assert listed["data"][0]["object"] == "model"
    assert isinstance(listed["data"][0]["created"], int)
    for name in ("nope", "", "org/tiny/"):
        assert error_of(client.get(f"/v1/models/{name}"), 404)["code"] == "model_not_found"


def test_failing_engine_is_500_without_a_word_of_why(make: Make) -> None:
    def generate(request: Request) -> Steps:
        yield Read(0)
        raise ZeroDivisionError("/secret/path.py")

    response = post(make(generate).client())
    error = error_of(response, 500)
    assert (error["code"], error["type"]) == ("internal_error", "server_error")
    assert "secret" not in response.text
    assert response.headers["x-should-retry"] == "false"


def test_failure_in_a_stream_is_an_event(make: Make) -> None:
    def generate(request: Request) -> Steps:
        yield 70
        raise ModelError("the model's logits are not finite")

    frames = post(make(generate).client(), stream=True).text.split("\n\n")
    assert json.loads(frames[-2].removeprefix("data: "))["error"]["code"] == "model_error"
    assert "[DONE]" not in "".join(frames)


def test_bug_is_500_and_logged_with_the_request_id(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lovecraft.serve.prepare.completion", lambda *_: 1 / 0)
    response = post(make().client())
    assert error_of(response, 500)["message"] == "internal error"
    assert response.headers["x-request-id"] in caplog.text


def test_full_queue_is_429_with_retry_after(make: Make) -> None:
    release = threading.Event()

    def generate(request: Request) -> Steps:
        yield Read(0)
        release.wait(5)
        return Finish("length")

    made = make(generate, max_queue=0)
    with made.client() as client:
        answers: list[int] = []
        first = threading.Thread(target=lambda: answers.append(post(client).status_code))
        first.start()
        while not made.engine.jobs:
            pass
        response = post(client)
        release.set()
        first.join()
    assert error_of(response, 429)["type"] == "rate_limit_error"
    assert 1 <= int(response.headers["retry-after"]) <= 30
    assert answers == [200]


def test_body_over_the_limit_is_413(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    big = b" " * (4 * 1024 * 1024 + 1)
    response = client.post("/v1/completions", content=big, headers=headers)
    error_of(response, 413)
    assert response.headers["connection"] == "close"
    error_of(client.post("/v1/completions", content=iter([big[:3000000], big[:3000000]]), headers=headers), 413)
    error_of(client.post("/v1/completions", content=b"{}", headers={**headers, "content-length": "9" * 30}), 413)


# --- who comes in


def test_loading_and_draining_are_503_but_health_answers(make: Make) -> None:
    made = make()
    served, made.service.served = made.service.served, None
    client = made.client()
    assert (client.get("/health").status_code, client.get("/health").json()) == (503, {"status": "loading"})
    response = post(client)
    assert "loading" in error_of(response, 503)["message"]
    assert response.headers["retry-after"] == "5"
    made.service.served = served
    assert (client.get("/health").status_code, client.get("/health").json()) == (200, {"status": "ready"})
    assert post(client).status_code == 200
    made.service.draining = True
    assert client.get("/health").status_code == 503
    assert "draining" in error_of(post(client), 503)["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic sesame"},
        {"authorization": b"Bearer \xff\xe9"},
        {"authorization": "sesame"},
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/completions",
        "/metrics",
        "/tokenize",
        "/openapi.json",
        "/nope",
        "//health",
        "/health/",
        "//",
        "/v1/%2e%2e/health",
    ],
)
def test_every_path_but_health_needs_a_key(make: Make, path: str, headers: dict[str, str]) -> None:
    client = make().client(keys=["sesame", "open"])
    for method in ("GET", "POST"):
        response = client.request(method, f"http://testserver{path}", headers=headers)
        assert error_of(response, 401)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"


def test_any_of_the_keys_lets_in_and_health_needs_none(make: Make) -> None:
    client = make().client(keys=["sesame", "öffne"])
    assert client.get("/health").status_code == 200
    for key in (b"sesame", "öffne".encode()):
        assert client.get("/v1/models", headers={"authorization": b"Bearer " + key}).status_code == 200


def test_host_header_does_not_decide_about_the_path(make: Make) -> None:
    client = make().client(keys=["sesame"])
    for host in ("x/health?", "x/health#", "/health"):
        error_of(client.get("/v1/models", headers={"host": host}), 401)


def test_only_local_names_are_answered_on_loopback(make: Make) -> None:
    client = make().client(hosts=frozenset({"localhost", "127.0.0.1", "[::1]"}))
    for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:80"):
        assert client.get("/v1/models", headers={"host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "", "::1"):
        for path in ("/v1/models", "/health"):
            assert error_of(client.get(path, headers={"host": host}), 403)["code"] == "host_not_allowed"


def test_request_id_is_echoed_only_if_it_is_harmless(client: TestClient) -> None:
    assert client.get("/health", headers={"x-request-id": "abc-1_2"}).headers["x-request-id"] == "abc-1_2"
    for bad in ("a b", "x" * 65, "a\tb", "é", "a;b"):
        answered = client.get("/health", headers={"x-request-id": bad.encode()}).headers["x-request-id"]
        assert answered != bad
        assert len(answered) == 32


def test_texts_are_not_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lovecraft"):
        post(client, prompt="my secret diary")
    assert "tokens" in caplog.text
    assert "diary" not in caplog.text
    assert "lamp" not in caplog.text
