"""Rotary position embedding (Su et al., 2021), in the half-split layout of Hugging Face checkpoints.

Angles are computed in float32 by the arithmetic that the models were trained with, whatever the type of the weights:
in bfloat16 no position above 256 is exact.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lovecraft.models.architecture import Architecture, RopeParameters

Rope = tuple[Tensor, Tensor]  # cosines and signed sines of some positions, each (T, 1, Dh)


class RopeTables:
    """Cosines and sines of every position asked for so far, float32, on the device last asked for."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.cos = self.sin = torch.empty(0)

    def at(self, start: int, stop: int, like: Tensor) -> Rope:
        """Return the tables of the positions [start, stop), in `like`'s type and on its device."""
        if stop > len(self.cos) or self.cos.device != like.device:
            self._compute(1 << (stop - 1).bit_length(), like.device)
        return self.cos[start:stop].to(like.dtype), self.sin[start:stop].to(like.dtype)

    def restarting(self, lengths: Sequence[int], like: Tensor) -> Rope:
        """Return the tables of documents of `lengths` tokens one behind the other, each from position 0."""
        cos, sin = self.at(0, max(lengths), like)
        return torch.cat([cos[:tokens] for tokens in lengths]), torch.cat([sin[:tokens] for tokens in lengths])

    @torch.inference_mode(False)  # else tables first needed in an evaluation could not be used in training
    def _compute(self, length: int, device: torch.device) -> None:
        positions = torch.arange(length, dtype=torch.float32, device=device)
        angles = torch.outer(positions, inverse_frequencies(self.architecture, device))  # (T, Dh / 2)
        cos, sin = angles.cos(), angles.sin()
        self.cos = torch.cat((cos, cos), dim=-1)[:, None]
        self.sin = torch.cat((-sin, sin), dim=-1)[:, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of channels (i, i + Dh / 2) of x (B, T, H, Dh) by the angle of its position."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def inverse_frequencies(arch: Architecture, device: torch.device) -> Tensor:
    """Return the angle per position of each pair of channels: float32, (Dh / 2,)."""
    rope = arch.rope_parameters
    exponents = torch.arange(0, arch.head_dim, 2, dtype=torch.float32, device=device) / arch.head_dim
    frequencies = 1.0 / rope.rope_theta**exponents
    match rope.rope_type:
        case "default":
            return frequencies
        case "linear":  # positions are squeezed into the context trained on
            return frequencies / rope.factor
        case "llama3":
            return _llama3(frequencies, rope)
    raise AssertionError(rope.rope_type)


def _llama3(frequencies: Tensor, rope: RopeParameters) -> Tensor:
    """Slow long waves down by `factor`, keep short ones, blend between (from Llama 3.1's published code)."""
    turns = rope.original_max_position_embeddings * frequencies / (2 * math.pi)  # over the context trained on
    keep = ((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)).clamp(0, 1)
    return keep * frequencies + (1 - keep) * frequencies / rope.factor
