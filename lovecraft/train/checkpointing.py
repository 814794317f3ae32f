"""Activation checkpointing: of each block only the input is kept, backward computes the rest again."""

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lovecraft.models.llama import Block


def checkpointed(index: int, block: Block, hidden: Tensor) -> Tensor:
    """Run block number `index`, keeping its input (B, T, D) alone for backward.

    Not reentrant: recomputing stops at the last tensor that backward needs, so the last matrix product of a block is
    not repeated. Our networks draw no random numbers, so no RNG state is kept.
    """
    return checkpoint(block, hidden, use_reentrant=False, preserve_rng_state=False)
