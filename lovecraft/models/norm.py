"""Root mean square normalisation (Zhang and Sennrich, 2019), with float32 arithmetic inside whatever the type."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


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
        return _RMSNorm.apply(x, self.weight, self.eps)


class _RMSNorm(torch.autograd.Function):
    """Keeps x and one number a row for backward, where autograd would keep three tensors of x's size."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x32 = x.float()
        scale = torch.linalg.vector_norm(x32, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x32 * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        # y = n w with n = x s:  dw = sum(n dy),  dx = s (w dy - n mean(n w dy))
        x, weight, scale = ctx.saved_tensors
        normed = (x.float() * scale).view(-1, x.shape[-1])  # (rows, width)
        grad32 = grad.float().view(normed.shape)
        product = normed * grad32
        mean = torch.mv(product, weight.float()).div_(x.shape[-1])[:, None]  # (rows, 1)
        grad_x = (grad32 * weight).addcmul_(normed, mean, value=-1).mul_(scale.view(-1, 1))
        return grad_x.to(x.dtype).view(x.shape), product.sum(0).to(weight.dtype), None
