"""Log-probabilities: shapes, offsets, the same streamed and whole, and scoring as lm-evaluation-harness does it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from lovecraft.chat_template import ChatTemplate
from lovecraft.engine.request import Finish, Read, Request, Scored
from lovecraft.serve.logprobs import spell
from lovecraft.tokenizer import Tokenizer
from tests.fake import Steps
from tests.serve.test_app import chunks, post, text_of
from tests.serve.test_chat import ASKED, template  # noqa: F401
from tests.serving import TEXT, Made
from tests.tiny import EOS_ID

Make = Callable[..., Made]


def scoring(tokens: Sequence[int]) -> Callable[[Request], Steps]:
    """Return a `generate` that scores: a token -id/1000, and as the most probable ones the ids 70, 71, ..."""

    def score(request: Request, token: int) -> Scored:
        top = tuple((70 + rank, -0.001 * rank) for rank in range(request.logprobs or 0))
        return Scored(token, -token / 1000, top)

    def generate(request: Request) -> Steps:
        yield Read(0, tuple(score(request, t) for t in request.prompt[1:]) if request.score_prompt else ())
        for step in range(request.max_tokens):
            token = tokens[step % len(tokens)]
            yield token if request.logprobs is None else score(request, token)
            if token in request.stop_ids:
                return Finish("stop")
        return Finish("length")

    return generate


@pytest.fixture
def client(make: Make, tokenizer: Tokenizer) -> TestClient:
    return make(scoring([*tokenizer.encode(TEXT), EOS_ID])).client()


def logprobs_of(response: Any) -> dict[str, list[Any]]:
    return response.json()["choices"][0]["logprobs"]


def joined(found: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Join the log-probabilities of a stream's chunks."""
    rows = [choice["logprobs"] for chunk in found for choice in chunk["choices"] if choice["logprobs"]]
    return {name: [value for row in rows for value in row[name]] for name in rows[0]}


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_every_token_has_its_row(client: TestClient, tokenizer: Tokenizer, count: int) -> None:
    found = logprobs_of(post(client, logprobs=count))
    ids = [*tokenizer.encode(TEXT), EOS_ID]
    assert {len(column) for column in found.values()} == {len(ids)}
    assert found["token_logprobs"] == [-token / 1000 for token in ids]
    for text, logprob, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
        assert top[text] >= logprob
        assert len(top) in (count, count + 1)
    assert all(isinstance(value, float) and math.isfinite(value) for value in found["token_logprobs"])


def test_offsets_are_where_the_tokens_begin(client: TestClient, tokenizer: Tokenizer) -> None:
    found = logprobs_of(post(client, logprobs=0))
    assert found["text_offset"] == sorted(found["text_offset"])
    for text, offset in zip(found["tokens"], found["text_offset"], strict=True):
        if not text.startswith(("bytes:", "</s>")):
            assert TEXT[offset : offset + len(text)] == text
    assert found["tokens"][-1] == "</s>"
    assert found["text_offset"][-1] == len(TEXT)


def test_text_of_a_token_keeps_its_space_and_spells_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT)
    assert b"".join(spell(tokenizer, token)[1] for token in ids).decode() == TEXT
    assert spell(tokenizer, tokenizer.encode("海")[0])[0].startswith("bytes:\\x")
    assert len({spell(tokenizer, token)[0] for token in range(tokenizer.vocab_size)}) == tokenizer.vocab_size


def test_scoring_a_prompt_as_the_evaluation_harness_does(client: TestClient, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("so it was")
    reply = post(client, prompt=[ids, [70, 71]], echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1).json()
    for choice, prompt in zip(reply["choices"], (ids, [70, 71]), strict=True):
        found = choice["logprobs"]
        assert found["token_logprobs"][0] is None
        assert found["top_logprobs"][0] is None
        assert found["token_logprobs"][1:-1] == [-token / 1000 for token in prompt[1:]]
        assert len(found["tokens"]) == len(prompt) + 1
        rows = zip(found["token_logprobs"][1:-1], found["top_logprobs"][1:-1], strict=True)
        assert not any(logprob == max(top.values()) for logprob, top in rows), "which is how it sees what is greedy"
        assert choice["text"].startswith(tokenizer.decode(prompt))


def test_no_tokens_score_the_prompt_alone(client: TestClient, tokenizer: Tokenizer) -> None:
    reply = post(client, echo=True, logprobs=0, max_tokens=0).json()
    [choice] = reply["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("so", "length")
    assert choice["logprobs"]["tokens"] == ["<s>", *(spell(tokenizer, token)[0] for token in tokenizer.encode("so"))]
    assert reply["usage"]["completion_tokens"] == 0
    assert joined(chunks(post(client, echo=True, logprobs=0, max_tokens=0, stream=True))) == choice["logprobs"]


def test_offsets_go_on_behind_an_echo(client: TestClient) -> None:
    alone = logprobs_of(post(client, logprobs=0))["text_offset"]
    assert logprobs_of(post(client, logprobs=0, echo=True))["text_offset"][-len(alone) :] == [2 + at for at in alone]


tokens = st.lists(st.integers(0, 299), min_size=1, max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(tokens, st.lists(st.text("the sa", min_size=1, max_size=3), max_size=2), st.booleans())
def test_streamed_and_whole_agree(make: Make, ids: list[int], stops: list[str], echo: bool) -> None:
    client = make(scoring(ids)).client()
    asked = {"max_tokens": 30, "logprobs": 2, "stop": stops or None, "ignore_eos": True, "echo": echo}
    whole = post(client, **asked).json()["choices"][0]
    found = chunks(post(client, **asked, stream=True))
    assert text_of(found) == whole["text"]
    assert joined(found) == whole["logprobs"]
    offsets = whole["logprobs"]["text_offset"]
    assert offsets == sorted(offsets)
    assert all(at <= len(whole["text"]) for at in offsets)


def test_tokens_of_a_stop_string_are_not_shown(client: TestClient, tokenizer: Tokenizer) -> None:
    found = logprobs_of(post(client, logprobs=0, stop=" had"))
    assert found["text_offset"][-1] < TEXT.index(" had")


def test_chat_has_the_bytes_of_its_text(make: Make, tokenizer: Tokenizer, template: ChatTemplate) -> None:  # noqa: F811
    client = make(scoring([*tokenizer.encode(TEXT), EOS_ID]), template=template).client()

    def ask(**fields: Any) -> Any:
        body = {"model": "org/tiny", "messages": ASKED, "logprobs": True, **fields}
        return client.post("/v1/chat/completions", json=body)

    [choice] = ask(top_logprobs=3).json()["choices"]
    content = choice["logprobs"]["content"]
    assert bytes(byte for token in content for byte in token["bytes"]).decode() == TEXT == choice["message"]["content"]
    assert {len(token["top_logprobs"]) for token in content} == {3}
    assert {len(token["top_logprobs"]) for token in ask().json()["choices"][0]["logprobs"]["content"]} == {0}
    streamed = [c["choices"][0]["logprobs"] for c in chunks(ask(top_logprobs=3, stream=True))]
    assert [token for row in streamed if row for token in row["content"]] == content
