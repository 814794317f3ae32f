"""Offload: the blocks' inputs wait for backward in host memory.

Each checkpointed block saves one tensor, its input. A hook around exactly that call copies it into a row of one pinned
slab, and gives it back in backward, where fetching block i starts the copy of block i - 1. The last blocks' inputs stay
on the device: they are wanted at once.
"""

import functools

import attrs
import torch
from torch import Tensor

from lovecraft.models.llama import Block
from lovecraft.train.checkpointing import checkpointed
from lovecraft.train.copies import IN_FLIGHT, PlainCopies, StreamCopies, copies_for

KEEP = 2  # blocks at the end whose inputs stay on the device


@attrs.define
class Offload:
    """Runs the blocks of a model of `layers` blocks with their inputs offloaded.

    A row of the slab has room for `largest` numbers, so that pinning, which stops the GPU, happens once.
    """

    layers: int
    largest: int = 0
    keep: int = KEEP
    _waiting: dict[int, torch.Size] = attrs.field(factory=dict, init=False)
    _fetched: dict[int, Tensor] = attrs.field(factory=dict, init=False)
    _slab: Tensor | None = attrs.field(default=None, init=False)
    _copies: PlainCopies | StreamCopies | None = attrs.field(default=None, init=False)

    def run_block(self, index: int, block: Block, hidden: Tensor) -> Tensor:
        """Run block number `index` on `hidden` (B, T, D), checkpointed and, unless it is one of the last, offloaded."""
        if index == 0:
            self._begin(hidden)
        if index >= self.layers - self.keep:
            return checkpointed(index, block, hidden)
        with torch.autograd.graph.saved_tensors_hooks(functools.partial(self._pack, index), self._unpack):
            return checkpointed(index, block, hidden)

    def _begin(self, hidden: Tensor) -> None:
        """Forget what a forward pass without backward left, and make the slab large enough."""
        self._waiting.clear()
        self._fetched.clear()
        rows, size = max(0, self.layers - self.keep), max(self.largest, hidden.numel())
        if self._slab is None or self._slab.shape[1] < size or self._slab.dtype != hidden.dtype:
            self._slab = torch.empty(rows, size, dtype=hidden.dtype, pin_memory=hidden.is_cuda)
        if self._copies is None:
            self._copies = copies_for(hidden.device)

    def _pack(self, index: int, hidden: Tensor) -> int:
        assert index not in self._waiting, "a block saved more than its input: it takes another tensor as argument"
        assert hidden.is_contiguous()
        assert self._copies is not None
        self._waiting[index] = hidden.shape
        self._copies.send(index, hidden, self._row(index))
        return index

    def _unpack(self, index: int) -> Tensor:
        assert self._copies is not None
        hidden = self._fetched.pop(index, None)
        if hidden is None:
            hidden = self._copies.fetch(index, self._row(index))
        if index - 1 in self._waiting:
            self._fetched[index - 1] = self._copies.fetch(index - 1, self._row(index - 1))
        del self._waiting[index]
        self._copies.wait(index)
        return hidden

    def _row(self, index: int) -> Tensor:
        assert self._slab is not None
        shape = self._waiting[index]
        return self._slab[index, : shape.numel()].view(shape)  # (B, T, D)


def kept_on_device(layers: int) -> int:
    """Return how many of the blocks' inputs are on the device at most: the last ones and those that are leaving."""
    return min(layers, KEEP + IN_FLIGHT)


def slab_bytes(layers: int, row: int) -> int:
    """Return the bytes of host memory for inputs of `row` bytes each."""
    return max(0, layers - KEEP) * row
