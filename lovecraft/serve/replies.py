"""The objects of replies, as OpenAI's clients read them. msgspec writes them, and /openapi.json describes them."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from lovecraft.serve.logprobs import Token

Reason = Literal["stop", "length"]


class Cached(Struct):
    """Which of the prompt's tokens took no work."""

    cached_tokens: int


class Usage(Struct):
    """What a reply took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: Cached


class Extra(Struct):
    """What OpenAI's shape has no place for."""

    context_rolls: int


class Body(Struct, kw_only=True):
    """What every reply has, and every chunk of it."""

    id: str
    object: Any
    created: int
    model: str
    choices: list[Any]
    usage: Usage | UnsetType | None = UNSET
    lovecraft: Extra | UnsetType = UNSET


# --- text -------------------------------------------------------------------------------------------


class TextLogprobs(Struct):
    """Of each token its text, its log-probability, the most probable ones' and where it begins in the text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(Struct):
    """A continuation, or a piece of one."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Reason | None


class Completion(Body, kw_only=True):
    """The reply of /v1/completions, and each chunk of it."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[TextChoice]


def text_choice(index: int, text: str, tokens: Sequence[Token] | None, reason: Any) -> TextChoice:
    """Return a choice of a completion or of one of its chunks."""
    return TextChoice(index, text, None if tokens is None else _text_logprobs(tokens), reason)


def _text_logprobs(tokens: Sequence[Token]) -> TextLogprobs:
    return TextLogprobs(
        [token.text for token in tokens],
        [token.logprob for token in tokens],
        [_top(token) for token in tokens],
        [token.offset for token in tokens],
    )


def _top(token: Token) -> dict[str, float] | None:
    """Return the most probable tokens and the token itself; of two with one text the more probable."""
    if token.logprob is None:
        return None
    rows = {token.text: token.logprob}
    for text, _, logprob in token.top:
        rows[text] = max(logprob, rows.get(text, -math.inf))
    return rows


# --- chat -------------------------------------------------------------------------------------------


class TopLogprob(Struct):
    """A token that might have stood there."""

    token: str
    logprob: float
    bytes: list[int]


class ChatToken(Struct):
    """A token of a message."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct):
    """The tokens of a message."""

    content: list[ChatToken]
    refusal: None = None


class Said(Struct):
    """What the model says."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(Struct):
    """A reply to a conversation."""

    index: int
    message: Said
    logprobs: ChatLogprobs | None
    finish_reason: Reason


class Delta(Struct):
    """What a chunk adds to a message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class DeltaChoice(Struct):
    """A piece of a reply."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Reason | None


class ChatCompletion(Body, kw_only=True):
    """The reply of /v1/chat/completions."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class ChatCompletionChunk(Body, kw_only=True):
    """A piece of it, when it is streamed."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[DeltaChoice]


def chat_choice(index: int, text: str, tokens: Sequence[Token] | None, reason: Any) -> ChatChoice:
    """Return a choice of a chat completion."""
    return ChatChoice(index, Said(text), _chat_logprobs(tokens), reason)


def chat_delta(index: int, text: str | None, tokens: Sequence[Token] | None, reason: Any) -> DeltaChoice:
    """Return a choice of a chunk; the role stands in the first one alone, which has no text yet."""
    delta = Delta("assistant", "") if text is None else Delta(content=text or UNSET)
    return DeltaChoice(index, delta, _chat_logprobs(tokens), reason)


def _chat_logprobs(tokens: Sequence[Token] | None) -> ChatLogprobs | None:
    if tokens is None:
        return None
    return ChatLogprobs([_chat_token(token) for token in tokens if not token.ends])


def _chat_token(token: Token) -> ChatToken:
    assert token.logprob is not None, "prompts are not echoed in chats"
    top = [TopLogprob(text, logprob, list(data)) for text, data, logprob in token.top]
    return ChatToken(token.text, token.logprob, list(token.bytes), top)


# --- the rest ---------------------------------------------------------------------------------------


class Model(Struct):
    """A model that is served."""

    id: str
    created: int
    max_model_len: int
    object: Literal["model"] = "model"
    owned_by: Literal["lovecraft"] = "lovecraft"


class Models(Struct):
    """Those that are served, the first one first."""

    data: list[Model]
    object: Literal["list"] = "list"


class Tokens(Struct):
    """The tokens of a text."""

    tokens: list[int]
    count: int
    max_model_len: int


class Prompt(Struct):
    """The text of tokens."""

    prompt: str


class Health(Struct):
    """Whether requests are taken."""

    status: Literal["loading", "ready", "draining", "stuck"]


class ErrorDetail(Struct):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Struct):
    """The body of every answer that is no success; in a stream an event."""

    error: ErrorDetail
