"""What a training will take, before anything is loaded: memory, steps, tokens, arithmetic, time."""

import functools
import time
from typing import Any

import attrs
import numpy as np
import torch

from lovecraft.config.schema import TrainConfig
from lovecraft.data.blocks import LENGTH, Blocks
from lovecraft.models import Architecture
from lovecraft.models.architecture import parameter_count
from lovecraft.train.batches import total, total_steps
from lovecraft.train.memory import Bytes, Limits, choose

# Share of a large matrix product's rate that a whole step reaches, by device and bytes of a number.
EFFICIENCY = {("cpu", 4): 0.55, ("cpu", 2): 0.2, ("cuda", 2): 0.5}
OTHER_EFFICIENCY = 0.4


@attrs.frozen
class Plan:
    """The expected costs of a training."""

    parameters: int
    bytes: Bytes
    steps: int
    tokens: int
    flops: float
    """Of the model: what is computed again in backward does not count."""
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the documented JSON shape."""
        names = ("weights", "gradients", "optimizer", "activations", "logits", "workspace")
        return {
            "parameters": self.parameters,
            "bytes": {name: getattr(self.bytes, name) for name in names},
            "peak": self.bytes.peak,
            "limit": self.bytes.limits.device,
            "fits": self.bytes.fits,
            "steps": self.steps,
            "tokens": self.tokens,
            "flops": self.flops,
            "seconds": self.seconds,
        }


def plan(
    config: TrainConfig,
    arch: Architecture,
    blocks: Blocks,
    *,
    dtype: torch.dtype,
    device: torch.device,
    rate: float,
    limits: Limits | None = None,
) -> Plan:
    """Return the plan of a training where a large matrix product runs at `rate` FLOP/s.

    Without `limits` the memory is this machine's. Raises ConfigError for memory options that exclude each other.
    """
    chosen = choose(config, arch, dtype, device, limits)
    flops = total(config, np.add.reduceat(piece_flops(arch, blocks.table[:, LENGTH]), blocks.starts[:-1]))
    computed = flops * (4 / 3 if chosen.checkpointing == "block" else 1)
    return Plan(
        parameters=parameter_count(arch),
        bytes=chosen,
        steps=total_steps(config, len(blocks)),
        tokens=int(total(config, blocks.lengths)),
        flops=flops,
        seconds=computed / (rate * EFFICIENCY.get((device.type, dtype.itemsize), OTHER_EFFICIENCY)),
    )


def piece_flops(arch: Architecture, lengths: np.ndarray) -> np.ndarray:
    """Return the model FLOPs of training on pieces of `lengths` tokens each: three times the forward pass's.

    A matrix of n numbers takes 2n a token; attention takes 4 * H * Dh for each key, of which a token sees half a piece,
    or half of a window until that is full, on average.
    """
    matrices = parameter_count(arch) - (0 if arch.tie_word_embeddings else arch.vocab_size * arch.hidden_size)
    window = lengths if arch.sliding_window is None else np.minimum(arch.sliding_window, lengths)
    keys = window * (lengths - window / 2)  # that all tokens of a piece see
    attention = 4 * arch.num_hidden_layers * arch.num_attention_heads * arch.head_dim * keys
    return 3.0 * (2 * matrices * lengths + attention)


def ideal_seconds(arch: Architecture, blocks: Blocks, rate: float) -> float:
    """Return the seconds that a token takes, on average over `blocks`, if all its model FLOPs run at `rate`.

    Times the tokens a second it is the model-FLOPs utilisation: attention is causal, and what backward computes again
    does not count.
    """
    return float(piece_flops(arch, blocks.table[:, LENGTH]).sum() / blocks.lengths.sum() / rate)


@functools.cache
def measured_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.1) -> float:
    """Return the FLOP/s of a square matrix product on `device`, measured once, for about `seconds`.

    It has 1024 rows, on a GPU 4096: a smaller one would measure how fast it can be told what to do.
    """
    size = 4096 if device.type == "cuda" else 1024
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    matrix @ matrix
    wait()
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        matrix @ matrix
        wait()
        count += 1
    return count * 2 * size**3 / spent
