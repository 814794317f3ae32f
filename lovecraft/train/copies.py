"""Copies between a device and host memory beside the computation.

On a CPU the same bookkeeping makes plain copies, so that it is tested where there is no GPU.
"""

import collections

import torch
from torch import Tensor

IN_FLIGHT = 2  # tensors on the device whose copy to the host may not have ended


def copies_for(device: torch.device) -> "PlainCopies | StreamCopies":
    """Return what copies from `device` to the host and back."""
    return StreamCopies(device) if device.type == "cuda" else PlainCopies()


class PlainCopies:
    """Copies that are done when they return."""

    def send(self, index: int, tensor: Tensor, row: Tensor) -> None:
        """Copy `tensor` into `row`, in host memory."""
        row.copy_(tensor)

    def sent_wholly(self, index: int) -> None:
        """Let the host wait until copy number `index` has ended."""

    def release(self) -> None:
        """Hold nothing that was sent."""

    def fetch(self, index: int, row: Tensor) -> Tensor:
        """Return a copy of `row` on the device, to be used after `wait`."""
        return row.clone()

    def wait(self, index: int) -> None:
        """Let the computation wait for what `fetch` began."""


class StreamCopies:
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

    def send(self, index: int, tensor: Tensor, row: Tensor) -> None:
        """Begin to copy `tensor` into `row`, in pinned memory; it is held until its memory may be used again."""
        compute = torch.cuda.current_stream(self.device)
        self.down.wait_stream(compute)
        with torch.cuda.stream(self.down):
            row.copy_(tensor, non_blocking=True)
            self.sent[index] = self.down.record_event()
        self.leaving.append((tensor, self.sent[index]))
        if len(self.leaving) > IN_FLIGHT:
            self._drop_oldest()

    def sent_wholly(self, index: int) -> None:
        """Let the host wait until copy number `index` has ended."""
        self.sent[index].synchronize()

    def fetch(self, index: int, row: Tensor) -> Tensor:
        """Begin a copy of `row` on the device, to be used after `wait`."""
        compute = torch.cuda.current_stream(self.device)
        self.release()
        hidden = torch.empty(row.shape, dtype=row.dtype, device=self.device)
        self.up.wait_stream(compute)  # the memory of `hidden` may still be read by work queued before
        self.up.wait_event(self.sent[index])
        with torch.cuda.stream(self.up):
            hidden.copy_(row, non_blocking=True)
            self.arrived[index] = self.up.record_event()
        return hidden

    def wait(self, index: int) -> None:
        """Let the computation wait for what `fetch` began."""
        torch.cuda.current_stream(self.device).wait_event(self.arrived.pop(index))

    def release(self) -> None:
        """Hold nothing that was sent: its memory may be used again by what is computed after its copy has ended."""
        while self.leaving:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        tensor, sent = self.leaving.popleft()
        torch.cuda.current_stream(self.device).wait_event(sent)
        del tensor
