"""The Qwen2 family, also Qwen 1.5 and 2.5: Llama with biases at queries, keys and values (Yang et al., 2024).

A window is off in all published models; where it is on, it begins at the layer `max_window_layers`.
"""

from torch import nn

from lovecraft.models.architecture import Architecture
from lovecraft.models.llama import Attention, Llama


class Qwen2(Llama):
    """A Qwen2 language model."""

    def attention(self) -> Attention:
        """Make the attention of one layer."""
        return Qwen2Attention(self.architecture)

    def windows(self) -> list[int | None]:
        """Return the window of the later layers, and none of the first ones."""
        arch = self.architecture
        return [arch.sliding_window if i >= arch.max_window_layers else None for i in range(arch.num_hidden_layers)]


class Qwen2Attention(Attention):
    """Llama's, with biases before but not after."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__(arch)
        self.o_proj = nn.Linear(self.o_proj.in_features, arch.hidden_size, bias=False)
