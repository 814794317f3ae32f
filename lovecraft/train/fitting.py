"""The smallest changes of a config that make its training fit, each of them planned before it is named."""

import math
from collections.abc import Callable
from typing import Any

from lovecraft.config.names import flag_of
from lovecraft.config.override import override
from lovecraft.config.resolve import resolve
from lovecraft.config.schema import Adafactor, TrainConfig
from lovecraft.errors import ConfigError
from lovecraft.train.memory import Bytes

Changes = dict[str, Any]
FREED = ("checkpointing", "offload", "optimizer_in_backward", "optimizer_device")
SMALLEST_CHUNK = 128
SHORTEST_BLOCK = 128


def smallest_changes(cls: type[TrainConfig], plan: Callable[[TrainConfig], Bytes]) -> list[Changes]:
    """Return for each option that is enough by itself the smallest change of it that fits, from the least harm.

    Where none is enough alone, one set of changes of several, none of which can be left out; empty if that will not
    do either. `plan` gives the byte table of a config; what is derived in `cls` follows the changes.
    """

    def need(changes: Changes) -> float:
        try:
            return plan(resolve(override(cls, changes))).excess
        except ConfigError:  # these exclude each other
            return math.inf

    ladders = [ladder for ladder in _ladders(resolve(cls)) if ladder]
    alone = [next((step for step in ladder if need(step) <= 1), None) for ladder in ladders]
    return [step for step in alone if step is not None] or _together(ladders, need)


def flags(changes: Changes) -> str:
    """Return changes as the flags to type."""
    words = {path: "none" if value is None else getattr(value, "__name__", value) for path, value in changes.items()}
    return " ".join(f"{flag_of(path)} {word}" for path, word in words.items())


def _ladders(config: TrainConfig) -> list[list[Changes]]:
    """Return for each option its changes, the smallest first; options in the order of the harm that they do.

    First what changes no result, or hardly a bit of it; then what trains in another way.
    """
    memory, chunk, size, passes = config.memory, config.memory.loss_chunk, config.batch_size, config.accumulation
    fixed = [name for name in FREED if getattr(memory, name) != "auto"]
    chunks = [n for n in (4096, 1024, 512, 256, SMALLEST_CHUNK) if n < (chunk or 1 << 30)]
    sizes = [n for n in range(size * passes, 0, -1) if size * passes % n == 0 and (n < size or n == size * passes)]
    blocks = [config.dataset.block_size >> n for n in range(1, 8)]
    return [
        [{f"memory.{name}": "auto" for name in fixed[: n + 1]} for n in range(len(fixed))],
        [{"memory.loss_chunk": n} for n in chunks],
        [{"batch_size": n, "accumulation": size * passes // n} for n in sizes if n != size],
        [{"max_grad_norm": None}] if config.max_grad_norm is not None else [],
        [] if isinstance(config.optimizer, Adafactor) else [{"optimizer": Adafactor}],
        [] if config.model.dtype == "bfloat16" else [{"model.dtype": "bfloat16"}],
        [{"dataset.block_size": n} for n in blocks if n >= SHORTEST_BLOCK],
    ]


def _together(ladders: list[list[Changes]], need: Callable[[Changes], float]) -> list[Changes]:
    """Return one set of changes that fits, each as small as the others allow; none if there is no such set."""

    def together(steps: list[Changes]) -> float:
        return need(_merged(steps))

    chosen: list[Changes] = []
    for ladder in ladders:
        chosen.append(min([{}, *ladder], key=lambda step: together([*chosen, step])))
        if together(chosen) <= 1:
            break
    else:
        return []
    for place, ladder in enumerate(ladders[: len(chosen)]):
        before, after = chosen[:place], chosen[place + 1 :]
        chosen[place] = next(step for step in [{}, *ladder] if together([*before, step, *after]) <= 1)
    return [_merged(chosen)]


def _merged(steps: list[Changes]) -> Changes:
    return {path: value for step in steps for path, value in step.items()}
