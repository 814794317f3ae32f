"""Root mean square normalisation (Zhang and Sennrich, 2019), with float32 arithmetic inside whatever the type."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 1 << 18  # numbers at a time: their float32 copy stays in a core's cache through five passes


class RMSNorm(nn.Module):
    """x / sqrt(mean(x ** 2) + eps) * weight, over the last dimension."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (..., width)."""
        if x.is_cuda:  # one fused kernel; elsewhere PyTorch composes it and keeps float32 copies for backward
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        if torch.is_grad_enabled():
            return _RMSNorm.apply(x, self.weight, self.eps)
        return _normalise(x, self.weight, self.eps)[0]  # the same arithmetic without the function's overhead


class _RMSNorm(torch.autograd.Function):
    """Keeps x and one number a row for backward, where autograd would keep three tensors of x's size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, scale = _normalise(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        # y = n w with n = x s:  dw = sum(n dy),  dx = s (w dy - n mean(n w dy))
        x, weight, scale = ctx.saved_tensors
        width = x.shape[-1]
        normed = _precise_copy(x).mul_(scale).view(-1, width)  # (rows, width)
        grad = _precise_copy(grads[0]).view(-1, width)
        product = normed * grad
        mean = torch.mv(product, weight.to(product.dtype)).div_(width)[:, None]  # (rows, 1)
        grad_x = grad.mul_(weight).addcmul_(normed, mean, value=-1).mul_(scale.view(-1, 1))
        return grad_x.to(x.dtype).view(x.shape), product.sum(0).to(weight.dtype), None


def _normalise(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the normalised x and the factor of each row (..., 1)."""
    if x.numel() <= CHUNK:
        return _normalise_chunk(x, weight, eps)
    chunks = x.flatten(0, -2).split(max(CHUNK // x.shape[-1], 1))  # (rows, width)
    y, scale = zip(*(_normalise_chunk(chunk, weight, eps) for chunk in chunks), strict=True)
    return torch.cat(y).view(x.shape), torch.cat(scale).view(*x.shape[:-1], 1)


def _normalise_chunk(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    copy = _precise_copy(x)
    scale = torch.linalg.vector_norm(copy, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return copy.mul_(scale).mul_(weight).to(x.dtype), scale


def _precise_copy(x: Tensor) -> Tensor:
    """Copy x in float32 at least, to be worked on in place: fresh memory costs a CPU more than the arithmetic."""
    copy = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    return copy.copy_(x)
