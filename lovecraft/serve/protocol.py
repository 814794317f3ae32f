"""The OpenAI API's shapes: a request's body, strictly parsed, and the objects of replies.

A parameter that would change the result is either honoured or refused by name. What OpenAI does not have, and its
bookkeeping (`user`, `metadata`, `store`, ...), is passed over.
"""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from lovecraft.engine.request import SamplingParams, new_seed
from lovecraft.errors import RequestError

DEFAULT_TOKENS = 16  # OpenAI's own
MAX_TOKENS = 1_000_000
MAX_CHOICES = 128
MAX_STOPS = 16

Limit = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]


class StreamOptions(msgspec.Struct):
    """What a stream says besides the text."""

    include_usage: bool | None = None


class Completion(msgspec.Struct, kw_only=True):
    """The body of POST /v1/completions. Null means the default."""

    model: str
    prompt: str | list[Any]
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    echo: bool | None = None
    ignore_eos: bool | None = None
    # refused unless they ask for nothing, see NEUTRAL
    best_of: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    min_tokens: Any = None
    presence_penalty: Any = None
    repetition_penalty: Any = None
    response_format: Any = None
    stop_token_ids: Any = None
    suffix: Any = None

    @property
    def choices(self) -> int:
        """Continuations of each prompt."""
        return self.n or 1

    @property
    def limit(self) -> int:
        """Tokens to generate at most."""
        return self.max_completion_tokens or self.max_tokens or DEFAULT_TOKENS

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, choice: int) -> SamplingParams:
        """Return how to draw choice number `choice` of a prompt; its seed is its own, the first one's the request's."""
        return SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=self.top_p or 1.0,
            top_k=max(0, self.top_k or 0),
            min_p=self.min_p or 0.0,
            seed=new_seed() if self.seed is None else self.seed + (choice << 64),
        )

    def prompts(self) -> list[str | list[int]]:
        """Return the prompts, which come as a string, strings, token ids or lists of them. Raises RequestError."""
        given: list[Any] = self.prompt if isinstance(self.prompt, list) else [self.prompt]
        if _is_ids(given):
            given = [given]
        if not given or not (all(isinstance(one, str) for one in given) or all(_is_ids(one) for one in given)):
            raise RequestError("prompt takes a string, strings, token ids or lists of them", param="prompt")
        if len(given) * self.choices > MAX_CHOICES:
            raise RequestError(f"more than {MAX_CHOICES} choices: prompts times n", param="prompt")
        return given


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "frequency_penalty": (0, 0.0),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_tokens": (0,),
    "presence_penalty": (0, 0.0),
    "repetition_penalty": (1, 1.0),
    "response_format": ({"type": "text"},),
    "stop_token_ids": ([],),
    "suffix": ("",),
}
"""What this server cannot do, and the values besides null that do not ask for it."""


def parse(raw: bytes) -> Completion:
    """Return a request's body. Raises RequestError, which names the parameter."""
    try:
        body = msgspec.json.decode(raw, type=Completion)
    except msgspec.ValidationError as error:
        found = re.search(r"field `(\w+)`|at `\$\.(\w+)", str(error))
        raise RequestError(str(error), param=found and (found[1] or found[2])) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON: {error}") from None
    for name, neutral in NEUTRAL.items():
        value = getattr(body, name)  # compared with its type, because False == 0
        if value is not None and not any(type(value) is type(one) and value == one for one in neutral):
            raise RequestError(f"{name} is not supported by this server", param=name, code="unsupported_parameter")
    if body.max_tokens and body.max_completion_tokens and body.max_tokens != body.max_completion_tokens:
        raise RequestError("max_tokens and max_completion_tokens differ; give one of them", param="max_tokens")
    if len(body.stops) > MAX_STOPS or not all(body.stops):
        raise RequestError(f"stop takes up to {MAX_STOPS} strings, none of them empty", param="stop")
    if body.stream_options and not body.stream:
        raise RequestError("stream_options needs stream=true", param="stream_options")
    return body


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


# --- replies ----------------------------------------------------------------------------------------


def error_object(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    """Return OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def model_object(name: str, created: int) -> dict[str, Any]:
    """Return OpenAI's model object."""
    return {"id": name, "object": "model", "created": created, "owned_by": "lovecraft"}


def choice_object(index: int, text: str, reason: str | None) -> dict[str, Any]:
    """Return a choice of a completion or of one of its chunks."""
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def usage_object(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """Return OpenAI's usage object."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
