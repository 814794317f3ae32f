"""The Qwen3 family: Llama whose queries and keys are normalised by head before they are rotated (Yang et al., 2025)."""

from torch import Tensor

from lovecraft.models.architecture import Architecture
from lovecraft.models.llama import Attention
from lovecraft.models.norm import RMSNorm
from lovecraft.models.qwen2 import Qwen2
from lovecraft.models.rope import Rope


class Qwen3(Qwen2):
    """A Qwen3 language model; of Qwen2 it has the windows alone."""

    def attention(self) -> Attention:
        """Make the attention of one layer."""
        return Qwen3Attention(self.architecture)


class Qwen3Attention(Attention):
    """Llama's, with a norm over each head of queries and of keys."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__(arch)
        self.q_norm = RMSNorm(arch.head_dim, arch.rms_norm_eps)
        self.k_norm = RMSNorm(arch.head_dim, arch.rms_norm_eps)

    def turn(self, q: Tensor, k: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
        """Return queries (B, T, H, Dh) and keys (B, T, Hkv, Dh) normalised, then rotated to their positions."""
        return super().turn(self.q_norm(q), self.k_norm(k), rope)
