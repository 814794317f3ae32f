import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft.errors import RequestError
from lovecraft.serve.protocol import NEUTRAL, Completion, parse

BASE = {"model": "m", "prompt": "so"}


def read(**fields: Any) -> Completion:
    return parse(json.dumps({**BASE, **fields}).encode())


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
        ("n", [0, 17, True, "2"]),
        ("max_tokens", [0, -1, 1.5, 10**7, 10**30]),
        ("max_completion_tokens", [0, "16"]),
        ("seed", [2**63, 1.5, "7"]),
        ("stop", ["", ["a", ""], 5, ["a"] * 17, [["a"]]]),
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
            parse(json.dumps({k: v for k, v in BASE.items() if k != name}).encode())
        assert caught.value.param == name


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_is_not_there_is_refused_unless_it_asks_for_nothing(name: str) -> None:
    for neutral in (None, *NEUTRAL[name]):
        read(**{name: neutral})
    error = refusal(**{name: 3})
    assert (error.param, error.code) == (name, "unsupported_parameter")


def test_logprobs_zero_asks_for_something() -> None:
    assert refusal(logprobs=0).param == "logprobs"


def test_null_is_the_default() -> None:
    fields = [name for name in Completion.__struct_fields__ if name not in BASE]
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
        parse(MALFORMED[name])
    assert caught.value.status == 400


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(Completion.__struct_fields__), values), st.booleans())
def test_any_json_is_parsed_or_refused(fields: dict[str, Any], complete: bool) -> None:
    with contextlib.suppress(RequestError):
        body = parse(json.dumps({**(BASE if complete else {}), **fields}).encode(errors="surrogatepass"))
        body.prompts()
        body.sampling(0)


@given(st.binary(max_size=40))
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    with pytest.raises(RequestError):
        parse(raw)
