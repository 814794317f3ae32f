"""When and where the weights are updated. Here: after backward, on the device.

Every way takes the same step to the bit; they differ in what must be in memory at once.
"""

import functools
from collections.abc import Mapping
from typing import Protocol

import attrs
import torch
from torch import Tensor

from lovecraft.config.schema import OptimizerConfig
from lovecraft.train.optim.step import State, Step, begin_step, gradient_norm, update
from lovecraft.train.sums import Sums, sum_bytes


class Updates(Protocol):
    """What the loop tells whatever updates the weights, in this order; a rehearsal begins nothing and forgets all."""

    in_backward: bool

    def begin(self, number: int, lr: float) -> None:
        """Begin step `number` (the first is 1), before its first backward."""

    def norm(self) -> float:
        """Return the norm of the step's gradients, after its last backward."""

    def finish(self, scale: float) -> None:
        """End the step, with gradients times `scale`."""

    def forget(self) -> None:
        """Drop all gradients."""


@attrs.define
class AfterBackward:
    """Gradients stay on the device until the step's end; those of several passes of bfloat16 weights as sums."""

    optimizer: OptimizerConfig
    parameters: Mapping[str, Tensor]
    state: State
    seed: int
    passes: int
    in_backward: bool = attrs.field(default=False, init=False)
    _sums: Sums | None = attrs.field(default=None, init=False)
    _step: Step | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        like = next(iter(self.parameters.values()))
        if is_summed(like.dtype, self.passes):
            self._sums = Sums(like.device)
            for name, parameter in self.parameters.items():
                parameter.register_post_accumulate_grad_hook(functools.partial(self._add, name))

    def begin(self, number: int, lr: float) -> None:
        """Begin a step."""
        self._step = begin_step(self.optimizer, self.parameters, number=number, lr=lr, seed=self.seed)

    def norm(self) -> float:
        """Return the norm of all gradients."""
        return gradient_norm(self._gradients().values())

    def finish(self, scale: float) -> None:
        """Update all parameters."""
        assert self._step is not None
        update(self._step, self.parameters, self._gradients(), self.state, scale)
        self.forget()

    def forget(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None
        if self._sums is not None:
            self._sums.forget()

    def _add(self, name: str, parameter: Tensor) -> None:
        assert self._sums is not None
        assert parameter.grad is not None
        self._sums.add(name, parameter.grad)
        parameter.grad = None

    def _gradients(self) -> dict[str, Tensor]:
        if self._sums is not None:
            return self._sums.found(self.parameters)
        return {name: p.grad for name, p in self.parameters.items() if p.grad is not None}


def is_summed(dtype: torch.dtype, passes: int) -> bool:
    """Say whether the gradients of weights of `dtype` add up apart, in float32."""
    return passes > 1 and dtype != torch.float32


def gradient_bytes(parameters: Mapping[str, Tensor], passes: int) -> int:
    """Return the bytes of gradients on the device: all of them, or all sums and one pass's largest gradient."""
    dtype = next(iter(parameters.values())).dtype
    if is_summed(dtype, passes):
        return sum_bytes(parameters) + max(parameter.nbytes for parameter in parameters.values())
    return sum(parameter.nbytes for parameter in parameters.values())
