"""Float32 to bfloat16 without losing small updates.

With weights of size 0.02 and updates of 1e-5, rounding to nearest throws most updates away; rounding up with a
probability equal to the lost fraction keeps their mean.
"""

import hashlib

import torch
from torch import Tensor


def noise_source(seed: int, step: int, index: int, device: torch.device) -> torch.Generator:
    """Return the generator of one parameter's noise in one step: a function of its arguments, so no state is saved."""
    digest = hashlib.blake2b(f"{seed}/{step}/{index}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest) >> 1)


def round_stochastically(weight: Tensor, into: Tensor, noise: torch.Generator) -> None:
    """Round `weight` (float32, contiguous, overwritten) to bfloat16 `into` of the same shape, without bias.

    A bfloat16 is the upper half of a float32: adding uniform noise to the lower half and cutting it off carries into
    the upper half with a probability equal to the fraction that is cut.
    """
    count = weight.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=weight.device)
    words.random_(-(2**63), None, generator=noise)  # one 64-bit word is the noise of four weights
    signed = words.view(torch.int16)[:count].view(weight.shape)
    bits = weight.view(torch.int32)
    bits.add_(signed.to(torch.int32)).add_(0x8000).bitwise_and_(-0x10000)
    into.copy_(weight)
