"""Drawing the next token of every row of a batch: one vectorised function.

The noise of a draw is a hash of the request's seed and the number of the token, and the kept tokens are searched by
cumulative probability. So a row's draw depends on its own logits, rules and seed, never on its neighbours, and
nothing has to be remembered between steps but how often a continuation has each token.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from lovecraft.engine.request import SamplingParams, Scored

COLDEST = 1e-6
"""Temperatures below divide by this, so that nothing overflows."""

INVALID = -1
"""Drawn for a row whose logits hold NaN or infinity."""

HEAD = 1024
"""Tokens that are ranked at first; a whole vocabulary is sorted only where these do not settle the draw."""

FLOOR = -9999.0
"""The log-probability of what is impossible: JSON has no infinity."""


@attrs.frozen
class Draw:
    """What one row's draw depends on besides its logits."""

    params: SamplingParams
    step: int
    """The number of the token in its continuation."""

    seen: Mapping[int, int] = attrs.field(factory=dict)
    """The tokens of the prompt and of the continuation, and how often the continuation has them; for the penalties."""

    banned: Collection[int] = ()
    """Tokens that may not be drawn."""


@torch.inference_mode()
def sample(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Draw one token a row from float32 `logits` (B, V), which are changed.

    Temperature 0 is exactly argmax, the first one of equals. A row with NaN or +inf gives INVALID, the others go on.
    """
    _edit(logits, draws)
    best, ids = logits.max(dim=-1)  # (B,), NaN where a row has one
    warm = [row for row, draw in enumerate(draws) if draw.params.temperature > 0]
    if warm:
        chosen = logits if len(warm) == len(draws) else logits[warm]  # (R, V)
        noise = [uniform(draws[row].params.seed, draws[row].step) for row in warm]
        ids[warm] = _draw(chosen, [draws[row].params for row in warm], noise)
    return ids.where(best.isfinite(), INVALID).tolist()


@torch.inference_mode()
def score(logits: Tensor, tokens: Sequence[int], top: int) -> list[Scored]:
    """Return the log-probabilities of a token a row, and of the `top` most probable ones, in `logits` (B, V)."""
    logs = logits.log_softmax(-1).clamp(min=FLOOR)
    chosen = logs.gather(-1, torch.tensor(tokens, device=logs.device)[:, None])  # (B, 1)
    best, ids = logs.topk(min(top, logs.shape[-1]))  # (B, top)
    rows = zip(tokens, chosen[:, 0].tolist(), ids.tolist(), best.tolist(), strict=True)
    return [Scored(token, log, tuple(zip(which, these, strict=True))) for token, log, which, these in rows]


def uniform(seed: int, step: int) -> float:
    """Return a number in [0, 1), a multiple of 2**-24, that is a function of `seed` and `step` alone."""
    digest = hashlib.blake2b(f"{seed}:{step}".encode(), digest_size=3).digest()
    return int.from_bytes(digest, "big") / (1 << 24)


def _edit(logits: Tensor, draws: Sequence[Draw]) -> None:
    """Apply biases, then penalties, then bans to `logits` (B, V), in place: few numbers of few rows."""

    def columns(entries: Sequence[tuple[float, ...]]) -> Iterator[Tensor]:
        return (torch.tensor(column, device=logits.device) for column in zip(*entries, strict=True))

    biased = [(row, token, bias) for row, draw in enumerate(draws) for token, bias in draw.params.logit_bias.items()]
    if biased:
        rows, tokens, bias = columns(biased)
        logits.index_put_((rows, tokens), bias.float(), accumulate=True)
    seen = [
        (row, token, rules.repetition_penalty, rules.presence_penalty * (count > 0) + rules.frequency_penalty * count)
        for row, rules in enumerate(draw.params for draw in draws)
        if penalises(rules)
        for token, count in draws[row].seen.items()
    ]
    if seen:
        rows, tokens, divided, taken = columns(seen)
        value = logits[rows, tokens]
        logits[rows, tokens] = torch.where(value > 0, value / divided, value * divided) - taken
    banned = [(row, token) for row, draw in enumerate(draws) for token in draw.banned]
    if banned:
        logits[tuple(columns(banned))] = float("-inf")


def penalises(params: SamplingParams) -> bool:
    """Whether draws depend on the tokens seen so far."""
    return params.repetition_penalty != 1 or bool(params.presence_penalty or params.frequency_penalty)


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
