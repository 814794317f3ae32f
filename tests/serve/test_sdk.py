"""The official client against a real server: over the fake engine, and over a real tiny model."""

from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from lovecraft import ServeConfig
from lovecraft.serve.service import Service, load
from tests.serving import MODEL, TEXT, Made, Running, running


@pytest.fixture
def client(make: Callable[..., Made]) -> Iterator[OpenAI]:
    with running(make()) as server, sdk(server) as found:
        yield found


def sdk(server: Running) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="EMPTY", max_retries=0)


def test_completion(client: OpenAI) -> None:
    reply = client.completions.create(model=MODEL, prompt="so", max_tokens=100, extra_body={"top_k": 5, "min_p": 0.1})
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == (TEXT, "stop")
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply._request_id


def test_stream_with_usage(client: OpenAI) -> None:
    stream = client.completions.create(
        model=MODEL, prompt="so", max_tokens=100, stream=True, stream_options={"include_usage": True}
    )
    found = list(stream)
    assert "".join(chunk.choices[0].text for chunk in found[:-1]) == TEXT
    assert found[-1].usage is not None
    assert found[-2].choices[0].finish_reason == "stop"


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/other")


def test_errors_are_the_sdks_classes(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(model=MODEL, prompt="so", temperature=3)
    assert (bad.value.param, bad.value.type) == ("temperature", "invalid_request_error")
    assert bad.value.request_id
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt="so", logprobs=1)
    assert (refused.value.param, refused.value.code) == ("logprobs", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="other", prompt="so")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "so"}])


@pytest.fixture(scope="module")
def real(model_dir: Path) -> Iterator[OpenAI]:
    """Serve the tiny model itself."""
    config = ServeConfig(dtype="float32", device="cpu", max_queue=8)
    served = load(model_dir, config)
    made = Made(Service(MODEL, "roll", served=served), served.engine)
    with running(made) as server, sdk(server) as found:
        yield found
    served.engine.abort()
    served.engine.join(2)


def test_real_model_streams_what_it_replies_at_once(real: OpenAI) -> None:
    options = {
        "model": MODEL,
        "prompt": "The lamp",
        "max_tokens": 60,
        "temperature": 0,
        "extra_body": {"ignore_eos": True},
    }
    whole = real.completions.create(**options)
    streamed = list(real.completions.create(**options, stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text != ""
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 60


def test_real_model_draws_the_same_with_the_same_seed(real: OpenAI) -> None:
    def draw(seed: int) -> list[str]:
        reply = real.completions.create(model=MODEL, prompt="The lamp", max_tokens=24, seed=seed, n=3, temperature=1)
        return [choice.text for choice in reply.choices]

    first = draw(7)
    assert draw(7) == first
    assert len(set(first)) == 3
    assert draw(8) != first


def test_real_model_rolls_past_its_context(real: OpenAI) -> None:
    reply = real.completions.create(
        model=MODEL, prompt="The lamp", max_tokens=300, temperature=1, seed=1, extra_body={"ignore_eos": True}
    )
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 300
    assert reply.to_dict()["lovecraft"] == {"context_rolls": 4}
    again = real.completions.create(model=MODEL, prompt="The lamp", max_tokens=4, temperature=0)
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
