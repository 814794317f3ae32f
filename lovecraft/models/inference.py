"""The same network laid out for generation, where every step reads all weights to make one token a row."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lovecraft.models.llama import MLP, Attention, DecoderLayer, Llama
from lovecraft.models.rope import Rope


@torch.no_grad()
def for_inference(model: Llama) -> Llama:
    """Fuse projections that share an input and pack weights for the CPU, in place; return `model`.

    It computes the same through `hidden` and `logits`, but can no longer be trained, saved, moved or converted. A tied
    head that is packed takes memory of its own.
    """
    for layer in cast("list[DecoderLayer]", list(model.model.layers)):
        layer.self_attn = FusedAttention(layer.self_attn)
        layer.mlp = (PackedMLP if _packs(layer.mlp.up_proj.weight) else FusedMLP)(layer.mlp)
    if _packs(model.head):
        model.lm_head = FusedLinear([model.head], [])
    return model


class FusedLinear(nn.Linear):
    """Linear maps of one input as one, their outputs side by side.

    oneDNN rearranges a plain bfloat16 weight at every call; packed once, a CPU reads it half again as fast. With packed
    weights a row's result is the same to the bit whatever rows stand beside it: so a text does not depend on its
    neighbours. A lone float32 row would take another kernel, and gets a companion.
    """

    def __init__(self, weights: list[Tensor], biases: list[Tensor]) -> None:
        nn.Module.__init__(self)
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]  # (sum of outputs, inputs)
        self.out_features, self.in_features = weight.shape
        self.packed = _packs(weight)
        if self.packed:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
        self.weight = nn.Parameter(weight, requires_grad=False)
        bias = nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None
        self.register_parameter("bias", bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map input (..., inputs) to (..., sum of outputs)."""
        if self.packed:
            return self.then(input, "none")
        return F.linear(input, self.weight, self.bias)

    def then(self, input: Tensor, activation: str) -> Tensor:
        """Map as a packed one, with an activation on the outputs before they are rounded."""
        if self._lone(input):
            return self.then(torch.cat((input, input), dim=-2), activation).narrow(-2, 0, 1)
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, activation, [], "")

    def times(self, input: Tensor, factor: Tensor) -> Tensor:
        """Map as a packed one, with the outputs multiplied by `factor` before they are rounded."""
        if self._lone(input):
            twice = (torch.cat((x, x), dim=-2) for x in (input, factor))
            return self.times(*twice).narrow(-2, 0, 1)
        return torch.ops.mkldnn._linear_pointwise.binary(input, factor, self.weight, self.bias, "mul")

    def _lone(self, input: Tensor) -> bool:
        return input.dtype == torch.float32 and input.numel() == self.in_features


class FusedAttention(Attention):
    """Attention with queries, keys and values from one product."""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.head_dim = attention.head_dim
        self.queries = attention.q_proj.out_features // self.head_dim  # H
        self.keys = attention.k_proj.out_features // self.head_dim  # Hkv
        self.qkv_proj = _fuse(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o_proj = _fuse(attention.o_proj)
        del attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
        self.plain = attention  # what its family does between the projections

    def project(self, x: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries, rotated keys, and values of x (B, T, D), as the plain attention does."""
        qkv = self.qkv_proj(x).view(*x.shape[:2], -1, self.head_dim)  # (B, T, H + 2 Hkv, Dh)
        q, k, v = qkv.split((self.queries, self.keys, self.keys), dim=2)
        return *self.plain.turn(q, k, rope), v


class FusedMLP(MLP):
    """SwiGLU with both inner projections from one product."""

    def __init__(self, mlp: MLP) -> None:
        nn.Module.__init__(self)
        self.gate_up_proj = _fuse(mlp.gate_proj, mlp.up_proj)
        self.down_proj = _fuse(mlp.down_proj)

    def gate_and_up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both inner projections (B, T, inner) of x (B, T, D)."""
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return gate, up


class PackedMLP(MLP):
    """SwiGLU with activation and product inside of the projections: a CPU does not read the wide tensors once more."""

    def __init__(self, mlp: MLP) -> None:
        nn.Module.__init__(self)
        self.gate, self.up, self.down = _fuse(mlp.gate_proj), _fuse(mlp.up_proj), _fuse(mlp.down_proj)

    def forward(self, x: Tensor) -> Tensor:
        """Transform x (B, T, D)."""
        return self.down(self.up.times(x, self.gate.then(x, "swish")))


def _fuse(*parts: nn.Linear) -> FusedLinear:
    return FusedLinear([part.weight for part in parts], [part.bias for part in parts if part.bias is not None])


def _packs(weight: Tensor) -> bool:
    if not (weight.is_cpu and torch.backends.mkldnn.is_available()):
        return False
    bf16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bf16 or weight.dtype == torch.float32
