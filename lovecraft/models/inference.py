"""The same network laid out for generation, where every step reads all weights to make one token a row.

While the weights stream through the caches, every small operation is a cold one and costs several microseconds: so a
layer is one straight line of as few of them as will do, without modules inside.
"""

from collections.abc import Callable
from typing import cast

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lovecraft.models.kv_cache import Attend
from lovecraft.models.llama import Attention, DecoderLayer, Llama
from lovecraft.models.norm import RMSNorm
from lovecraft.models.rope import Rope, rotate

POINTWISE = torch.ops.mkldnn._linear_pointwise  # overloads chosen here once: at every call that takes its time
ACTIVATED, COMBINED = POINTWISE.default, POINTWISE.binary


@torch.no_grad()
def for_inference(model: Llama) -> Llama:
    """Fuse what shares an input and pack weights for the CPU, in place; return `model`.

    It computes the same through `hidden` and `logits`, but can no longer be trained, saved, moved or converted. A tied
    head that is packed takes memory of its own.
    """
    layers = [FusedLayer.of(layer) for layer in cast("list[DecoderLayer]", list(model.model.layers))]
    del model.model.layers
    vars(model.model)["layers"] = layers
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
        weight = torch.cat(weights) if len(weights) > 1 else weights[0].detach()  # (sum of outputs, inputs)
        self.out_features, self.in_features = weight.shape
        self.packed = _packs(weight)
        if self.packed:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
        # Tensors of the object, not parameters of the module: those are looked up by a slow path.
        vars(self)["weight"] = weight
        vars(self)["bias"] = torch.cat(biases) if biases else None

    def forward(self, input: Tensor) -> Tensor:
        """Map input (..., inputs) to (..., sum of outputs)."""
        return self._activated(input, "none") if self.packed else F.linear(input, self.weight, self.bias)

    def swish(self, input: Tensor) -> Tensor:
        """Map, with the activation on the outputs before they are rounded."""
        return self._activated(input, "swish") if self.packed else F.silu(F.linear(input, self.weight, self.bias))

    def times(self, input: Tensor, factor: Tensor) -> Tensor:
        """Map, with the outputs multiplied by `factor` before they are rounded."""
        return self._combined(input, factor, "mul") if self.packed else self(input) * factor

    def plus(self, input: Tensor, term: Tensor) -> Tensor:
        """Map, with `term` added to the outputs before they are rounded."""
        return self._combined(input, term, "add") if self.packed else self(input) + term

    def _activated(self, x: Tensor, activation: str) -> Tensor:
        if x.dtype == torch.float32 and x.shape[-2] == 1:
            return self._activated(_twice(x), activation).narrow(-2, 0, 1)
        return ACTIVATED(x, self.weight, self.bias, activation, [], "")

    def _combined(self, x: Tensor, other: Tensor, how: str) -> Tensor:
        if x.dtype == torch.float32 and x.shape[-2] == 1:
            return self._combined(_twice(x), _twice(other), how).narrow(-2, 0, 1)
        return COMBINED(x, other, self.weight, self.bias, how)


@attrs.frozen(eq=False)
class FusedNorm:
    """RMSNorm whose every row is made by the same operations, however many there are."""

    weight: Tensor
    wide: Tensor  # the weight in float32
    eps: Tensor  # (1, 1)

    @classmethod
    def of(cls, norm: RMSNorm) -> "FusedNorm":
        """Return a norm as such a one."""
        weight = norm.weight.detach()
        return cls(weight, weight.float(), torch.full((1, 1), norm.eps, device=weight.device))

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise x (..., D)."""
        if x.is_cuda:
            return F.rms_norm(x, self.weight.shape, self.weight, float(self.eps))
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = torch.addcmul(self.eps, norm, norm, value=1 / x.shape[-1]).rsqrt_()
        return (wide * scale).mul_(self.wide).to(x.dtype)


@attrs.frozen(eq=False)
class FusedLayer:
    """One block: queries, keys and values from one product, sums and products inside of the projections."""

    before: FusedNorm
    qkv: FusedLinear
    heads: tuple[int, int, int]  # of queries, keys and values
    turn: Callable[[Tensor, Tensor, Rope], tuple[Tensor, Tensor]] | None  # what a family does besides rotating
    out: FusedLinear
    between: FusedNorm
    gate: FusedLinear
    up: FusedLinear
    down: FusedLinear

    @classmethod
    def of(cls, layer: DecoderLayer) -> "FusedLayer":
        """Return a layer as such a one; its weights are taken."""
        attention, mlp = layer.self_attn, layer.mlp
        keys = attention.k_proj.out_features // attention.head_dim
        qkv = _fuse(attention.q_proj, attention.k_proj, attention.v_proj)
        plain = type(attention).turn is Attention.turn
        return cls(
            FusedNorm.of(layer.input_layernorm),
            qkv,
            (attention.q_proj.out_features // attention.head_dim, keys, keys),
            None if plain else attention.turn,
            _fuse(attention.o_proj),
            FusedNorm.of(layer.post_attention_layernorm),
            _fuse(mlp.gate_proj),
            _fuse(mlp.up_proj),
            _fuse(mlp.down_proj),
        )

    def __call__(self, h: Tensor, rope: Rope, attend: Attend) -> Tensor:
        """Transform h (B, T, D)."""
        queries, keys, _ = self.heads
        qkv = self.qkv.forward(self.before(h)).view(*h.shape[:2], sum(self.heads), -1)  # (B, T, H + 2 Hkv, Dh)
        if self.turn:
            q, k, v = qkv.split(self.heads, dim=2)
            q, k = self.turn(q, k, rope)
        else:  # both are turned as one
            turned = rotate(qkv.narrow(2, 0, queries + keys), *rope)
            q, k, v = turned.narrow(2, 0, queries), turned.narrow(2, queries, keys), qkv.narrow(2, queries + keys, keys)
        mixed = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)  # (B, T, H, Dh)
        h = self.out.plus(mixed.flatten(2), h)
        x = self.between(h)
        return self.down.plus(self.up.times(x, self.gate.swish(x)), h)


def _fuse(*parts: nn.Linear) -> FusedLinear:
    fused = FusedLinear([part.weight for part in parts], [part.bias for part in parts if part.bias is not None])
    for part in parts:
        del part.weight  # else there are two
    return fused


def _twice(x: Tensor) -> Tensor:
    return torch.cat((x, x), dim=-2)


def _packs(weight: Tensor) -> bool:
    if not (weight.is_cpu and torch.backends.mkldnn.is_available()):
        return False
    bf16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bf16 or weight.dtype == torch.float32
