"""What goes into the engine and what comes out at the end; the ids come out in between. Imports no torch."""

import secrets
from collections.abc import Mapping
from typing import Literal

import attrs

from lovecraft.errors import RequestError


def new_seed() -> int:
    """Return a seed that nobody chose."""
    return secrets.randbits(63)


@attrs.frozen
class SamplingParams:
    """How to draw the next token. The defaults change nothing: the model's own distribution."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most probable token."""

    top_p: float = 1.0
    """Draw from the most probable tokens that together have this probability, after top_k."""

    top_k: int = 0
    """Draw from the so many most probable tokens; 0 from all."""

    min_p: float = 0.0
    """Draw from tokens at least this fraction as probable as the most probable one."""

    seed: int = attrs.field(factory=new_seed)
    """The same seed draws the same tokens, whatever else the engine does."""

    repetition_penalty: float = 1.0
    """Divides the logits above 0 of tokens in the prompt or the continuation, and multiplies those below."""

    presence_penalty: float = 0.0
    """Taken from the logit of every token that the continuation has."""

    frequency_penalty: float = 0.0
    """Taken from the logit of a token as often as the continuation has it."""

    logit_bias: Mapping[int, float] = attrs.field(factory=dict)
    """Added to the logits of these tokens, before everything else."""


@attrs.frozen
class Request:
    """One continuation to make."""

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = attrs.field(factory=SamplingParams)
    stop_ids: frozenset[int] = frozenset()
    """A token that ends the continuation; it is yielded and counted like any other."""

    roll: bool = False
    """At the end of the context go on over its pinned head and newest half, instead of stopping."""

    min_tokens: int = 0
    """No token of `stop_ids` is drawn before there are so many."""

    logprobs: int | None = None
    """Tokens come as `Scored`, with so many of the most probable ones."""

    score_prompt: bool = False
    """The prompt's tokens are scored too, with `logprobs` of the most probable; then `max_tokens` may be 0."""


@attrs.frozen
class Scored:
    """A token and its log-probability under the model's own distribution, before any rule of sampling."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The most probable tokens there and theirs, in falling order."""


@attrs.frozen
class Read:
    """The prompt has been read, or after a roll what is left of the context; the continuation goes on from here."""

    cached: int
    """Tokens of it that the cache held already."""

    scores: tuple[Scored, ...] = ()
    """The prompt's tokens after its first, where they are asked for."""


@attrs.frozen
class Finish:
    """How a continuation ended."""

    reason: Literal["stop", "length", "cancelled", "failed"]
    message: str = ""
    """Why it failed."""

    code: str = ""
    status: int = 500
    """The same for machines: the error code and the HTTP status."""


Event = int | Scored | Read | Finish
"""What happens to a request: it is read, then come its tokens, then one Finish."""

Policy = Literal["error", "stop", "roll"]
"""At the end of the context: refuse what would not fit, stop there, or roll."""


def check_length(prompt: int, max_tokens: int, context: int, policy: Policy) -> None:
    """Raise RequestError unless `prompt` tokens fit the context, and under `error` the `max_tokens` after them too."""
    if prompt >= context:
        raise RequestError(
            f"the prompt has {prompt} tokens, but the context is {context} with at least one to generate; shorten it",
            param="prompt",
            code="context_length_exceeded",
        )
    if policy == "error" and prompt + max_tokens > context:
        raise RequestError(
            f"the prompt has {prompt} tokens and {max_tokens} more were asked for, but the context is {context}; "
            f"ask for at most {context - prompt} or shorten the prompt",
            param="max_tokens",
            code="context_length_exceeded",
        )
