"""A reply while it is made, whole or as a stream; both are made of the same pieces."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import attrs

from lovecraft.engine.engine import Job
from lovecraft.engine.request import Event, Read, Request, Scored
from lovecraft.engine.text import TextStream
from lovecraft.errors import RequestError
from lovecraft.serve import replies, sse
from lovecraft.serve.asgi import error_object
from lovecraft.serve.logprobs import Line, Token
from lovecraft.serve.metrics import Metrics
from lovecraft.serve.replies import Body, Cached, Extra, Usage
from lovecraft.serve.service import Served

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 10


@attrs.frozen
class Form:
    """How an API spells what it replies."""

    prefix: str
    """Of ids."""

    whole: type[Body]
    choice: Callable[..., Any]
    part: type[Body]
    delta: Callable[..., Any]
    opens: bool
    """Whether a stream begins with a chunk without text."""


TEXT = Form("cmpl-", replies.Completion, replies.text_choice, replies.Completion, replies.text_choice, opens=False)
CHAT = Form(
    *("chatcmpl-", replies.ChatCompletion, replies.chat_choice, replies.ChatCompletionChunk, replies.chat_delta),
    opens=True,
)


class Piece(NamedTuple):
    """What a continuation grew by."""

    index: int
    text: str
    tokens: list[Token] | None
    """Those that begin in the text, where log-probabilities were asked for."""

    reason: str | None
    """Of the last piece: why it is the last."""


@attrs.define(eq=False)
class Choice:
    """One continuation, while it is made."""

    index: int
    request: Request
    text: TextStream
    line: Line | None
    echo: str
    counts_prompt: bool
    """A prompt's tokens count once, however many choices it has."""

    seen: float = 0.0
    """When text was last shown."""

    def take(self, event: Event) -> Piece:
        """Return what may be shown after `event`. Raises RequestError when the continuation failed."""
        first = isinstance(event, Read) and not self.text.reads
        offset = len(self.echo) + self.text.decoded
        shown = (self.echo if first else "") + self.text.take(event)
        return Piece(self.index, shown, self._tokens(event, offset, len(shown)), self.text.reason)

    def _tokens(self, event: Event, offset: int, shown: int) -> list[Token] | None:
        if self.line is None:
            return None
        if isinstance(event, Scored):
            self.line.add(event, offset)
        elif isinstance(event, Read) and event.scores:
            self.line.add_prompt(self.request.prompt, event.scores)
        return self.line.release(shown, everything=self.text.reason is not None and not self.text.cut)


@attrs.define
class Reply:
    """Choices while they are made: id, time and model name are the same in all parts of their reply."""

    form: Form
    model: str
    served: Served
    metrics: Metrics
    choices: Sequence[Choice]
    jobs: Sequence[Job] = ()
    id: str = attrs.field(factory=lambda: uuid.uuid4().hex)
    started: float = attrs.field(factory=time.time)
    ended: str = "abort"
    """How those choices ended that have no reason of their own: the client left, or an error."""

    def body(self, kind: type[Any], choices: list[Any], **more: Any) -> Body:
        """Return the reply's object, or a chunk's."""
        head = {"id": self.form.prefix + self.id, "created": int(self.started), "model": self.model}
        return kind(**head, choices=choices, **more)

    @property
    def usage(self) -> Usage:
        """The tokens of the whole reply."""
        prompts = [choice for choice in self.choices if choice.counts_prompt]
        prompt = sum(len(choice.request.prompt) for choice in prompts)
        made = sum(choice.text.tokens for choice in self.choices)
        return Usage(prompt, made, prompt + made, Cached(sum(choice.text.cached for choice in prompts)))

    @property
    def rolls(self) -> int:
        """How often the context was rolled."""
        return sum(choice.text.rolls for choice in self.choices)

    @property
    def extra(self) -> dict[str, Extra]:
        """That, as replies tell it; nothing if never."""
        return {"lovecraft": Extra(self.rolls)} if self.rolls else {}

    def start(self) -> None:
        """Queue the choices, on the event loop. Raises RequestError when the queue is full."""
        try:
            self.jobs = self.served.engine.submit([choice.request for choice in self.choices])
        except RequestError as error:
            self.metrics.count("requests_rejected_total", model_name=self.model, reason=error.code or "")
            raise

    async def take(self, choice: Choice, event: Event) -> Piece:
        """Return what may be shown of a choice after `event`, and measure how long the client waited for it."""
        scored = isinstance(event, Read) and event.scores  # a long prompt takes long to spell
        try:
            piece = await asyncio.to_thread(choice.take, event) if scored else choice.take(event)
        except RequestError as error:
            self.ended = "error"
            if error.code == "model_error":
                self.metrics.count("corrupted_requests_total", model_name=self.model)
            raise
        if piece.text:
            now = time.time()
            name = "inter_token_latency_seconds" if choice.seen else "time_to_first_token_seconds"
            self.metrics.observe(name, now - (choice.seen or self.started), self.model)
            choice.seen = now
        return piece

    def close(self) -> None:
        """Free what still runs, and write down what it took; texts are never logged."""
        for job in self.jobs:
            self.served.engine.cancel(job)
        usage, seconds = self.usage, time.time() - self.started
        reasons = [choice.text.reason or self.ended for choice in self.choices]
        self.metrics.finished(self.model, usage, seconds, reasons, self.rolls)
        tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"
        log.info("%s%s: %s, %.2f s, %s", self.form.prefix, self.id, tokens, seconds, ",".join(reasons))


async def whole(reply: Reply) -> Body:
    """Return a reply in one piece. The caller closes it."""
    grown: list[list[Piece]] = [[] for _ in reply.choices]
    async for piece in _follow(reply):
        if piece:
            grown[piece.index].append(piece)
    choices = []
    for choice, pieces in zip(reply.choices, grown, strict=True):
        tokens = [token for piece in pieces for token in piece.tokens or ()] if choice.line else None
        text = "".join(piece.text for piece in pieces)
        choices.append(reply.form.choice(choice.index, text, tokens, choice.text.reason))
    return reply.body(reply.form.whole, choices, usage=reply.usage, **reply.extra)


async def stream(reply: Reply, wants_usage: bool) -> AsyncGenerator[bytes, None]:
    """Yield a reply as events; what goes wrong after the first one is an event too. The caller closes it."""
    usage = {"usage": None} if wants_usage else {}

    def chunk(*what: Any, **more: Any) -> bytes:
        return sse.frame(reply.body(reply.form.part, [reply.form.delta(*what)], **usage, **more))

    try:
        for choice in reply.choices if reply.form.opens else ():
            yield chunk(choice.index, None, None, None)
        async for piece in _in_order(reply):
            if piece is None:
                yield sse.KEEP_ALIVE
                continue
            index, text, tokens, reason = piece
            if text:
                yield chunk(index, text, tokens, None)
            if reason:
                yield chunk(index, "", None if text else tokens, reason, **reply.extra)
        if wants_usage:
            yield sse.frame(reply.body(reply.form.part, [], usage=reply.usage))
        yield sse.DONE
    except RequestError as error:
        yield sse.frame(error_object(error))


async def _in_order(reply: Reply) -> AsyncIterator[Piece | None]:
    """Yield what `_follow` yields, but nothing before the first choice: clients count on its being the first."""
    early: list[Piece] = []
    begun = reply.form.opens
    async for piece in _follow(reply):
        if piece is None or begun:
            yield piece
        elif piece.index:
            early.append(piece)
        elif piece.text or piece.reason:
            begun = True
            for one in (piece, *early):
                yield one


async def _follow(reply: Reply) -> AsyncIterator[Piece | None]:
    """Yield the choices' pieces as they become certain, and None now and then while there are none."""
    events: asyncio.Queue[tuple[Choice, Job, Event]] = asyncio.Queue()

    async def pump(choice: Choice, job: Job) -> None:
        while True:
            events.put_nowait((choice, job, await job.events.get()))

    pumps = [asyncio.create_task(pump(*pair)) for pair in zip(reply.choices, reply.jobs, strict=True)]
    try:
        while any(choice.text.reason is None for choice in reply.choices):
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    choice, job, event = await events.get()
            except TimeoutError:
                yield None
                continue
            if choice.text.reason:
                continue  # a stop string has ended it, of which the engine knows nothing
            piece = await reply.take(choice, event)
            if piece.reason:
                reply.served.engine.cancel(job)
            yield piece
    finally:
        for task in pumps:
            task.cancel()
