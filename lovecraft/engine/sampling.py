"""Drawing the next token of every row of a batch: one vectorised function.

The noise of a draw is a hash of the request's seed and the number of the token, and the kept tokens are searched by
cumulative probability. So a row's draw depends on its own logits, rules and seed, never on its neighbours, and
nothing has to be remembered between steps.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from lovecraft.engine.request import SamplingParams

COLDEST = 1e-6
"""Temperatures below divide by this, so that nothing overflows."""

INVALID = -1
"""Drawn for a row whose logits hold NaN or infinity."""

HEAD = 1024
"""Tokens that are ranked at first; a whole vocabulary is sorted only where these do not settle the draw."""


@torch.inference_mode()
def sample(logits: Tensor, params: Sequence[SamplingParams], steps: Sequence[int]) -> list[int]:
    """Draw one token a row from float32 `logits` (B, V); `steps` numbers the tokens of each request.

    Temperature 0 is exactly argmax, the first one of equals. A row with NaN or +inf gives INVALID, the others go on.
    """
    best, ids = logits.max(dim=-1)  # (B,), NaN where a row has one
    warm = [row for row, rule in enumerate(params) if rule.temperature > 0]
    if warm:
        chosen = logits if len(warm) == len(params) else logits[warm]  # (R, V)
        noise = [uniform(params[row].seed, steps[row]) for row in warm]
        ids[warm] = _draw(chosen, [params[row] for row in warm], noise)
    return ids.where(best.isfinite(), INVALID).tolist()


def uniform(seed: int, step: int) -> float:
    """Return a number in [0, 1), a multiple of 2**-24, that is a function of `seed` and `step` alone."""
    digest = hashlib.blake2b(f"{seed}:{step}".encode(), digest_size=3).digest()
    return int.from_bytes(digest, "big") / (1 << 24)


def _draw(logits: Tensor, rules: Sequence[SamplingParams], noise: Sequence[float]) -> Tensor:
    """Draw one id a row of `logits` (R, V), all of temperature above 0; (R,)."""
    vocabulary = logits.size(-1)
    columns = [
        (max(rule.temperature, COLDEST), rule.top_p, min(rule.top_k or vocabulary, vocabulary), rule.min_p, u)
        for rule, u in zip(rules, noise, strict=True)
    ]
    table = torch.tensor(columns, dtype=torch.float32, device=logits.device)  # (R, 5)
    probs = (logits / table[:, :1]).softmax(-1)
    ids, settled = _search(*probs.topk(min(HEAD, vocabulary)), table, vocabulary)
    if not settled.all():
        rest = ~settled
        ids[rest] = _search(*probs[rest].sort(dim=-1, descending=True), table[rest], vocabulary)[0]
    return ids


def _search(probs: Tensor, ids: Tensor, table: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Draw from the N most probable tokens, `probs` and `ids` (R, N) in falling order.

    Returns the ids (R,) and whether N tokens were enough to settle them (R,). Each rule keeps a prefix of the falling
    order, so together they keep the shortest of these.
    """
    _, top_p, top_k, min_p, noise = table[:, :, None].unbind(1)  # each (R, 1)
    ranks, limit = probs.size(-1), top_k.long()
    mass = probs.cumsum(-1)
    within_k = mass.gather(-1, limit.clamp(max=ranks) - 1).where(limit < vocabulary, 1.0)
    keep = (mass - probs < top_p * within_k) & (probs >= min_p * probs[:, :1])
    kept = keep.sum(-1, keepdim=True).minimum(limit).clamp(min=1)
    complete = (kept < ranks) & ((limit <= ranks) | (limit == vocabulary))
    # A row that keeps every token has mass 1, and is settled if its draw falls among these N.
    target = noise * mass.gather(-1, kept - 1).where(complete, 1.0)
    rank = torch.searchsorted(mass, target, right=True).minimum(kept - 1)
    keeps_all = (top_p >= 1) & (min_p <= 0) & (limit == vocabulary)
    settled = complete | keeps_all & (target < mass[:, -1:])
    return ids.gather(-1, rank).squeeze(-1), settled.squeeze(-1)
