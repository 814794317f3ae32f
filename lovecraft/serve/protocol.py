"""The bodies of requests, strictly parsed.

A parameter that would change the result is either honoured or refused by name. What OpenAI does not have, and its
bookkeeping (`user`, `metadata`, `store`, ...), is passed over.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from lovecraft.engine.request import SamplingParams, new_seed
from lovecraft.errors import RequestError

DEFAULT_TOKENS = 16  # OpenAI's own
MAX_TOKENS = 1_000_000
MAX_CHOICES = 128
MAX_STOPS = 16
MAX_STOP = 1000  # characters: each is looked for at the end of the text at every token
MAX_TOP = 20

T = TypeVar("T", bound=Struct)
Limit = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
Top = Annotated[int, Meta(ge=0, le=MAX_TOP)]
Id = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Bias = Annotated[dict[Id, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Refused = Annotated[Any, Meta(description="Refused, unless it asks for nothing.")]


class StreamOptions(Struct):
    """What a stream says besides the text."""

    include_usage: bool | None = None


class Sampling(Struct, kw_only=True):
    """What the bodies of both kinds of completion have. Null means the default."""

    model: str
    max_completion_tokens: Limit | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Bias | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: Annotated[list[Id], Meta(max_length=128)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Refused = None

    @property
    def choices(self) -> int:
        """Continuations of each prompt."""
        return self.n or 1

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
            repetition_penalty=self.repetition_penalty or 1.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=self.logit_bias or {},
        )


class CompletionRequest(Sampling, kw_only=True):
    """The body of POST /v1/completions."""

    prompt: str | list[Any]
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    logprobs: Top | bool | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=16)] | None = None
    suffix: Refused = None

    @property
    def limit(self) -> int:
        """Tokens to generate at most."""
        given = self.max_completion_tokens if self.max_tokens is None else self.max_tokens
        return DEFAULT_TOKENS if given is None else given

    @property
    def top(self) -> int | None:
        """How many of the most probable tokens are wanted with each one; None: no log-probabilities."""
        return None if isinstance(self.logprobs, bool) else self.logprobs

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


class TextPart(Struct):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(Struct):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def plain(self) -> dict[str, str]:
        """The message as chat templates know it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


Messages = Annotated[list[Message], Meta(min_length=1, max_length=4096)]


class ChatRequest(Sampling, kw_only=True):
    """The body of POST /v1/chat/completions."""

    messages: Messages
    max_tokens: Limit | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    tools: Refused = None
    functions: Refused = None
    modalities: Refused = None
    chat_template: Refused = None
    chat_template_kwargs: Refused = None

    @property
    def limit(self) -> int | None:
        """Tokens to generate at most; None: what the context has room for."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def top(self) -> int | None:
        """How many of the most probable tokens are wanted with each one; None: no log-probabilities."""
        return self.top_logprobs or 0 if self.logprobs else None


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /tokenize: a prompt or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool = True


class DetokenizeRequest(Struct, kw_only=True):
    """The body of POST /detokenize."""

    model: str | None = None
    tokens: list[Id]


NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "functions": ([],),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tools": ([],),
}
"""What this server cannot do, and the values besides null that do not ask for it."""


def parse(raw: bytes, kind: type[T]) -> T:
    """Return a request's body. Raises RequestError, which names the parameter."""
    try:
        body = msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        found = re.search(r"`\$\.(\w+)", str(error)) or re.search(r"field `(\w+)`", str(error))
        raise RequestError(str(error), param=found and found[1]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON: {error}") from None
    if isinstance(body, Sampling):
        _check(body)
    return body


def _check(body: Sampling) -> None:
    """Raise RequestError for what the types do not say."""
    for name in NEUTRAL.keys() & set(body.__struct_fields__):
        value = getattr(body, name)
        if value is not None and value not in NEUTRAL[name]:
            raise RequestError(f"{name} is not supported by this server", param=name, code="unsupported_parameter")
    if len(body.stops) > MAX_STOPS or not all(0 < len(stop) <= MAX_STOP for stop in body.stops):
        raise RequestError(f"stop takes up to {MAX_STOPS} strings of 1 to {MAX_STOP} characters", param="stop")
    if body.stream_options and not body.stream:
        raise RequestError("stream_options needs stream=true", param="stream_options")
    match body:
        case CompletionRequest():
            _check_limits(body)
            _check_completion(body)
        case ChatRequest():
            _check_limits(body)
            if body.top_logprobs is not None and not body.logprobs:
                raise RequestError("top_logprobs needs logprobs=true", param="top_logprobs")


def _check_limits(body: CompletionRequest | ChatRequest) -> None:
    if None not in (body.max_tokens, body.max_completion_tokens) and body.max_tokens != body.max_completion_tokens:
        raise RequestError("max_tokens and max_completion_tokens differ; give one of them", param="max_tokens")
    if body.limit is not None and body.limit < (body.min_tokens or 0):
        raise RequestError(f"min_tokens is more than the {body.limit} tokens to generate", param="min_tokens")


def _check_completion(body: CompletionRequest) -> None:
    if body.best_of not in (None, body.choices):
        raise RequestError("best_of is not supported by this server, unless it is n", param="best_of")
    if body.logprobs is True:
        raise RequestError(f"logprobs takes a number from 0 to {MAX_TOP}", param="logprobs")
    if body.limit == 0 and not (body.echo and body.top is not None):
        raise RequestError("max_tokens=0 scores the prompt: it needs echo and logprobs", param="max_tokens")


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)
