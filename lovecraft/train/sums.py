"""Float32 sums of the gradients of a step's passes, where the weights, and so each pass's gradients, are narrower.

Added up in bfloat16, what a late pass brings would be rounded away.
"""

from collections.abc import Iterable, Mapping

import attrs
import torch
from torch import Tensor


@attrs.define
class Sums:
    """The sums by parameter, on `device`; their memory is kept from step to step."""

    device: torch.device
    _held: dict[str, Tensor] = attrs.field(factory=dict, init=False)
    _begun: set[str] = attrs.field(factory=set, init=False)

    def add(self, name: str, gradient: Tensor) -> None:
        """Add a pass's gradient of the parameter `name`."""
        if name not in self._held:
            self._held[name] = torch.empty(gradient.shape, dtype=torch.float32, device=self.device)
        if name in self._begun:
            self._held[name].add_(gradient)
        else:
            self._held[name].copy_(gradient)
            self._begun.add(name)

    def found(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the sums of this step in the order of `names`, whichever came first."""
        return {name: self._held[name] for name in names if name in self._begun}

    def forget(self) -> None:
        """Begin the next step."""
        self._begun.clear()


def sum_bytes(parameters: Mapping[str, Tensor]) -> int:
    """Return the bytes of all sums."""
    return 4 * sum(parameter.numel() for parameter in parameters.values())
