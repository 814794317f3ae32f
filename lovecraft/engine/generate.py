"""One continuation over the model and a key-value cache: ids in, ids out."""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor

from lovecraft.checkpoint import load_model
from lovecraft.config.schema import ModelConfig
from lovecraft.device import resolve_device, resolve_dtype
from lovecraft.engine.request import Finish, Read, Request, Steps
from lovecraft.engine.sampling import INVALID, sample
from lovecraft.errors import ConfigError, ModelError
from lovecraft.models import read_architecture
from lovecraft.models.inference import for_inference
from lovecraft.models.kv_cache import KVCache
from lovecraft.models.llama import Llama

PREFILL_CHUNK = 512
"""Tokens of a prompt in one forward pass: what bounds its memory, and the wait until a cancellation is seen."""


@attrs.define
class Slot:
    """A place for one sequence: a key-value cache and the ids it holds, kept from one request to the next."""

    cache: KVCache
    ids: list[int] = attrs.field(factory=list)
    whole: int = 0
    """Ids at the beginning that were read in whole chunks. Only these are used again: the last bits of what was read in
    other pieces, or made one by one, differ, and a request's text would depend on the one before it."""

    @property
    def context(self) -> int:
        """Tokens that fit."""
        return self.cache.capacity


def load(
    path: Path, *, device: str, dtype: str, max_context: int | None, model: ModelConfig | None = None
) -> tuple[Llama, Slot]:
    """Load a model directory for inference, as the options of `model` change it.

    The slot is for its whole context or for `max_context` tokens.
    Raises ModelError when it cannot be loaded, and ConfigError when it was not made for such a context.
    """
    architecture = read_architecture(path, model)
    own = architecture.context
    if max_context is not None and max_context > own:
        raise ConfigError(f"max_context is {max_context}, but the context of {path} is {own} tokens", hint="lower it")
    where = resolve_device(device)
    try:
        kind = resolve_dtype(dtype, where)
        network = for_inference(load_model(path, dtype=kind, device=where, architecture=architecture))
        cache = KVCache(architecture, 1, max_context or own, kind, where, network.windows())
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{path} does not fit in memory: {error}", hint="give a smaller --max-context") from None
    return network, Slot(cache)


def generate(model: Llama, slot: Slot, request: Request, *, vocabulary: int | None = None) -> Steps:
    """Continue `request.prompt`, which must be shorter than the context, reusing what `slot` holds of its beginning.

    Only ids below `vocabulary` are drawn: an embedding may have more rows than the tokenizer has tokens. Closing the
    generator between two steps cancels. Raises ModelError when the model's logits are not finite.
    """
    assert 0 < len(request.prompt) < slot.context, "the caller checks lengths"
    hidden = yield from _read(model, slot, request.prompt)
    for step in range(request.max_tokens):
        token = _draw(model, hidden, vocabulary, request, step)
        yield token
        if token in request.stop_ids:
            return Finish("stop")
        full = len(slot.ids) == slot.context
        if step + 1 == request.max_tokens or (full and not request.roll):
            break
        if full:
            hidden = yield from _read(model, slot, [*rolled(slot.ids, len(request.prompt), slot.context), token])
        else:
            hidden = _forward(model, slot, [token])
    return Finish("length")


def events(
    model: Llama, slot: Slot, request: Request, *, vocabulary: int | None = None
) -> Iterator[int | Read | Finish | None]:
    """Yield what `generate` yields, and then what it returns."""
    yield (yield from generate(model, slot, request, vocabulary=vocabulary))


def rolled(ids: Sequence[int], prompt: int, context: int) -> list[int]:
    """Return what stays of a full context: the prompt's head, at most an eighth of it, and the newest half."""
    head = min(prompt, context // 8)
    return [*ids[:head], *ids[len(ids) - context // 2 :]]


def _read(model: Llama, slot: Slot, ids: Sequence[int]) -> Generator[Read | None, None, Tensor]:
    """Bring the slot to hold exactly `ids`, chunk by chunk; return the hidden state of the last one (1, D)."""
    shared = _shared(slot.ids, ids[:-1])  # the last one is always read again: its hidden state is wanted
    if model.rope.follows_length:
        shared, slot.cache.reach = 0, len(ids)
    slot.whole = cached = min(shared, slot.whole) // PREFILL_CHUNK * PREFILL_CHUNK
    if not slot.cache.holds(cached):
        slot.whole = cached = 0
    slot.cache.truncate(cached)
    del slot.ids[cached:]
    while True:
        chunk = ids[len(slot.ids) : len(slot.ids) + PREFILL_CHUNK]
        hidden = _forward(model, slot, chunk)
        slot.whole += PREFILL_CHUNK if len(chunk) == PREFILL_CHUNK else 0
        if len(slot.ids) == len(ids):
            yield Read(cached)
            return hidden
        yield None


@torch.inference_mode()
def _forward(model: Llama, slot: Slot, ids: Sequence[int]) -> Tensor:
    """Append `ids` to the slot; return the hidden state of the last one (1, D)."""
    rows = torch.tensor([ids], device=model.head.device)  # (1, T)
    hidden = model.hidden(rows, cache=slot.cache)  # (1, T, D)
    slot.ids += ids  # only now: after an error the cache is cut back to what `ids` says
    return hidden[:, -1]


@torch.inference_mode()
def _draw(model: Llama, hidden: Tensor, vocabulary: int | None, request: Request, step: int) -> int:
    logits = model.logits(hidden)[:, :vocabulary].float()  # (1, V)
    [token] = sample(logits, [request.sampling], [step])
    if token == INVALID:
        raise ModelError(
            "the model's logits are not finite",
            hint="its weights are damaged, or its dtype overflows: try --dtype float32",
        )
    return token


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
