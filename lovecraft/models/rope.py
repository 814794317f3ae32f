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
        self.follows_length = architecture.rope_parameters.rope_type == "dynamic"
        self.cos = self.sin = torch.empty(0)

    def at(self, start: int, stop: int, like: Tensor, reach: int = 0) -> Rope:
        """Return the tables of the positions [start, stop), in `like`'s type and on its device.

        They may depend on the length of the text, which is `reach`, or `stop` if that is more.
        """
        if self.follows_length:
            cos, sin = _tables(self.architecture, start, stop, like.device, max(stop, reach))
            return cos.to(like.dtype), sin.to(like.dtype)
        if stop > len(self.cos) or self.cos.device != like.device:
            self._compute(1 << (stop - 1).bit_length(), like.device)
        return self.cos[start:stop].to(like.dtype), self.sin[start:stop].to(like.dtype)

    def restarting(self, lengths: Sequence[int], like: Tensor) -> Rope:
        """Return the tables of documents of `lengths` tokens one behind the other, each from position 0."""
        by_length = {tokens: self.at(0, tokens, like) for tokens in set(lengths)}
        cos, sin = zip(*(by_length[tokens] for tokens in lengths), strict=True)
        return torch.cat(cos), torch.cat(sin)

    @torch.inference_mode(False)  # else tables first needed in an evaluation could not be used in training
    def _compute(self, length: int, device: torch.device) -> None:
        self.cos, self.sin = _tables(self.architecture, 0, length, device)


def _tables(arch: Architecture, start: int, stop: int, device: torch.device, length: int = 0) -> Rope:
    """Return the tables of the positions [start, stop) in a text of `length` tokens, float32."""
    positions = torch.arange(start, stop, dtype=torch.float32, device=device)
    angles = torch.outer(positions, inverse_frequencies(arch, device, length))  # (T, Dh / 2)
    scale = arch.rope_parameters.attention_factor
    cos, sin = angles.cos() * scale, angles.sin() * scale
    return torch.cat((cos, cos), dim=-1)[:, None], torch.cat((-sin, sin), dim=-1)[:, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of channels (i, i + Dh / 2) of x (B, T, H, Dh) by the angle of its position."""
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, dims=-1), sin)


def inverse_frequencies(arch: Architecture, device: torch.device, length: int = 0) -> Tensor:
    """Return the angle per position of each pair of channels in a text of `length` tokens: float32, (Dh / 2,)."""
    rope, size = arch.rope_parameters, arch.head_dim
    exponents = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
    frequencies = 1.0 / rope.rope_theta**exponents
    match rope.rope_type:
        case "default":
            return frequencies
        case "linear":  # positions are squeezed into the context trained on
            return frequencies / rope.factor
        case "dynamic":
            trained = rope.original_max_position_embeddings
            if length <= trained:
                return frequencies
            # In float32, like transformers; NTK-aware scaling of Reddit's bloc97 and emozilla.
            over = torch.tensor(length, device=device) * rope.factor / trained - (rope.factor - 1)
            return 1.0 / (rope.rope_theta * over ** (size / (size - 2))) ** exponents
        case "llama3":
            return _llama3(frequencies, rope)
        case "yarn":
            return _yarn(frequencies, rope)
    raise AssertionError(rope.rope_type)


def _llama3(frequencies: Tensor, rope: RopeParameters) -> Tensor:
    """Slow long waves down by `factor`, keep short ones, blend between (from Llama 3.1's published code)."""
    turns = rope.original_max_position_embeddings * frequencies / (2 * math.pi)  # over the context trained on
    keep = ((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)).clamp(0, 1)
    return keep * frequencies + (1 - keep) * frequencies / rope.factor


def _yarn(frequencies: Tensor, rope: RopeParameters) -> Tensor:
    """Slow long waves down by `factor`, keep short ones, blend by channel between (Peng et al., 2023)."""
    pairs = len(frequencies)

    def pair_that_turns(turns: float) -> float:  # so often over the context trained on
        longest = rope.original_max_position_embeddings / (turns * 2 * math.pi)
        return pairs * math.log(longest) / math.log(rope.rope_theta)

    first, last = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    last += 0.001 if first == last else 0  # as in the published code
    slow = ((torch.arange(pairs, dtype=torch.float32, device=frequencies.device) - first) / (last - first)).clamp(0, 1)
    return frequencies / rope.factor * slow + frequencies * (1 - slow)
