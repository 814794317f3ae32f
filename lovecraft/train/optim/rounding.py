"""Float32 to bfloat16 without losing small updates.

With weights of size 0.02 and updates of 1e-5, rounding to nearest throws most updates away; rounding up with a
probability equal to the lost fraction keeps their mean.
"""

import hashlib

import attrs
import torch
from torch import Tensor


@attrs.frozen
class Noise:
    """The noise of one optimizer step, a function of seed, step, parameter and place, so that no state is saved.

    One table of random words serves all parts of all parameters, each time under another random mask. Any two words
    drawn are independent of each other, so the mean and the variance of a sum of roundings are those of fresh noise;
    drawing that afresh would cost more than the rest of an AdamW step on a CPU.
    """

    key: str
    table: Tensor

    def words(self, count: int, index: int, start: int, state: str = "") -> Tensor:
        """Return `count` words from 0 to 65535 for the part of parameter number `index` that begins at `start`.

        The parameter's `state` of that name has noise of its own.
        """
        return self.table[:count] ^ (_hash(f"{self.key}/{index}/{start}{state}") & 0xFFFF)


def step_noise(seed: int, step: int, size: int, device: torch.device) -> Noise:
    """Return the noise of one step for parts of at most `size` elements."""
    key = f"{seed}/{step}"
    source = torch.Generator(device).manual_seed(_hash(key))
    return Noise(key, torch.randint(1 << 16, (size,), generator=source, dtype=torch.int32, device=device))


def round_stochastically(weight: Tensor, into: Tensor, words: Tensor) -> None:
    """Round `weight` (float32, contiguous, overwritten) to bfloat16 `into` of the same shape, without bias.

    A bfloat16 is the upper half of a float32: adding uniform noise to the lower half and cutting it off carries into
    the upper half with a probability equal to the fraction that is cut.
    """
    weight.view(torch.int32).add_(words.view(weight.shape)).bitwise_and_(-0x10000)
    into.copy_(weight)


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) >> 1
