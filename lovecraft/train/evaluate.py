"""The loss on held-out text: the sum of all token losses over their number, whatever the batches."""

import math
from collections.abc import Callable

import attrs
import numpy as np
import torch
from torch import Tensor

from lovecraft.data.blocks import CONTEXT, DOCUMENT, IGNORED, INDEX, Blocks
from lovecraft.errors import ModelError
from lovecraft.models.llama import Llama
from lovecraft.train.batches import collate
from lovecraft.train.loss import linear_cross_entropy


@attrs.frozen
class Evaluation:
    """What a model makes of a split."""

    loss: float
    """Nats a token; every token of a document but its first counts once."""

    bits_per_byte: float | None
    """Of the text alone, without EOS; None where only some blocks were measured."""

    tokens: int
    documents: int

    @property
    def perplexity(self) -> float:
        """exp(loss), capped where a float ends."""
        return math.exp(min(self.loss, 700.0))


@torch.no_grad()
def evaluate(
    model: Llama,
    blocks: Blocks,
    *,
    eos_id: int | None,
    batch_size: int,
    loss_chunk: int,
    max_blocks: int | None = None,
    heed: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Measure `model` on the first `max_blocks` blocks of a split, or on all of them.

    Raises ModelError when its logits are not finite, and what `heed` raises, which is called before each batch.
    """
    device = model.head.device
    table = np.array(blocks.table)  # a train split may supervise its overlap again (train_on_overlap)
    table[:, CONTEXT] = np.where(table[:, INDEX] == 0, 1, blocks.shared)
    blocks = attrs.evolve(blocks, table=table)
    measured = np.arange(min(len(blocks), max_blocks or len(blocks)))
    by_length = measured[np.argsort(blocks.lengths[measured], kind="stable")]  # less filling up
    text, ends, tokens = 0.0, 0.0, 0
    for start in range(0, len(by_length), batch_size):
        heed()
        batch = collate(blocks, by_length[start : start + batch_size], device)
        hidden = model.hidden(batch.input_ids, lengths=batch.lengths).flatten(0, 1)  # (B * T, D)
        targets = batch.targets.flatten()  # (B * T,)
        is_end = targets == (IGNORED if eos_id is None else eos_id)
        text += _summed_loss(model, hidden, targets.masked_fill(is_end, IGNORED), loss_chunk)
        ends += _summed_loss(model, hidden, targets.masked_fill(~is_end, IGNORED), loss_chunk)
        tokens += batch.supervised
    documents = np.unique(blocks.table[: blocks.starts[len(measured)], DOCUMENT])
    size = sum(blocks.documents[d].bytes - blocks.documents[d].first_token_bytes for d in documents)
    whole = len(measured) == len(blocks) and size > 0
    if not math.isfinite(text + ends):
        raise ModelError("the model's logits are not finite", hint="its weights are damaged, or its dtype overflows")
    return Evaluation(
        loss=(text + ends) / max(1, tokens),
        bits_per_byte=text / math.log(2) / size if whole else None,
        tokens=tokens,
        documents=len(documents),
    )


def _summed_loss(model: Llama, hidden: Tensor, targets: Tensor, loss_chunk: int) -> float:
    return float(linear_cross_entropy(hidden, model.head, targets, loss_chunk))
