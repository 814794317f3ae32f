"""The Mistral family: Llama whose tokens see only so many tokens back (Jiang et al., 2023).

Mistral 7B v0.1 has a window of 4096; the later ones have none and are Llama in all but name.
"""

from lovecraft.models.llama import Llama


class Mistral(Llama):
    """A Mistral language model."""

    def windows(self) -> list[int | None]:
        """Return the one window of all layers."""
        return [self.architecture.sliding_window] * self.architecture.num_hidden_layers
