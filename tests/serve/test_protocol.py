import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft.errors import RequestError
from lovecraft.serve.protocol import NEUTRAL, ChatRequest, CompletionRequest, parse

BASE = {"model": "m", "prompt": "so"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "so"}]}


def read(**fields: Any) -> CompletionRequest:
    return parse(json.dumps({**BASE, **fields}).encode(), CompletionRequest)


def refusal(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(**fields)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("temperature", [-0.1, 2.1, "1", True]),
        ("top_p", [0, 1.1, []]),
        ("top_k", [-2, 1.5, 2**40]),
        ("min_p", [-0.1, 1.1]),
        ("repetition_penalty", [0, -1, 101, "1"]),
        ("presence_penalty", [-2.1, 2.1, "0"]),
        ("frequency_penalty", [-2.1, 2.1, True]),
        ("logit_bias", [{"a": 1}, {"1.5": 1}, {"-1": 1}, {"5": 101}, {"5": "1"}, [5]]),
        ("logit_bias", [{str(token): 0 for token in range(1025)}]),
        ("logprobs", [-1, 21, 1.5, "5", True]),
        ("best_of", [0, 17, "1"]),
        ("min_tokens", [-1, "1"]),
        ("stop_token_ids", [5, [-1], ["a"], [True], [2**31], [1] * 129]),
        ("n", [0, 17, True, "2"]),
        ("max_tokens", [-1, 1.5, 10**7, 10**30]),
        ("max_completion_tokens", [0, "16"]),
        ("seed", [2**63, 1.5, "7"]),
        ("stop", ["", ["a", ""], "a" * 1001, 5, ["a"] * 17, [["a"]]]),
        ("stream", ["yes", 1]),
        ("echo", [1]),
        ("ignore_eos", ["true"]),
        ("prompt", [5, None, {}, True]),
        ("model", [None, 5]),
    ],
)
def test_wrong_values_are_refused_by_name(name: str, wrong: list[Any]) -> None:
    for value in wrong:
        error = refusal(**{name: value})
        assert error.param == name, (value, error)


def test_missing_fields_are_refused_by_name() -> None:
    for name in BASE:
        with pytest.raises(RequestError) as caught:
            parse(json.dumps({k: v for k, v in BASE.items() if k != name}).encode(), CompletionRequest)
        assert caught.value.param == name


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_is_not_there_is_refused_unless_it_asks_for_nothing(name: str) -> None:
    if name in CompletionRequest.__struct_fields__:
        kind, body = CompletionRequest, BASE
    else:
        kind, body = ChatRequest, CHAT
    for neutral in (None, *NEUTRAL[name]):
        parse(json.dumps({**body, name: neutral}).encode(), kind)
    for asked in (3, False, {"type": "json_object"}, ["x"]):
        with pytest.raises(RequestError) as caught:
            parse(json.dumps({**body, name: asked}).encode(), kind)
        assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize("messages", [[], [{}], [{"role": "user"}], [{"role": "tool", "content": "a"}], "hello", None])
def test_what_is_no_conversation_is_refused(messages: Any) -> None:
    with pytest.raises(RequestError) as caught:
        parse(json.dumps({**CHAT, "messages": messages}).encode(), ChatRequest)
    assert caught.value.param == "messages"


@pytest.mark.parametrize("content", [5, None, [{"type": "image_url", "image_url": "x"}], [{"text": "no type"}], ["a"]])
def test_what_is_no_text_in_a_message_is_refused(content: Any) -> None:
    with pytest.raises(RequestError) as caught:
        parse(json.dumps({**CHAT, "messages": [{"role": "user", "content": content}]}).encode(), ChatRequest)
    assert caught.value.param == "messages"


def test_content_comes_in_one_or_in_parts_and_developers_are_the_system() -> None:
    parts = [{"type": "text", "text": "so"}, {"type": "text", "text": " it"}]
    messages = [{"role": "developer", "content": "Be."}, {"role": "user", "content": parts, "name": "me"}]
    body = parse(json.dumps({**CHAT, "messages": messages}).encode(), ChatRequest)
    assert [m.plain for m in body.messages] == [
        {"role": "system", "content": "Be."},
        {"role": "user", "content": "so it"},
    ]


def test_top_logprobs_need_logprobs() -> None:
    for fields in ({}, {"logprobs": False}):
        with pytest.raises(RequestError) as caught:
            parse(json.dumps({**CHAT, **fields, "top_logprobs": 3}).encode(), ChatRequest)
        assert caught.value.param == "top_logprobs"
    tops = [parse(json.dumps({**CHAT, **fields}).encode(), ChatRequest).top for fields in ({}, {"logprobs": True})]
    assert tops == [None, 0]


def test_best_of_is_n_or_refused() -> None:
    read(best_of=1)
    read(best_of=3, n=3)
    assert refusal(best_of=2).param == "best_of"


def test_no_tokens_are_asked_for_only_to_score_the_prompt() -> None:
    for fields in ({}, {"echo": True}, {"logprobs": 0}):
        assert refusal(max_tokens=0, **fields).param == "max_tokens"
    assert read(max_tokens=0, echo=True, logprobs=0).limit == 0


def test_more_tokens_than_at_most_are_refused() -> None:
    assert refusal(min_tokens=17).param == "min_tokens"
    assert refusal(min_tokens=9, max_tokens=8).param == "min_tokens"
    read(min_tokens=16)


def test_penalties_and_bias_arrive() -> None:
    params = read(
        repetition_penalty=1.1, presence_penalty=-2, frequency_penalty=0.5, logit_bias={"7": -100, "8": 1.5}
    ).sampling(0)
    assert (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) == (1.1, -2, 0.5)
    assert params.logit_bias == {7: -100, 8: 1.5}


def test_null_is_the_default() -> None:
    fields = [name for name in CompletionRequest.__struct_fields__ if name not in BASE]
    body = read(**dict.fromkeys(fields))
    assert (body.limit, body.choices, body.stops, body.wants_usage) == (16, 1, [], False)
    params = body.sampling(0)
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (1.0, 1.0, 0, 0.0)


def test_sampling_parameters_arrive() -> None:
    params = read(temperature=0, top_p=0.5, top_k=-1, min_p=0.1, seed=-7).sampling(0)
    assert (params.temperature, params.top_p, params.top_k, params.min_p, params.seed) == (0, 0.5, 0, 0.1, -7)


def test_every_choice_of_every_request_has_its_own_seed() -> None:
    seeds = [read(seed=seed).sampling(choice).seed for seed in (0, 1, 2) for choice in range(3)]
    assert len(set(seeds)) == 9
    assert read().sampling(0).seed != read().sampling(0).seed


def test_either_name_of_the_limit() -> None:
    assert read(max_tokens=5).limit == read(max_completion_tokens=5).limit == 5
    assert read(max_tokens=5, max_completion_tokens=5).limit == 5
    assert refusal(max_tokens=5, max_completion_tokens=6).param == "max_tokens"


def test_stream_options_need_a_stream() -> None:
    assert refusal(stream_options={"include_usage": True}).param == "stream_options"
    assert read(stream=True, stream_options={"include_usage": True}).wants_usage


def test_unknown_fields_and_bookkeeping_are_passed_over() -> None:
    read(user="me", metadata={"a": 1}, store=True, service_tier="auto", something_new=[1])


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]]), ("", [""])],
)
def test_four_shapes_of_prompt(prompt: Any, expected: Any) -> None:
    assert read(prompt=prompt).prompts() == expected


@pytest.mark.parametrize(
    "prompt", [[], [[]], ["a", 1], [1.5], [True], [None], [[1], "a"], [["a"]], [[1], []], ["a"] * 129]
)
def test_other_shapes_of_prompt_are_refused(prompt: Any) -> None:
    with pytest.raises(RequestError) as caught:
        read(prompt=prompt).prompts()
    assert caught.value.param == "prompt"


MALFORMED = {
    "empty": b"",
    "not UTF-8": b'{"model": "\xff"}',
    "deep": b"[" * 100_000,
    "deep in an ignored field": b'{"model": "m", "prompt": "so", "x": ' + b"[" * 100_000,
    "long number": b'{"model": "m", "prompt": "so", "seed": ' + b"9" * 5000 + b"}",
    "lone surrogate": b'{"model": "m", "prompt": "\\ud800"}',
    "list": b"[]",
    "string": b'"str"',
    "number": b"42",
    "null": b"null",
    "NaN": b'{"model": "m", "prompt": "so", "temperature": NaN}',
    "infinite": b'{"model": "m", "prompt": "so", "temperature": 1e999}',
    "trailing": b'{"model": "m", "prompt": "so"} x',
    "UTF-16": '{"model": "m"}'.encode("utf-16"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bodies_are_the_clients_mistake(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(MALFORMED[name], CompletionRequest)
    assert caught.value.status == 400


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


KINDS = ((CompletionRequest, BASE), (ChatRequest, CHAT))
FIELDS = sorted({name for kind, _ in KINDS for name in kind.__struct_fields__})


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), values), st.booleans())
def test_any_json_is_parsed_or_refused(kind: Any, fields: dict[str, Any], complete: bool) -> None:
    with contextlib.suppress(RequestError):
        content = {**(kind[1] if complete else {}), **fields}
        body = parse(json.dumps(content).encode(errors="surrogatepass"), kind[0])
        if isinstance(body, CompletionRequest):
            body.prompts()
        body.sampling(0)


@given(st.binary(max_size=40))
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    with pytest.raises(RequestError):
        parse(raw, CompletionRequest)
