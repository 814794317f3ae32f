"""The official client against a real server: over the fake engine, and over a real tiny model."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from lovecraft import ServeConfig
from lovecraft.chat_template import find_template
from lovecraft.serve.service import Service, load
from lovecraft.tokenizer import Tokenizer
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
        client.completions.create(model=MODEL, prompt="so", suffix="end")
    assert (refused.value.param, refused.value.code) == ("suffix", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="other", prompt="so")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "so"}])


@pytest.fixture(scope="module")
def real(model_dir: Path) -> Iterator[OpenAI]:
    """Serve the tiny model itself."""
    config = ServeConfig(dtype="float32", device="cpu", max_queue=8)
    (model_dir / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    served = load(model_dir, config)
    (model_dir / "chat_template.jinja").unlink()
    made = Made(Service([MODEL], "roll", served={MODEL: served}), served.engine)
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


def test_real_model_scores_the_prompt_it_is_given(real: OpenAI, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The lamp on the pier")
    reply = real.completions.create(model=MODEL, prompt=ids, echo=True, logprobs=1, max_tokens=1, temperature=0)
    found = reply.choices[0].logprobs
    assert found is not None
    assert found.token_logprobs is not None
    assert len(found.token_logprobs) == len(ids) + 1
    assert all(value < 0 for value in found.token_logprobs[1:])
    # Token by token, as the last one of ever longer prompts: the same numbers.
    for end in (2, len(ids) - 1):
        bias = {str(ids[end]): 100}
        one = real.completions.create(
            model=MODEL, prompt=ids[:end], logprobs=0, max_tokens=1, temperature=0, logit_bias=bias
        )
        assert one.choices[0].logprobs is not None
        assert one.choices[0].logprobs.token_logprobs == [pytest.approx(found.token_logprobs[end], abs=1e-4)]


def test_real_model_obeys_bias_penalties_and_stops(real: OpenAI) -> None:
    def draw(**how: Any) -> Any:
        options = {"model": MODEL, "prompt": "The lamp", "max_tokens": 12, "temperature": 0, **how}
        return real.completions.create(**options).choices[0]

    always = draw(logit_bias={"80": 100}).text
    assert len(set(always)) == 1
    assert draw(logit_bias={"80": 100}, frequency_penalty=2, presence_penalty=2).text == always  # 100 is more
    assert draw(logit_bias={"80": 5, "81": 4.9}, presence_penalty=2).text != draw(logit_bias={"80": 5, "81": 4.9}).text
    stopped = draw(logit_bias={"80": 100}, extra_body={"stop_token_ids": [80]})
    assert (stopped.text, stopped.finish_reason) == ("", "stop")
    late = draw(logit_bias={"80": 100}, extra_body={"stop_token_ids": [80], "min_tokens": 3})
    assert len(late.text) >= 3


def test_real_model_chats(real: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "max_tokens": 12, "temperature": 0, "extra_body": {"ignore_eos": True}}
    options["messages"] = [{"role": "user", "content": "so"}]
    whole = real.chat.completions.create(**options, logprobs=True, top_logprobs=2)
    streamed = list(real.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed[:-1])
    assert text == whole.choices[0].message.content != ""
    assert streamed[0].choices[0].delta.role == "assistant"
    assert streamed[-1].usage == whole.usage
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert all(token.logprob == token.top_logprobs[0].logprob for token in logprobs.content)


def test_helper_of_the_sdk_puts_a_chat_together(make: Callable[..., Made], model_dir: Path) -> None:
    (model_dir / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    template = find_template(model_dir)
    (model_dir / "chat_template.jinja").unlink()
    messages: Any = [{"role": "user", "content": "so"}]
    with (
        running(make(template=template, slots=2)) as server,
        sdk(server) as client,
        client.chat.completions.stream(model=MODEL, messages=messages, n=2) as helper,
    ):
        for _ in helper:
            pass
        found = helper.get_final_completion()
    assert [choice.message.content for choice in found.choices] == [TEXT, TEXT]
    assert [choice.message.role for choice in found.choices] == ["assistant", "assistant"]


def test_real_model_rolls_past_its_context(real: OpenAI) -> None:
    reply = real.completions.create(
        model=MODEL, prompt="The lamp", max_tokens=300, temperature=1, seed=1, extra_body={"ignore_eos": True}
    )
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 300
    assert reply.to_dict()["lovecraft"] == {"context_rolls": 3}
    again = real.completions.create(model=MODEL, prompt="The lamp", max_tokens=4, temperature=0)
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
