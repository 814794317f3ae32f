"""The learning rate as a pure function of the optimizer step: no state, so nothing to save and nothing to drift."""

import math

from lovecraft.config.schema import WSD, Constant, Cosine, Linear, ScheduleConfig


def multiplier(schedule: ScheduleConfig, step: int, total: int) -> float:
    """Return the factor on the peak rate for the optimizer step `step` (the first is 0) of `total`.

    The warm-up of w steps is (step + 1) / w, so that the first step already learns. What follows sees its progress
    t = (step - w) / (total - w): Linear 1 - t, Cosine (1 + cos pi t) / 2, both between 1 and `min_lr`. WSD stays at 1
    and falls in a line over its last `decay` steps.
    """
    warmup = in_steps(schedule.warmup, total)
    if step < warmup:
        return (step + 1) / warmup
    if isinstance(schedule, WSD):
        decay = in_steps(schedule.decay, total)
        return _between(schedule.min_lr, min(1.0, (total - step) / max(1, decay)))
    progress = (step - warmup) / max(1, total - warmup)
    if isinstance(schedule, Linear):
        return _between(schedule.min_lr, 1 - progress)
    if isinstance(schedule, Cosine):
        return _between(schedule.min_lr, (1 + math.cos(math.pi * progress)) / 2)
    assert isinstance(schedule, Constant), type(schedule)
    return 1.0


def in_steps(length: int | float, total: int) -> int:
    """Return a length in steps: a fraction of `total` if below 1, else itself, rounded."""
    return round(length * total if length < 1 else length)


def _between(low: float, height: float) -> float:
    return low + (1 - low) * height
