"""The Mistral family: Llama whose tokens see only so many tokens back (Jiang et al., 2023).

Mistral 7B v0.1 has a window of 4096; the later ones have none and are Llama in all but name.
"""

from lovecraft.models.architecture import Architecture
from lovecraft.models.llama import Llama


class Mistral(Llama):
    """A Mistral language model."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.window = architecture.sliding_window
