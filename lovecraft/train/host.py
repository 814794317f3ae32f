"""The optimizer in host memory: a GPU holds the weights and, for a moment, each gradient.

A gradient is copied down as soon as it is whole and added up there in float32, so that accumulation and clipping are
what they are elsewhere. The update is made by the CPU, on weights of its own, which are then copied up. Only what
crosses the bus is pinned: copies of the weights, and the buffers in which gradients arrive. On a CPU the same
bookkeeping makes plain copies and takes the same step to the bit.
"""

import functools
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import attrs
import torch
from torch import Tensor

from lovecraft.config.schema import OptimizerConfig
from lovecraft.train.copies import IN_FLIGHT, PlainCopies, StreamCopies, copies_for
from lovecraft.train.optim.step import State, Step, begin_step, gradient_norm, update_one
from lovecraft.train.sums import Sums, sum_bytes

HOST = torch.device("cpu")


@attrs.define
class OnHost:
    """Gradients go down as they come, weights come up at the step's end."""

    optimizer: OptimizerConfig
    parameters: Mapping[str, Tensor]
    state: State
    seed: int
    in_backward: bool = attrs.field(default=False, init=False)
    _weights: dict[str, Tensor] = attrs.field(init=False)
    _landing: Tensor = attrs.field(init=False)
    _copies: PlainCopies | StreamCopies = attrs.field(init=False)
    _sums: Sums = attrs.field(factory=lambda: Sums(HOST), init=False)
    _adding: dict[int, Future[None]] = attrs.field(factory=dict, init=False)
    _worker: ThreadPoolExecutor = attrs.field(factory=lambda: ThreadPoolExecutor(1), init=False)
    _arrived: int = attrs.field(default=0, init=False)
    _step: Step | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        like = next(iter(self.parameters.values()))
        self._copies = copies_for(like.device)
        options = {"device": HOST, "dtype": like.dtype, "pin_memory": like.is_cuda}
        self._weights = {name: torch.empty(p.shape, **options).copy_(p.detach()) for name, p in self.parameters.items()}
        self._landing = torch.empty(IN_FLIGHT, max(p.numel() for p in self.parameters.values()), **options)
        for name, parameter in self.parameters.items():
            parameter.register_post_accumulate_grad_hook(functools.partial(self._send, name))

    def begin(self, number: int, lr: float) -> None:
        """Begin a step."""
        self._step = begin_step(self.optimizer, self._weights, number=number, lr=lr, seed=self.seed)

    def norm(self) -> float:
        """Return the norm of all gradients, once they have arrived."""
        self._wait()
        return gradient_norm(self._sums.found(self.parameters).values())

    def finish(self, scale: float) -> None:
        """Update all weights here and send them up, each while the next is worked on."""
        assert self._step is not None
        for index, (name, gradient) in enumerate(self._sums.found(self.parameters).items()):
            update_one(self._step, index, name, self._weights[name], gradient, self.state.get(name, {}), scale)
            self.parameters[name].detach().copy_(self._weights[name], non_blocking=True)
        self.forget()

    def forget(self) -> None:
        """Drop all gradients."""
        self._wait()
        self._sums.forget()

    def _send(self, name: str, parameter: Tensor) -> None:
        """Let a gradient go down, and be added as soon as it has arrived."""
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        slot = self._arrived % IN_FLIGHT
        self._arrived += 1
        if slot in self._adding:
            self._adding[slot].result()
        row = self._landing[slot, : gradient.numel()].view(gradient.shape)
        self._copies.send(slot, gradient, row)
        self._adding[slot] = self._worker.submit(self._add, slot, name, row)

    def _add(self, slot: int, name: str, row: Tensor) -> None:
        self._copies.sent_wholly(slot)
        self._sums.add(name, row)

    def _wait(self) -> None:
        for adding in self._adding.values():
            adding.result()
        self._adding.clear()
        self._copies.release()


def gradient_bytes(parameters: Mapping[str, Tensor]) -> int:
    """Return the bytes of gradients on the device: one that is made, and those that are leaving."""
    return (1 + IN_FLIGHT) * max(parameter.nbytes for parameter in parameters.values())


def host_bytes(parameters: Mapping[str, Tensor]) -> int:
    """Return the bytes in host memory besides the optimizer's state: weights, sums, and where gradients arrive."""
    weights = sum(parameter.nbytes for parameter in parameters.values())
    return weights + sum_bytes(parameters) + IN_FLIGHT * max(parameter.nbytes for parameter in parameters.values())
