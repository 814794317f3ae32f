"""Offload: the blocks' inputs wait for backward in host memory.

Each checkpointed block saves one tensor, its input. A hook around exactly that call copies it into a row of one pinned
slab, and gives it back in backward, where fetching block i starts the copy of block i - 1. The last blocks' inputs stay
on the device: they are wanted at once. On a CPU the same bookkeeping makes plain copies.
"""

import collections
import functools

import attrs
import torch
from torch import Tensor

from lovecraft.models.llama import Block
from lovecraft.train.checkpointing import checkpointed

KEEP = 2  # blocks at the end whose inputs stay on the device
IN_FLIGHT = 2  # inputs on the device whose copy to the host may not have ended


@attrs.define
class Offload:
    """Runs the blocks of a model of `layers` blocks with their inputs offloaded."""

    layers: int
    keep: int = KEEP
    _waiting: dict[int, torch.Size] = attrs.field(factory=dict, init=False)
    _fetched: dict[int, Tensor] = attrs.field(factory=dict, init=False)
    _slab: Tensor | None = attrs.field(default=None, init=False)
    _copies: "_PlainCopies | _StreamCopies | None" = attrs.field(default=None, init=False)

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
        rows, size = max(0, self.layers - self.keep), hidden.numel()
        if self._slab is None or self._slab.shape[1] < size or self._slab.dtype != hidden.dtype:
            self._slab = torch.empty(rows, size, dtype=hidden.dtype, pin_memory=hidden.is_cuda)
        if self._copies is None:
            self._copies = _StreamCopies(hidden.device) if hidden.is_cuda else _PlainCopies()

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


class _PlainCopies:
    """Copies between the device and rows of the slab, done when they return."""

    def send(self, index: int, hidden: Tensor, row: Tensor) -> None:
        row.copy_(hidden)

    def fetch(self, index: int, row: Tensor) -> Tensor:
        return row.clone()

    def wait(self, index: int) -> None:
        pass


class _StreamCopies:
    """Copies on two CUDA streams of their own, one each way, ordered against the compute stream by events.

    The compute stream is read at every use and before any other stream is entered: inside `torch.cuda.stream`,
    `current_stream` is the side stream, and waiting for that waits for nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.down, self.up = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self.sent: dict[int, torch.Event] = {}
        self.arrived: dict[int, torch.Event] = {}
        self.leaving: collections.deque[tuple[Tensor, torch.Event]] = collections.deque()

    def send(self, index: int, hidden: Tensor, row: Tensor) -> None:
        compute = torch.cuda.current_stream(self.device)
        self.down.wait_stream(compute)
        with torch.cuda.stream(self.down):
            row.copy_(hidden, non_blocking=True)
            self.sent[index] = self.down.record_event()
        self.leaving.append((hidden, self.sent[index]))
        if len(self.leaving) > IN_FLIGHT:
            self._release(compute)

    def fetch(self, index: int, row: Tensor) -> Tensor:
        compute = torch.cuda.current_stream(self.device)
        while self.leaving:
            self._release(compute)
        hidden = torch.empty(row.shape, dtype=row.dtype, device=self.device)
        self.up.wait_stream(compute)  # the memory of `hidden` may still be read by work queued before
        self.up.wait_event(self.sent[index])
        with torch.cuda.stream(self.up):
            hidden.copy_(row, non_blocking=True)
            self.arrived[index] = self.up.record_event()
        return hidden

    def wait(self, index: int) -> None:
        torch.cuda.current_stream(self.device).wait_event(self.arrived.pop(index))

    def _release(self, compute: torch.cuda.Stream) -> None:
        """Drop the oldest leaving input: its memory may be used again once its copy has ended."""
        hidden, sent = self.leaving.popleft()
        compute.wait_event(sent)
        del hidden
