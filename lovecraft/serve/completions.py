"""From a request to its reply, whole or as a stream; both are made of the same pieces."""

import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import attrs

from lovecraft.engine import engine as engines
from lovecraft.engine.engine import Engine, Job
from lovecraft.engine.request import Request, check_length
from lovecraft.engine.text import TextStream, prompt_ids
from lovecraft.errors import RequestError
from lovecraft.serve import sse
from lovecraft.serve.asgi import error_json
from lovecraft.serve.protocol import Completion, choice_object, usage_object
from lovecraft.serve.service import Service

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 10


@attrs.define
class Choice:
    """One continuation, while it is made."""

    index: int
    request: Request
    text: TextStream
    echo: str
    counts_prompt: bool
    """A prompt's tokens count once, however many choices it has."""


@attrs.define
class Reply:
    """A reply while it is made: its id, time and model name are the same in all its parts."""

    model: str
    engine: Engine
    choices: Sequence[Choice]
    jobs: Sequence[Job]
    id: str = attrs.field(factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    started: float = attrs.field(factory=time.time)

    def body(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return OpenAI's completion object; chunks have the same shape."""
        head = {"id": self.id, "object": "text_completion", "created": int(self.started), "model": self.model}
        return {**head, "choices": choices, **more}

    @property
    def usage(self) -> dict[str, Any]:
        """The tokens of the whole reply."""
        prompts = [choice for choice in self.choices if choice.counts_prompt]
        return usage_object(
            prompt=sum(len(choice.request.prompt) for choice in prompts),
            completion=sum(choice.text.tokens for choice in self.choices),
            cached=sum(choice.text.cached for choice in prompts),
        )

    @property
    def rolls(self) -> dict[str, Any]:
        """How often the context was rolled, which OpenAI's shape has no place for; empty if never."""
        count = sum(choice.text.rolls for choice in self.choices)
        return {"lovecraft": {"context_rolls": count}} if count else {}

    def close(self) -> None:
        """Free what still runs, and log what it took; texts are never logged."""
        for job in self.jobs:
            self.engine.cancel(job)
        tokens = f"{self.usage['prompt_tokens']} + {self.usage['completion_tokens']} tokens"
        reasons = ",".join(choice.text.reason or "aborted" for choice in self.choices)
        log.info("%s: %s, %.2f s, %s", self.id, tokens, time.time() - self.started, reasons)


def prepare(service: Service, body: Completion) -> list[Choice]:
    """Return the choices that a request asks for. Raises RequestError for a prompt that does not fit."""
    tokenizer, context = service.model.tokenizer, service.model.engine.context
    found: list[Choice] = []
    for prompt in body.prompts():
        ids = prompt_ids(tokenizer, prompt) if isinstance(prompt, str) else prompt
        if not all(0 <= token < tokenizer.vocab_size for token in ids):
            raise RequestError(f"a token id is outside the vocabulary of {tokenizer.vocab_size}", param="prompt")
        check_length(len(ids), body.limit, context, service.policy)
        for number in range(body.choices):
            request = Request(
                prompt=tuple(ids),
                max_tokens=body.limit,
                sampling=body.sampling(number),
                stop_ids=frozenset(() if body.ignore_eos else tokenizer.stop_ids),
                roll=service.policy == "roll",
            )
            text = TextStream(tokenizer, ids, stops=body.stops)
            echo = "" if not body.echo else prompt if isinstance(prompt, str) else tokenizer.decode(ids)
            found.append(Choice(len(found), request, text, echo, counts_prompt=number == 0))
    return found


def start(service: Service, choices: Sequence[Choice]) -> Reply:
    """Queue the choices, on the event loop. Raises RequestError when the queue is full."""
    engine = service.model.engine
    return Reply(service.name, engine, choices, engine.submit([choice.request for choice in choices]))


async def whole(reply: Reply) -> dict[str, Any]:
    """Return a reply in one piece. The caller closes it."""
    choices = []
    for choice, job in zip(reply.choices, reply.jobs, strict=True):
        pieces = [piece async for piece in _follow(reply.engine, choice, job) if piece]
        choices.append(choice_object(choice.index, choice.echo + "".join(pieces), choice.text.reason))
    return reply.body(choices, usage=reply.usage, **reply.rolls)


async def stream(reply: Reply, wants_usage: bool) -> AsyncGenerator[bytes, None]:
    """Yield a reply as events; what goes wrong after the first one is an event too. The caller closes it."""
    usage = {"usage": None} if wants_usage else {}

    def chunk(choice: Choice, text: str, reason: str | None = None, **more: Any) -> bytes:
        return sse.frame(reply.body([choice_object(choice.index, text, reason)], **usage, **more))

    try:
        for choice, job in zip(reply.choices, reply.jobs, strict=True):
            if choice.echo:
                yield chunk(choice, choice.echo)
            async for piece in _follow(reply.engine, choice, job):
                yield sse.KEEP_ALIVE if piece is None else chunk(choice, piece)
            yield chunk(choice, "", choice.text.reason, **reply.rolls)
        if wants_usage:
            yield sse.frame(reply.body([], usage=reply.usage))
        yield sse.DONE
    except RequestError as error:
        yield sse.frame(error_json(error))


async def _follow(engine: Engine, choice: Choice, job: Job) -> AsyncIterator[str | None]:
    """Yield a choice's text as it becomes certain, and None now and then while there is none."""
    async for event in engines.events(job, KEEP_ALIVE_SECONDS):
        piece = choice.text.take(event)
        if piece or event is None:
            yield piece or None
        if choice.text.reason:
            engine.cancel(job)  # a stop string ends the text, of which the engine knows nothing
            return
