"""The optimizer in backward: each weight is updated as soon as its gradient is whole, which is then freed at once.

So it takes no accumulation, and no clipping, whose norm is known only after backward. Whatever is wrong with a
gradient is known only after some weights took it: the loss is checked before backward, the norm after it, and a run
that either of them ends saves nothing of that step.
"""

import functools
from collections.abc import Mapping

import attrs
from torch import Tensor

from lovecraft.config.schema import OptimizerConfig
from lovecraft.train.optim.step import State, Step, begin_step, part_norms, total_norm, update_one


@attrs.define
class InBackward:
    """Updates each parameter in the hook that runs when its gradient is whole: once, also where it is used twice."""

    optimizer: OptimizerConfig
    parameters: Mapping[str, Tensor]
    state: State
    seed: int
    in_backward: bool = attrs.field(default=True, init=False)
    _step: Step | None = attrs.field(default=None, init=False)
    _norms: dict[int, list[Tensor]] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        for index, (name, parameter) in enumerate(self.parameters.items()):
            parameter.register_post_accumulate_grad_hook(functools.partial(self._take, index, name))

    def begin(self, number: int, lr: float) -> None:
        """Let the next backward update."""
        self._step = begin_step(self.optimizer, self.parameters, number=number, lr=lr, seed=self.seed)

    def norm(self) -> float:
        """Return the norm of the gradients that there were."""
        return total_norm([norm for index in sorted(self._norms) for norm in self._norms[index]])

    def finish(self, scale: float) -> None:
        """Let no further backward update."""
        assert scale == 1.0
        self.forget()

    def forget(self) -> None:
        """Drop what is left of the step."""
        self._step = None
        self._norms.clear()

    def _take(self, index: int, name: str, parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        if self._step is None:
            return  # a rehearsal
        assert index not in self._norms, f"a second gradient of {name} in one step"
        self._norms[index] = part_norms(gradient)
        update_one(self._step, index, name, parameter, gradient, self.state.get(name, {}))


def gradient_bytes(parameters: Mapping[str, Tensor]) -> int:
    """Return the bytes of the gradients that are there at once: the largest."""
    return max(parameter.nbytes for parameter in parameters.values())
