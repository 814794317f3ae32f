"""The requests under way over one model: ids in, ids out. What is read and what is decoded never depends on neighbours.

A step makes one token for every request that has read its prompt, in one pass, and then reads a chunk of the prompts
that wait. Chunks are cut by the prompt alone, each is a pass of its own, and in a decoding pass each row attends to
its own cache; so a request has the same ids alone and in any company, wherever a row of a matrix product does not
depend on the others. `docs/decisions/006-serving.md` says where that is.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial

import attrs
import torch
from torch import Tensor

from lovecraft.engine.request import Event, Finish, Read, Request, Scored
from lovecraft.engine.sampling import INVALID, Draw, penalises, sample, score
from lovecraft.models.kv_cache import ROOM, KVCache, Rows
from lovecraft.models.llama import Llama

PREFILL_CHUNK = ROOM
"""Tokens of a prompt in one pass: what bounds its memory, and how long others wait for their next token."""

SCORED_ROWS = 64
"""Rows of logits at a time while a prompt is scored."""

NOT_FINITE = Finish(
    "failed",
    "the model's logits are not finite: its weights are damaged, or its dtype overflows (try --dtype float32)",
    "model_error",
)


@attrs.define(eq=False)
class Slot:
    """A place for one sequence: a key-value cache and the ids it holds, kept from one request to the next."""

    cache: KVCache
    ids: list[int] = attrs.field(factory=list)
    whole: int = 0
    """Ids at the beginning that were read in whole chunks. Only these are used again: the last bits of what was read in
    other pieces, or made one by one, differ, and a request's text would depend on the one before it."""

    def shared(self, ids: Sequence[int]) -> int:
        """Return how many of `ids` need not be read, as they were read here in whole chunks."""
        same = next((i for i, (x, y) in enumerate(zip(self.ids, ids, strict=False)) if x != y), len(ids))
        found = min(same, self.whole) // PREFILL_CHUNK * PREFILL_CHUNK
        return found if self.cache.holds(found) else 0


@attrs.define(eq=False)
class Continuation:
    """A request under way."""

    request: Request
    slot: Slot
    unread: list[int]
    """What the slot has to hold before the next token is drawn; empty once it does, but for the newest token."""

    begun: bool = False
    """Whether some of `unread` has been read."""

    cached: int = 0
    made: int = 0
    newest: int = 0
    seen: Counter[int] = attrs.field(factory=Counter)
    scores: list[Scored] = attrs.field(factory=list)


Events = list[tuple[Continuation, Event]]


class Batch:
    """The model, its slots, and the requests that hold one.

    Only ids below `vocabulary` are drawn: an embedding may have more rows than the tokenizer has tokens. A rolled text
    goes on after one of `breaks`, tokens at which a sentence ends, if there is one in reach.
    """

    def __init__(
        self, model: Llama, slots: Sequence[Slot], vocabulary: int | None = None, breaks: Container[int] = ()
    ) -> None:
        self.slots = len(slots)
        self.context = slots[0].cache.capacity
        self._model = model
        self._slots = slots
        self._vocabulary = vocabulary
        self._breaks = breaks
        self._running: list[Continuation] = []

    @property
    def usage(self) -> float:
        """The part of the cache that holds tokens of running requests."""
        return sum(len(one.slot.ids) for one in self._running) / (self.slots * self.context)

    def add(self, request: Request) -> Continuation:
        """Give a request the free slot that holds most of its prompt, which must be shorter than the context."""
        assert 0 < len(request.prompt) < self.context, "the caller checks lengths"
        free = [slot for slot in self._slots if all(one.slot is not slot for one in self._running)]
        prompt = list(request.prompt)
        slot = max(free, key=lambda slot: (slot.shared(prompt), -slot.whole))
        one = Continuation(request, slot, prompt)
        if penalises(request.sampling):
            one.seen.update(dict.fromkeys(prompt, 0))
        self._running.append(one)
        return one

    def drop(self, one: Continuation) -> None:
        """Free a request's slot. Harmless when it is free."""
        if one in self._running:
            self._running.remove(one)

    def work(self) -> Iterator[tuple[list[Continuation], Callable[[], Events]]]:
        """Yield the passes of one step: the requests that each moves, and what runs it and returns what happened.

        A token for everyone first, then chunks of prompts, the oldest request's first, up to PREFILL_CHUNK tokens.
        After a `Finish` the caller drops the request, as it may at any time between two passes.
        """
        decoding = [one for one in self._running if not one.unread]
        if decoding:
            yield decoding, partial(self._decode, decoding)
        budget = PREFILL_CHUNK
        for one in [one for one in self._running if one.unread]:
            if one not in self._running:  # it was dropped during this step
                continue
            if not one.begun:
                self._begin(one)
            chunk = one.unread[len(one.slot.ids) :][:PREFILL_CHUNK]
            budget -= len(chunk)
            if budget < 0:
                return  # it begins anew in the next step, when others may have read more of the same
            yield [one], partial(self._read, one, chunk)

    def _begin(self, one: Continuation) -> None:
        """Bring the slot to hold what can be used again, its own or another slot's."""
        slot, wanted = one.slot, one.unread[:-1]  # the last is always read: its hidden state is wanted
        dynamic, scored = self._model.rope.follows_length, one.request.score_prompt and not one.made
        best = max([slot, *self._slots], key=lambda slot: slot.shared(wanted))
        one.cached = 0 if dynamic or scored else best.shared(wanted)
        if best is not slot and one.cached:
            slot.cache.copy_from(best.cache, one.cached)
        else:
            slot.cache.truncate(one.cached)
        slot.ids, slot.whole = one.unread[: one.cached], one.cached
        slot.cache.reach = len(one.unread) if dynamic else 0

    @torch.inference_mode()
    def _read(self, one: Continuation, chunk: list[int]) -> Events:
        slot, start, one.begun = one.slot, len(one.slot.ids), True
        rows = torch.tensor([chunk], device=self._model.head.device)  # (1, T)
        hidden = self._model.hidden(rows, cache=slot.cache)[0]  # (T, D)
        slot.ids += chunk  # only now: after an error the cache is cut back to what `ids` says
        slot.whole += PREFILL_CHUNK if len(chunk) == PREFILL_CHUNK else 0
        if one.request.score_prompt and not one.made:
            self._score(one, hidden, one.unread[start + 1 :])
        if len(slot.ids) < len(one.unread):
            return []
        one.unread, one.begun = [], False
        read = Read(one.cached, tuple(one.scores) if not one.made else ())
        if one.request.max_tokens == 0:
            return [(one, read), (one, Finish("length"))]
        return [(one, read), *self._draw([one], hidden[-1:])]

    @torch.inference_mode()
    def _decode(self, ones: list[Continuation]) -> Events:
        rows = torch.tensor([[one.newest for one in ones]], device=self._model.head.device)  # (1, B)
        hidden = self._model.hidden(rows, cache=Rows([one.slot.cache for one in ones]))[0]  # (B, D)
        for one in ones:
            one.slot.ids.append(one.newest)
        return self._draw(ones, hidden)

    def _score(self, one: Continuation, hidden: Tensor, following: Sequence[int]) -> None:
        for start in range(0, len(hidden), SCORED_ROWS):
            tokens = following[start : min(start + SCORED_ROWS, len(hidden))]
            if tokens:
                logits = self._logits(hidden[start : start + len(tokens)])
                one.scores += score(logits, tokens, one.request.logprobs or 0)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._model.logits(hidden)[:, : self._vocabulary].float()  # (B, V)

    def _draw(self, ones: list[Continuation], hidden: Tensor) -> Events:
        logits, found = self._logits(hidden), []
        raw = {at: logits[at : at + 1].clone() for at, one in enumerate(ones) if one.request.logprobs is not None}
        for at, token in enumerate(sample(logits, [_draw(one) for one in ones])):
            one, request = ones[at], ones[at].request
            if token == INVALID:
                found.append((one, NOT_FINITE))
                continue
            one.newest, one.made = token, one.made + 1
            if penalises(request.sampling):
                one.seen[token] += 1
            found.append((one, score(raw[at], [token], request.logprobs or 0)[0] if at in raw else token))
            full = len(one.slot.ids) == self.context
            if token in request.stop_ids:
                found.append((one, Finish("stop")))
            elif one.made == request.max_tokens or (full and not request.roll):
                found.append((one, Finish("length")))
            elif full:
                one.unread = [*rolled(one.slot.ids, len(request.prompt), self.context, self._breaks), token]
        return found


def events(batch: Batch, request: Request) -> Iterator[Event | None]:
    """Yield what happens to one request that has the batch for itself, and None after every other pass."""
    one = batch.add(request)
    try:
        while True:
            for _, run in batch.work():
                for _, event in run() or [(one, None)]:
                    yield event
                    if isinstance(event, Finish):
                        return
    finally:
        batch.drop(one)


def rolled(ids: Sequence[int], prompt: int, context: int, breaks: Container[int] = ()) -> list[int]:
    """Return what stays of a full context: the prompt's head, at most an eighth of it, and the newest half.

    The half begins after the first of `breaks` in its first half, if there is one.
    """
    head = min(prompt, context // 8)
    newest = ids[len(ids) - context // 2 :]
    start = next((at + 1 for at, token in enumerate(newest[: len(newest) // 2]) if token in breaks), 0)
    return [*ids[:head], *newest[start:]]


def _draw(one: Continuation) -> Draw:
    """Return what the next draw depends on."""
    banned = one.request.stop_ids if one.made < one.request.min_tokens else ()
    return Draw(one.request.sampling, one.made, one.seen, banned)
