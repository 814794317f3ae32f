"""Causal attention, full or through a sliding window, as calls of PyTorch's fused kernels.

Which queries see which keys is laid down once a forward pass as a list of spans and shared by all layers. Most passes
are one span without a mask; only a window that has been outgrown, or a chunk behind a filled cache, needs more. Of
documents that share a row each has a list of its own, so no mask ever spans the row.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

CHUNK = 1024  # queries under one mask: the mask takes CHUNK * (CHUNK + window) numbers, whatever the context


@frozen(eq=False)
class Span:
    """Queries that attend to one run of keys: to all of them, causally, or as the mask says."""

    queries: slice
    keys: slice
    causal: bool = False
    mask: Tensor | None = None  # (queries, keys), 0 or -inf


def causal_spans(tokens: int, past: int, window: int | None, like: Tensor) -> list[Span]:
    """Return the spans of `tokens` new queries behind `past` cached tokens; masks have `like`'s type and device.

    The query at position p sees the keys at positions (p - window, p], or [0, p] without a window.
    """
    total = past + tokens
    window = window or total
    if tokens == 1:
        return [Span(slice(0, 1), slice(max(0, total - window), total))]
    spans = []
    first = 0
    if past == 0:
        first = min(tokens, window)
        spans.append(Span(slice(0, first), slice(0, first), causal=True))
    mask = None
    for start in range(first, tokens, CHUNK):
        stop = min(start + CHUNK, tokens)
        keys = slice(max(0, past + start - window), past + stop)
        shape = (stop - start, keys.stop - keys.start)
        if mask is None or mask.shape != shape:
            mask = _mask(shape, window, like)
        spans.append(Span(slice(start, stop), keys, mask=mask))
    return spans


def document_spans(lengths: Sequence[int], past: int, window: int | None, like: Tensor) -> list[list[Span]]:
    """Return the spans of each document of a row, numbered within it; those of one length share theirs."""
    by_length = {tokens: causal_spans(tokens, past, window, like) for tokens in set(lengths)}
    return [by_length[tokens] for tokens in lengths]


def attend(q: Tensor, k: Tensor, v: Tensor, documents: list[list[Span]]) -> Tensor:
    """Attend from q (B, H, T, Dh) to k, v (B, Hkv, S, Dh), each group of H / Hkv query heads sharing one; as q.

    Of several documents, which stand one behind the other, each attends to itself alone; then T is S.
    """
    if len(documents) == 1:
        return _attend_document(q, k, v, documents[0])
    lengths = [spans[-1].queries.stop for spans in documents]
    # Split, not sliced: backward joins the parts' gradients once, where each slice would fill a whole row with zeros.
    rows = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), documents, strict=True)
    return _join([_attend_document(*row) for row in rows])


def _attend_document(q: Tensor, k: Tensor, v: Tensor, spans: list[Span]) -> Tensor:
    return _join([_attend_span(q[:, :, span.queries], k[:, :, span.keys], v[:, :, span.keys], span) for span in spans])


def _join(parts: list[Tensor]) -> Tensor:
    """Join parts (B, H, ., Dh) by tokens, in the kernels' own layout: heads of a token side by side."""
    return parts[0] if len(parts) == 1 else torch.cat([x.transpose(1, 2) for x in parts], dim=1).transpose(1, 2)


def _attend_span(q: Tensor, k: Tensor, v: Tensor, span: Span) -> Tensor:
    return attend_whole(q, k, v, span.mask, span.causal)


def attend_whole(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Attend from all of q to all of k and v, or as the mask says."""
    grouped = q.shape[1] != k.shape[1]
    if grouped and q.is_cuda and (mask is not None or q.dtype == torch.float32):
        # CUDA's only fused kernel for these cases wants as many key heads as query heads.
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        grouped = False
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


def _mask(shape: tuple[int, int], window: int, like: Tensor) -> Tensor:
    """Mask queries against a run of keys that ends at the last query's own."""
    queries, keys = shape
    ages = torch.arange(keys - queries, keys, device=like.device)[:, None] - torch.arange(keys, device=like.device)
    visible = (ages >= 0) & (ages < window)
    return torch.zeros(shape, dtype=like.dtype, device=like.device).masked_fill_(~visible, float("-inf"))
