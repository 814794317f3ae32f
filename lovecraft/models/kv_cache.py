"""Keys and values of the tokens seen so far, so that the next token costs one row instead of all."""

from collections.abc import Callable, Sequence
from functools import partial

import attrs
import torch
from torch import Tensor

from lovecraft.models.architecture import Architecture
from lovecraft.models.attention import Span, attend, attend_whole, document_spans
from lovecraft.models.rope import Rope, RopeTables

ROOM = 512
"""Tokens that a layer holds beyond its window: the most that one pass may add."""

Windows = Sequence[int | None]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From queries (B, H, T, Dh), keys and values (B, Hkv, T, Dh) of new tokens to the mixed values; as queries."""


@attrs.define(eq=False)
class _Store:
    """Keys and values of the layers with one window, in order; what it reaches no more makes room for the new."""

    window: int | None
    layers: list[int]
    data: Tensor  # (2, L, B, Hkv, S, Dh)
    start: int = 0  # position of the first one held

    def reserve(self, length: int, tokens: int) -> None:
        """Make room for `tokens` after the first `length`, forgetting what no window reaches any more."""
        held = length - self.start
        if held + tokens <= self.data.shape[4]:
            return
        kept = min(held, (self.window or held + 1) - 1)
        assert kept + tokens <= self.data.shape[4], (length, tokens, self.data.shape)
        self.data.narrow(4, 0, kept).copy_(self.data.narrow(4, held - kept, kept).clone())
        self.start = length - kept

    def seen(self, length: int) -> int:
        """Return how many of `length` tokens before it a token sees."""
        return length if self.window is None else min(length, self.window - 1)


class KVCache:
    """Preallocated keys and values of every layer for `capacity` tokens; `length` are filled.

    A layer with a window, `windows` says which, holds little more than its window.
    """

    def __init__(
        self,
        architecture: Architecture,
        batch: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        windows: Windows,
    ) -> None:
        heads, size = architecture.num_key_value_heads, architecture.head_dim
        self.stores = []
        for window in dict.fromkeys(windows):
            layers = [index for index, each in enumerate(windows) if each == window]
            held = capacity if window is None else min(capacity, window - 1 + ROOM)
            shape = (2, len(layers), batch, heads, held, size)
            self.stores.append(_Store(window, layers, torch.empty(shape, dtype=dtype, device=device)))
        self.capacity = capacity
        self.length = 0
        self.reach = 0  # length of the text whose chunks are being read, on which dynamic RoPE depends; 0 is unknown

    def begin(self, tokens: int, tables: RopeTables, like: Tensor) -> tuple[Rope, list[Attend]]:
        """Return the rope of the next `tokens` and what each layer attends with; what it is given is written here."""
        past, stop = self.length, self.length + tokens
        assert stop <= self.capacity, (stop, self.capacity)
        attends: dict[int, Attend] = {}
        for store, (keys, values) in zip(self.stores, self.views(tokens), strict=True):
            spans = document_spans([tokens], store.seen(past), store.window, like)
            for index, *pair in zip(store.layers, keys, values, strict=True):
                attends[index] = partial(_append, *pair, documents=spans)
        return tables.at(past, stop, like, max(self.reach, stop)), [attends[index] for index in sorted(attends)]

    def views(self, tokens: int) -> list[tuple[Sequence[Tensor], Sequence[Tensor]]]:
        """Return for each store the keys and the values (B, Hkv, S, Dh) of its layers that the next `tokens` see.

        Their own are the last ones, still to be written.
        """
        found = []
        for store in self.stores:
            store.reserve(self.length, tokens)
            seen = store.seen(self.length)
            keys, values = store.data.narrow(4, self.length - store.start - seen, seen + tokens)
            found.append((keys.unbind(), values.unbind()))
        return found

    def end(self, tokens: int) -> None:
        """Count the next `tokens` as held: all layers have written them."""
        self.length += tokens

    def holds(self, length: int) -> bool:
        """Whether a text could go on after its first `length` tokens; windows may have forgotten what that takes."""
        return length <= self.length and all(store.start <= length - store.seen(length) for store in self.stores)

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens, which it `holds`."""
        assert length == 0 or self.holds(length), (length, self.length)
        self.length = length
        for store in self.stores:
            store.start = min(store.start, length)

    def copy_from(self, other: "KVCache", length: int) -> None:
        """Hold the first `length` tokens of another cache of the same shape, which it `holds`."""
        for mine, its in zip(self.stores, other.stores, strict=True):
            mine.start = its.start
            held = length - its.start
            mine.data.narrow(4, 0, held).copy_(its.data.narrow(4, 0, held))
        self.length = length


@attrs.frozen(eq=False)
class Rows:
    """Caches of one row each, side by side: a pass adds one token to every one of them, in the order of `caches`."""

    caches: Sequence[KVCache]

    def begin(self, tokens: int, tables: RopeTables, like: Tensor) -> tuple[Rope, list[Attend]]:
        """Return the rope of the next token of each cache and what each layer attends with."""
        assert tokens == len(self.caches), (tokens, len(self.caches))
        ropes = [tables.at(c.length, c.length + 1, like, max(c.reach, c.length + 1)) for c in self.caches]
        cos, sin = ropes[0] if tokens == 1 else map(torch.cat, zip(*ropes, strict=True))
        views = [cache.views(1) for cache in self.caches]  # by cache, store
        attends: dict[int, Attend] = {}
        for number, store in enumerate(self.caches[0].stores):
            for at, index in enumerate(store.layers):
                attends[index] = partial(_attend_rows, [(row[number][0][at], row[number][1][at]) for row in views])
        return (cos, sin), [attends[index] for index in sorted(attends)]

    def end(self, tokens: int) -> None:
        """Count the token as held, all layers have written it."""
        for cache in self.caches:
            cache.end(1)


def _append(keys: Tensor, values: Tensor, q: Tensor, k: Tensor, v: Tensor, *, documents: list[list[Span]]) -> Tensor:
    """Write k and v at the end of `keys` and `values` and attend from q to all of them."""
    tokens = q.shape[2]
    keys.narrow(2, keys.shape[2] - tokens, tokens).copy_(k)
    values.narrow(2, values.shape[2] - tokens, tokens).copy_(v)
    return attend(q, keys, values, documents)


def _attend_rows(rows: list[tuple[Tensor, Tensor]], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend from each token of q (1, H, B, Dh) to the keys and values of its own row alone; as q.

    Row by row, so that what a row gets does not depend on the others' lengths, nor its cost.
    """
    parts = []
    for at, (keys, values) in enumerate(rows):
        keys.narrow(2, -1, 1).copy_(k.narrow(2, at, 1))
        values.narrow(2, -1, 1).copy_(v.narrow(2, at, 1))
        parts.append(attend_whole(q.narrow(2, at, 1), keys, values))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
