"""One parameter as an optimizer sees it: float32 parts to read and write, whatever the weights are stored in."""

from collections.abc import Iterator

import attrs
import torch
from torch import Tensor

from lovecraft.train.optim.rounding import Noise, round_stochastically

# Elements worked on at once. On a CPU a part and its temporaries stay in the cache; elsewhere fewer launches count.
PART = {"cpu": 1 << 17}
LARGE_PART = 1 << 22


@attrs.frozen
class View:
    """A parameter with its gradient; `parts` walks over its rows, so that no temporary is as large as the parameter.

    `scale` multiplies the gradient (clipping). `master` holds float32 weights. `noise` rounds bfloat16 weights and
    state stochastically; weights that are to be rounded to the `nearest` do without.
    """

    parameter: Tensor
    whole_gradient: Tensor
    index: int
    """The parameter's place among all, which tells its noise from the others'."""

    scale: float
    weight_decay: float
    master: Tensor | None
    nearest: bool
    noise: Noise | None

    @property
    def shape(self) -> torch.Size:
        """The parameter's shape."""
        return self.parameter.shape

    def parts(self) -> Iterator[slice]:
        """Yield slices of the first dimension, each of at most a part's elements or one row."""
        length = self.shape[0]
        rows = part_size(self.parameter) * length // self.parameter.numel()
        for start in range(0, length, rows):
            yield slice(start, min(start + rows, length))

    def gradient(self, part: slice) -> Tensor:
        """Return the gradient of a part in float32, not to be written to."""
        gradient = self.whole_gradient[part].float()
        return gradient if self.scale == 1.0 else gradient * self.scale

    def weight(self, part: slice) -> Tensor:
        """Return the weights of a part in float32, to be changed in place and given to `store`."""
        return (self.parameter if self.master is None else self.master)[part].float()

    def store(self, part: slice, weight: Tensor) -> None:
        """Write a part's changed weights back; `weight` is not valid afterwards."""
        into = self.parameter[part]
        if into.dtype == torch.float32:
            return  # `weight` was the parameter itself
        if self.noise is None or self.nearest:
            into.copy_(weight)
        else:
            round_stochastically(weight, into, self.noise.words(weight.numel(), self.index, part.start))

    def keep(self, name: str, state: Tensor, part: slice, value: Tensor) -> None:
        """Write a part's float32 `value` back into the state of that name; `value` is not valid afterwards."""
        if state.dtype == torch.float32:
            return  # `value` was the state itself
        assert self.noise is not None
        round_stochastically(value, state[part], self.noise.words(value.numel(), self.index, part.start, name))


def part_size(parameter: Tensor) -> int:
    """Return the most elements that a part of `parameter` has: whole rows, at least one."""
    row = parameter.numel() // parameter.shape[0]
    return max(1, PART.get(parameter.device.type, LARGE_PART) // row) * row
