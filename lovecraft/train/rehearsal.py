"""The largest batch once before the first step, so that memory that will not do is known in seconds.

On a GPU only: a CPU lends memory that it does not have, so a rehearsal there would prove nothing.
"""

from lovecraft.train.batches import collate, largest
from lovecraft.train.loss import linear_cross_entropy
from lovecraft.train.setup import Training


def rehearse(t: Training) -> None:
    """Run forward and backward on the largest batch where that is a GPU's; nothing of the training changes.

    With accumulation twice, since the second backward adds to what the first left. Raises what running out of memory
    raises.
    """
    if t.device.type == "cuda":
        _run(t)


def _run(t: Training) -> None:
    batch = collate(t.blocks, largest(t.config, t.blocks), t.device)
    for _ in range(min(2, t.config.accumulation)):
        hidden = t.model.hidden(batch.input_ids, run_block=t.run_block, lengths=batch.lengths).flatten(0, 1)
        linear_cross_entropy(hidden, t.model.head, batch.targets.flatten(), t.config.memory.loss_chunk).backward()
    t.updates.forget()
