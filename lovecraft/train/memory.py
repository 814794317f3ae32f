"""The byte table of a training, before anything is loaded, and the memory options that `auto` stands for.

Formulas are the modules' own where they have one; the tests count all of them against real tensors.
"""

import functools
import os
import resource
import sys
from pathlib import Path

import attrs
import torch
from torch import Tensor

from lovecraft.config.resolve import resolve
from lovecraft.config.schema import Memory, OptimizerConfig, TrainConfig
from lovecraft.errors import ConfigError
from lovecraft.models import Architecture, build
from lovecraft.models.architecture import parameter_count
from lovecraft.train.loss import logit_bytes
from lovecraft.train.offload import IN_FLIGHT, KEEP
from lovecraft.train.optim.step import new_state

GIB = 1 << 30
# From least to most given up for memory.
CHOICES = (("none", "none"), ("block", "none"), ("block", "block_inputs"))


@attrs.frozen
class Bytes:
    """The expected bytes in the device's memory under one choice of the memory options."""

    checkpointing: str
    offload: str
    limit: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    peak: int

    @property
    def fits(self) -> bool:
        """Whether the peak stays below the limit."""
        return self.peak <= self.limit


def choose(config: TrainConfig, arch: Architecture, dtype: torch.dtype, device: torch.device) -> Bytes:
    """Return the table of the first choice that the options leave open and that fits, else of the smallest one.

    Raises ConfigError for options that exclude each other.
    """
    tables = [table(config, arch, dtype, device, *choice) for choice in choices(resolve(config.memory), device)]
    return next((t for t in tables if t.fits), tables[-1])


def table(
    config: TrainConfig, arch: Architecture, dtype: torch.dtype, device: torch.device, checkpointing: str, offload: str
) -> Bytes:
    """Return the byte table for one choice. The peak is at the turn from forward to backward or at its end.

    At the turn all activations and the logits are there, and the gradients of earlier passes; at the end, all gradients
    and one block.
    """
    tokens = config.batch_size * config.dataset.block_size
    windowed = arch.sliding_window is not None and arch.sliding_window < config.dataset.block_size
    joined = windowed or config.dataset.packing != "none"
    block = block_bytes(arch, tokens, dtype.itemsize, joined=joined)
    row = tokens * arch.hidden_size * dtype.itemsize  # one hidden state
    kept = arch.num_hidden_layers
    if offload == "block_inputs" and device.type != "cpu":
        kept = min(kept, KEEP + IN_FLIGHT)
    weights = gradients = parameter_count(arch) * dtype.itemsize
    optimizer = state_bytes(resolve(config.optimizer), arch, dtype)
    activations = kept * (block if checkpointing == "none" else row) + 2 * row  # 2: the final norm's input and output
    activations += block if checkpointing == "block" else 0  # the one that is computed again
    logits = logit_bytes(arch, tokens, config.memory.loss_chunk, dtype.itemsize, device.type)
    workspace = tokens * dtype.itemsize * (3 * arch.intermediate_size + 2 * arch.hidden_size)  # of a block's backward
    turn = activations + logits + (gradients if config.accumulation > 1 else 0)
    return Bytes(
        checkpointing=checkpointing,
        offload=offload,
        limit=memory_limit(resolve(config.memory), device),
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        logits=logits,
        workspace=workspace,
        peak=weights + optimizer + workspace + max(turn, gradients + block),
    )


def choices(memory: Memory, device: torch.device) -> list[tuple[str, str]]:
    """Return the pairs of (checkpointing, offload) that the options leave open, the cheapest in time first."""
    if (memory.checkpointing, memory.offload) == ("none", "block_inputs"):
        raise ConfigError(
            "memory.offload = block_inputs with memory.checkpointing = none: what offload moves are the inputs that "
            "checkpointing keeps",
            hint="set memory.checkpointing to block or auto",
        )
    return [
        (checkpointing, offload)
        for checkpointing, offload in CHOICES
        if memory.checkpointing in (checkpointing, "auto")
        and (memory.offload == offload or (memory.offload == "auto" and (offload == "none" or device.type != "cpu")))
    ]


def memory_limit(memory: Memory, device: torch.device) -> int:
    """Return the bytes that training may use: the option, else what is free on the device now."""
    if memory.limit is not None:
        return int(memory.limit * GIB)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    if not info.exists():  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rows = dict(line.split(":") for line in info.read_text(encoding="utf-8").splitlines())
    return int(rows["MemAvailable"].split()[0]) * 1024


def block_bytes(arch: Architecture, tokens: int, itemsize: int, *, joined: bool = False) -> int:
    """Return what one block keeps for backward, its input included.

    By token, in numbers: both norms' inputs and outputs; q, the attention's output, k and v; gate, up, silu(gate) and
    its product with up. In float32: a scale of each norm, and the attention's log-sum for each head. Where attention
    works in several spans, a window's or packed documents', their outputs are kept and, joined, kept again.
    """
    queries, keys = arch.num_attention_heads * arch.head_dim, arch.num_key_value_heads * arch.head_dim
    numbers = 4 * arch.hidden_size + (3 if joined else 2) * queries + 2 * keys + 4 * arch.intermediate_size
    return tokens * (itemsize * numbers + 4 * (2 + arch.num_attention_heads))


@functools.cache
def state_bytes(optimizer: OptimizerConfig, arch: Architecture, dtype: torch.dtype) -> int:
    """Return the bytes of an optimizer's state, float32 masters included, by making it without memory."""
    parameters: dict[str, Tensor] = dict(build(arch, dtype, torch.device("meta")).named_parameters())
    masters = {}
    if optimizer.rounding == "master" and dtype != torch.float32:
        masters = {name: torch.empty_like(p, dtype=torch.float32) for name, p in parameters.items()}
    state = new_state(optimizer, parameters, masters)
    return sum(tensor.nbytes for slots in state.values() for tensor in slots.values())


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has held: reserved on a GPU, resident otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
