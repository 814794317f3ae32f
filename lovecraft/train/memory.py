"""The byte table of a training, before anything is loaded, and the memory options that `auto` stands for.

Formulas are the modules' own where they have one; the tests count all of them against real tensors.
"""

import functools
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import torch
from torch import Tensor

from lovecraft.config.resolve import resolve
from lovecraft.config.schema import Memory, OptimizerConfig, TrainConfig
from lovecraft.errors import ConfigError
from lovecraft.models import Architecture, build
from lovecraft.train import host, in_backward, updates
from lovecraft.train.loss import logit_bytes
from lovecraft.train.offload import kept_on_device, slab_bytes
from lovecraft.train.optim.step import new_state

GIB = 1 << 30
# (checkpointing, offload, where and when weights are updated), from the least to the most given up for memory.
CHOICES = (
    ("none", "none", "after"),
    ("none", "none", "in_backward"),
    ("block", "none", "after"),
    ("block", "none", "in_backward"),
    ("block", "block_inputs", "after"),
    ("block", "block_inputs", "in_backward"),
    ("none", "none", "host"),
    ("block", "none", "host"),
    ("block", "block_inputs", "host"),
)
Choice = tuple[str, str, str]
# Of a GPU: what matrix products and attention ask for, and what lies unused between tensors. An estimate.
OVERHEAD = GIB // 2


@attrs.frozen
class Limits:
    """The bytes that a training may use on its device and, where that is a GPU of this machine, on the host."""

    device: int
    host: int | None = None


@attrs.frozen
class Bytes:
    """The expected bytes in the device's memory, and in the host's, under one choice of the memory options."""

    checkpointing: str
    offload: str
    update: str
    device: torch.device
    limits: Limits
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    host: int
    peak: int

    @property
    def fits(self) -> bool:
        """Whether the peak stays below the limit, and the host holds the rest."""
        return self.excess <= 1

    @property
    def excess(self) -> float:
        """What is needed as a multiple of what there is, on the device or on the host."""
        device = self.peak / self.limits.device
        return device if self.limits.host is None else max(device, self.host / self.limits.host)

    @property
    def need(self) -> str:
        """What is needed and what there is, in words."""
        words = f"it needs about {self.peak / 1e9:.3g} GB of {self.limits.device / 1e9:.3g} GB"
        if self.limits.host is not None and self.host > self.limits.host:
            words += f", and {self.host / 1e9:.3g} GB of {self.limits.host / 1e9:.3g} GB of host memory"
        return words

    @property
    def choice(self) -> str:
        """What is given up for memory, in words."""
        return f"checkpointing {self.checkpointing}, offload {self.offload}, update {UPDATES[self.update]}"


UPDATES = {"after": "after backward", "in_backward": "in backward", "host": "on the host"}


def choose(
    config: TrainConfig, arch: Architecture, dtype: torch.dtype, device: torch.device, limits: Limits | None = None
) -> Bytes:
    """Return the table of the first choice that the options leave open and that fits, else of the smallest one.

    Without `limits` they are this machine's. Raises ConfigError for options that exclude each other.
    """
    limits = limits or memory_limits(resolve(config.memory), device)
    tables = [table(config, arch, dtype, device, choice, limits) for choice in choices(config, device)]
    return next((t for t in tables if t.fits), min(tables, key=lambda t: t.excess))


def table(
    config: TrainConfig, arch: Architecture, dtype: torch.dtype, device: torch.device, choice: Choice, limits: Limits
) -> Bytes:
    """Return the byte table for one choice. The peak is at the loss, or where backward begins, or where it ends.

    At the loss all activations and the logits are there; where backward begins, the last block with what its backward
    takes, and the head's gradient; where it ends, all gradients, the first block and its input.
    """
    checkpointing, offload, update = choice
    tokens = config.batch_size * config.dataset.block_size
    windowed = arch.sliding_window is not None and arch.sliding_window < config.dataset.block_size
    joined = windowed or config.dataset.packing != "none"
    block = block_bytes(arch, tokens, dtype.itemsize, joined=joined)
    row = tokens * arch.hidden_size * dtype.itemsize  # one hidden state
    gpu = device.type == "cuda"  # else the host's memory is the device's
    offloaded = offload == "block_inputs" and gpu
    kept = kept_on_device(arch.num_hidden_layers) if offloaded else arch.num_hidden_layers
    inputs = kept * (block if checkpointing == "none" else row)
    again = block if checkpointing == "block" else 0  # the one that is computed again
    workspace = backward_bytes(arch, tokens, dtype.itemsize)
    logits = logit_bytes(arch, tokens, config.memory.loss_chunk, dtype.itemsize, device.type)

    parameters = meta_parameters(arch, dtype)
    weights = sum(parameter.nbytes for parameter in parameters.values())
    optimizer = state_bytes(resolve(config.optimizer), arch, dtype)
    gradients, on_host = _update_bytes(parameters, update, config.accumulation)
    on_host += slab_bytes(arch.num_hidden_layers, row) if offloaded else 0
    head = arch.vocab_size * arch.hidden_size * dtype.itemsize
    waiting = head if arch.tie_word_embeddings and update != "after" else 0  # for what the embedding adds to it
    held = gradients if config.accumulation > 1 else 0
    at_loss = held + inputs + 2 * row + logits  # 2: the final norm's input and output
    beginning = max(held, head) + inputs + again + row + workspace
    ending = gradients + waiting + block + row + workspace
    peak = weights + max(at_loss, beginning, ending) + (OVERHEAD if gpu else on_host)
    peak += 0 if gpu and update == "host" else optimizer
    return Bytes(
        checkpointing=checkpointing,
        offload=offload,
        update=update,
        device=device,
        limits=limits,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=inputs + 2 * row + again,
        logits=logits,
        workspace=workspace,
        host=on_host + (optimizer if update == "host" else 0),
        peak=peak,
    )


def _update_bytes(parameters: Mapping[str, Tensor], update: str, passes: int) -> tuple[int, int]:
    """Return the bytes of gradients on the device, and those on the host that the update takes besides its state."""
    if update == "host":
        return host.gradient_bytes(parameters), host.host_bytes(parameters)
    if update == "in_backward":
        return in_backward.gradient_bytes(parameters), 0
    return updates.gradient_bytes(parameters, passes), 0


def choices(config: TrainConfig, device: torch.device) -> list[Choice]:
    """Return the choices that the options leave open, the cheapest in time first.

    Without a GPU `auto` moves nothing to host memory, which is all there is. Raises ConfigError for options that
    exclude each other.
    """
    memory = resolve(config.memory)
    _refuse_exclusions(config, memory)
    whole = config.accumulation == 1 and config.max_grad_norm is None
    hooked, where, gpu = memory.optimizer_in_backward, memory.optimizer_device, device.type == "cuda"
    open_updates = {
        "after": hooked != "on" and where != "host",
        "in_backward": hooked != "off" and where != "host" and whole,
        "host": where == "host" or (where == "auto" and hooked != "on" and gpu),
    }
    return [
        (checkpointing, offload, update)
        for checkpointing, offload, update in CHOICES
        if memory.checkpointing in (checkpointing, "auto")
        and (memory.offload == offload or (memory.offload == "auto" and (gpu or offload == "none")))
        and open_updates[update]
    ]


def _refuse_exclusions(config: TrainConfig, memory: Memory) -> None:
    if (memory.checkpointing, memory.offload) == ("none", "block_inputs"):
        raise ConfigError(
            "memory.offload = block_inputs with memory.checkpointing = none: what offload moves are the inputs that "
            "checkpointing keeps",
            hint="set memory.checkpointing to block or auto",
        )
    excluding = {  # option: (its value where it excludes, why)
        "accumulation": (config.accumulation > 1 and config.accumulation, "a pass has only a part of the gradient"),
        "max_grad_norm": (config.max_grad_norm, "the norm is known only after backward"),
        "memory.optimizer_device": (memory.optimizer_device == "host" and "host", "there all gradients are waited for"),
    }
    for option, (value, why) in excluding.items():
        if value and memory.optimizer_in_backward == "on":
            raise ConfigError(
                f"memory.optimizer_in_backward = on with {option} = {value}: {why}",
                hint=f"set memory.optimizer_in_backward to auto, or leave {option} at its default",
            )


def memory_limits(memory: Memory, device: torch.device) -> Limits:
    """Return what training may use on this machine."""
    return Limits(memory_limit(memory, device), free_host_memory() if device.type == "cuda" else None)


def memory_limit(memory: Memory, device: torch.device) -> int:
    """Return the bytes that training may use: the option, else what is free on the device now."""
    if memory.limit is not None:
        return int(memory.limit * GIB)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_host_memory()


def free_host_memory() -> int:
    """Return the bytes of host memory that are free, or can be freed; where that is not told, all there are."""
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


def backward_bytes(arch: Architecture, tokens: int, itemsize: int) -> int:
    """Return what the backward of one block takes beside what the block keeps: gradients of what it works on."""
    return tokens * itemsize * (3 * arch.intermediate_size + 2 * arch.hidden_size)


@functools.cache
def meta_parameters(arch: Architecture, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """Return a model's parameters without memory."""
    return dict(build(arch, dtype, torch.device("meta")).named_parameters())


@functools.cache
def state_bytes(optimizer: OptimizerConfig, arch: Architecture, dtype: torch.dtype) -> int:
    """Return the bytes of an optimizer's state, float32 masters included, by making it without memory."""
    parameters, masters = meta_parameters(arch, dtype), {}
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
