"""The head and the cross-entropy as one function that never holds the logits of all rows.

One autograd function, so that the head's gradient arrives once whatever the number of chunks.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lovecraft.data.blocks import IGNORED
from lovecraft.models.architecture import Architecture

CPU_TILE = 32  # rows whose float32 logits stay in a CPU's cache
SCALED_ROWS = 4096  # rows of a gradient that are in float32 at once


def linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int = 0) -> Tensor:
    """Return the summed cross-entropy of `hidden @ weight.T` against `labels`: a scalar, float32 at least.

    hidden (N, D), weight (V, D), labels (N,) int64. Rows labelled -100 are dropped before any arithmetic. `chunk` rows
    of logits are held at once, 0 holds all. The gradients are made on the way, if anybody wants them.
    """
    differentiate = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return _LinearCrossEntropy.apply(hidden, weight, labels, chunk, differentiate)


def logit_bytes(arch: Architecture, tokens: int, chunk: int, itemsize: int, device: str) -> int:
    """Return the most bytes that the loss of `tokens` rows and its gradients take on a device of this type.

    One chunk of logits and its float32 tile with the tile's log-softmax; the gradients by the rows and by the head,
    the latter in float32 where several chunks add up.
    """
    rows = min(chunk or tokens, tokens)
    tile = min(CPU_TILE, rows) if device == "cpu" else rows
    head = arch.vocab_size * arch.hidden_size * (4 if tokens > rows else itemsize)
    return rows * arch.vocab_size * itemsize + tile * arch.vocab_size * 8 + tokens * arch.hidden_size * itemsize + head


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int, differentiate: bool) -> Tensor:
        valid = (labels != IGNORED).nonzero().squeeze(1)  # (M,)
        every_row = len(valid) == len(labels)
        rows, targets = (hidden, labels) if every_row else (hidden[valid], labels[valid])
        loss, d_rows, d_weight = _in_chunks(rows, weight, targets, chunk or max(1, len(targets)), differentiate)
        if differentiate:
            d_hidden = d_rows if every_row else torch.zeros_like(hidden).index_copy_(0, valid, d_rows)
            ctx.save_for_backward(d_hidden, d_weight)
            ctx.weight_dtype = weight.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # pyrefly: ignore[bad-override]
        d_hidden, d_weight = ctx.saved_tensors
        return _scaled(d_hidden, d_loss, d_hidden.dtype), _scaled(d_weight, d_loss, ctx.weight_dtype), None, None, None


def _in_chunks(
    rows: Tensor, weight: Tensor, targets: Tensor, chunk: int, differentiate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss and, where asked, its gradients by rows (M, D) and by weight (V, D), else empty tensors."""
    precise = torch.promote_types(rows.dtype, torch.float32)
    loss = torch.zeros((), dtype=precise, device=rows.device)
    d_rows = torch.empty_like(rows if differentiate else rows[:0])
    # Several chunks add up in float32; one chunk's product is already summed so inside the matrix product.
    several = len(targets) > chunk
    d_weight = torch.zeros_like(weight if differentiate else weight[:0], dtype=precise if several else weight.dtype)
    buffer = rows.new_empty(min(chunk, len(targets)), len(weight))
    for start in range(0, len(targets), chunk):
        some = slice(start, start + chunk)
        logits = torch.mm(rows[some], weight.T, out=buffer[: len(rows[some])])  # (chunk, V)
        loss += _cross_entropy(logits, targets[some], precise, differentiate)
        if differentiate:  # the logits are their own gradient now
            torch.mm(logits, weight, out=d_rows[some])
            d_weight = _accumulate(d_weight, logits, rows[some])
    return loss, d_rows, d_weight


def _cross_entropy(logits: Tensor, targets: Tensor, precise: torch.dtype, differentiate: bool) -> Tensor:
    """Return the summed loss of (rows, V) logits, where asked overwritten with their gradient, softmax - one_hot."""
    loss = torch.zeros((), dtype=precise, device=logits.device)
    tile = CPU_TILE if logits.is_cpu else len(logits)
    for part, target in zip(logits.split(tile), targets.split(tile), strict=True):
        log_p = torch.log_softmax(part.to(precise), dim=-1)
        loss -= log_p.gather(1, target[:, None]).sum()
        if differentiate:
            p = log_p.exp_()
            p.scatter_add_(1, target[:, None], p.new_full((len(target), 1), -1.0))
            part.copy_(p)
    return loss


def _scaled(gradient: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `gradient * factor` in `dtype`, multiplied in the factor's precision and some rows at a time."""
    scaled = torch.empty_like(gradient, dtype=dtype)
    for part, into in zip(gradient.split(SCALED_ROWS), scaled.split(SCALED_ROWS), strict=True):
        into.copy_(part.to(factor.dtype) * factor)
    return scaled


def _accumulate(total: Tensor, d_logits: Tensor, rows: Tensor) -> Tensor:
    if total.dtype == rows.dtype:
        return total.addmm_(d_logits.T, rows)
    return total.add_(d_logits.T @ rows)
