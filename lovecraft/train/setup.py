"""From a config and a run's directory to a training that is ready for its next step: fresh, or as it was left."""

import os
from pathlib import Path

import attrs
import torch
from torch import Tensor

from lovecraft.checkpoint import load_model
from lovecraft.config.resolve import resolve
from lovecraft.config.schema import TrainConfig
from lovecraft.data.blocks import Blocks
from lovecraft.data.build import Built
from lovecraft.device import resolve_device, resolve_dtype
from lovecraft.errors import ConfigError
from lovecraft.models import Architecture, read_architecture
from lovecraft.models.llama import Llama, RunBlock, call
from lovecraft.runs import Run
from lovecraft.tokenizer import Tokenizer
from lovecraft.train import memory, state
from lovecraft.train.batches import largest_tokens, total_steps
from lovecraft.train.checkpointing import checkpointed
from lovecraft.train.fitting import flags, smallest_changes
from lovecraft.train.host import HOST, OnHost
from lovecraft.train.in_backward import InBackward
from lovecraft.train.offload import Offload
from lovecraft.train.optim.step import State, new_state
from lovecraft.train.updates import AfterBackward, Updates

HOPELESS = 1.1  # times what there is: nearer to it the plan may be wrong, and the first step or a rehearsal tells


@attrs.define
class Training:
    """All that the loop works on. Only `progress` is ever replaced; tensors change in place."""

    config: TrainConfig
    run: Run
    tokenizer: Tokenizer
    blocks: Blocks
    held_out: Blocks | None
    device: torch.device
    model: Llama
    parameters: dict[str, Tensor]
    optimizer: State
    updates: Updates
    run_block: RunBlock
    steps: int
    progress: state.Progress
    notes: list[str]
    """What the user must know before the first step."""


def prepare(config: TrainConfig, run: Run, built: Built, tokenizer: Tokenizer) -> Training:
    """Load the newest sound checkpoint of `run`, else the model to start from. The caller holds the run's lock.

    Raises ConfigError where the options cannot work together, ModelError where the model cannot be loaded.
    """
    found = state.newest_sound(run.directory)
    source = found.directory or base_directory(config)
    begun = None if found.directory is None else state.read_dtype(found.directory)
    device, dtype, arch, chosen = check(config, tokenizer, begun)
    steps = total_steps(config, len(built.splits["train"]))
    size = memory.state_bytes(resolve(config.optimizer), arch, dtype)
    state.refuse_full_disk(run.directory, config, steps, weights=chosen.weights, optimizer=size)
    exact = found.directory is not None and state.has_optimizer(found.directory)
    model, masters = _load(config, source, chosen, arch, dtype, device, with_masters=not exact)
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    where = HOST if chosen.update == "host" else device
    if found.directory is not None and exact:
        optimizer = state.read_optimizer(found.directory, where)
    else:
        like = {name: torch.empty(p.shape, dtype=p.dtype, device=where) for name, p in parameters.items()}
        optimizer = new_state(resolve(config.optimizer), like, masters)
    exactness = _exactness(config, device, chosen)
    progress = state.Progress() if found.directory is None else state.read_progress(found.directory)
    blocks = built.splits["train"]
    held_out = None if config.eval is None else built.splits.get(config.eval.split)
    return Training(
        config=config,
        run=run,
        tokenizer=tokenizer,
        blocks=blocks,
        held_out=held_out,
        device=device,
        model=model,
        parameters=parameters,
        optimizer=optimizer,
        updates=updates(config, chosen, parameters, optimizer),
        run_block=run_block(chosen, arch, largest_tokens(config, blocks)),
        steps=steps,
        progress=attrs.evolve(progress, exactness=exactness),
        notes=[*found.warnings, *_notes(config, chosen, progress, exactness, exact, held_out)],
    )


def check(
    config: TrainConfig,
    tokenizer: Tokenizer,
    begun: torch.dtype | None = None,
    *,
    of: type[TrainConfig] | None = None,
) -> tuple[torch.device, torch.dtype, Architecture, memory.Bytes]:
    """Return what a training will work with: device, type of the weights, architecture, memory options.

    A run that has `begun` in a type stays in it, whatever `dtype = auto` means on this device.

    Raises ConfigError where the options cannot work together, by far not fit (what would is said where the config is
    `of` a class that flags can change) or this machine has no such device, ModelError where the
    model's config.json cannot be read.
    """
    _let_segments_grow()
    device = resolve_device(config.device)
    dtype = begun or training_dtype(config, device)
    arch = read_architecture(base_directory(config), resolve(config.model))
    check_fit(config, arch, tokenizer)
    chosen = memory.choose(config, arch, dtype, device)
    if chosen.excess > HOPELESS:
        hint = "`lc plan` names the smallest changes that make it fit" if of is None else remedy(of, arch, chosen)
        raise ConfigError(f"this does not fit: {chosen.need}, with {chosen.choice}", hint=hint)
    return device, dtype, arch, chosen


def remedy(cls: type[TrainConfig], arch: Architecture, found: memory.Bytes) -> str:
    """Return the smallest changes that make a training fit where it does not, as flags, one set a line."""

    def planned(changed: TrainConfig) -> memory.Bytes:
        return memory.choose(changed, arch, training_dtype(changed, found.device), found.device, found.limits)

    lines = [flags(changes) for changes in smallest_changes(cls, planned)]
    if not lines:
        return "no change of an option makes it fit: take a smaller model or a larger GPU"
    return "\n  ".join(["it does with" + (" any of these" if len(lines) > 1 else ""), *lines])


def _let_segments_grow() -> None:
    """Ask the allocator of a GPU, which reads this when it is first used, to leave fewer gaps; unless the user did."""
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # its older name
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def base_directory(config: TrainConfig) -> Path:
    """Return the directory of the model to start from, which is there: the caller fetches, converts or makes it."""
    assert isinstance(config.model.path, Path)
    return config.model.path


def training_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """Return the type of the weights. Raises ConfigError for float16, which is too narrow for gradients."""
    dtype = resolve_dtype(config.model.dtype, device)
    if dtype == torch.float16:
        raise ConfigError(
            "model.dtype is float16, in which gradients underflow", hint="set model.dtype to bfloat16, float32 or auto"
        )
    return dtype


def check_fit(config: TrainConfig, arch: Architecture, tokenizer: Tokenizer) -> None:
    """Raise ConfigError where blocks and tokens do not fit the model."""
    context = config.model.max_context or arch.context
    if config.dataset.block_size > context:
        raise ConfigError(
            f"dataset.block_size is {config.dataset.block_size}, but the model's context is {context}",
            hint="lower dataset.block_size, or set model.max_context if the model is to learn a longer one",
        )
    if tokenizer.vocab_size > arch.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but the model knows {arch.vocab_size}",
            hint="leave dataset.tokenizer unset to take the model's own",
        )


def _load(
    config: TrainConfig,
    source: Path,
    chosen: memory.Bytes,
    arch: Architecture,
    dtype: torch.dtype,
    device: torch.device,
    *,
    with_masters: bool,
) -> tuple[Llama, dict[str, Tensor]]:
    """Return the model in `dtype`, and float32 masters of its weights if they are to be made here."""
    narrow = dtype != torch.float32 and config.optimizer.rounding == "master"
    if not (narrow and with_masters):
        return load_model(source, dtype=dtype, device=device, architecture=arch), {}
    where = HOST if chosen.update == "host" else device
    model = load_model(source, dtype=torch.float32, device=where, architecture=arch)
    masters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return model.to(device=device, dtype=dtype), masters


def updates(config: TrainConfig, chosen: memory.Bytes, parameters: dict[str, Tensor], optimizer: State) -> Updates:
    """Return what updates the weights, in the chosen way."""
    options = resolve(config.optimizer), parameters, optimizer, config.seed
    if chosen.update == "after":
        return AfterBackward(*options, passes=config.accumulation)
    return InBackward(*options) if chosen.update == "in_backward" else OnHost(*options)


def run_block(chosen: memory.Bytes, arch: Architecture, largest: int) -> RunBlock:
    """Return what runs a block on hidden states of at most `largest` tokens."""
    if chosen.checkpointing == "none":
        return call
    if chosen.offload == "none":
        return checkpointed
    return Offload(arch.num_hidden_layers, largest=largest * arch.hidden_size).run_block


def _exactness(config: TrainConfig, device: torch.device, chosen: memory.Bytes) -> dict[str, str]:
    """Return what the bits of a training depend on besides its record."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "torch": torch.__version__,
        "device": f"{device.type} {kind}",
        "threads": str(torch.get_num_threads()),
        "memory.loss_chunk": str(config.memory.loss_chunk),
        "update": "on the host" if chosen.update == "host" else "on the device",
    }


def _notes(
    config: TrainConfig,
    chosen: memory.Bytes,
    before: state.Progress,
    exactness: dict[str, str],
    exact: bool,
    held_out: Blocks | None,
) -> list[str]:
    notes = []
    if (chosen.checkpointing, chosen.offload, chosen.update) != memory.CHOICES[0]:
        notes.append(f"to save memory: {chosen.choice}")
    if not chosen.fits:
        notes.append(f"this may not fit: {chosen.need}")
    if config.eval is not None and held_out is None:
        notes.append(f"the dataset has no {config.eval.split} split: the held-out loss is not measured")
    if before.step:
        changed = [f"{k} {v} → {exactness[k]}" for k, v in before.exactness.items() if exactness.get(k) != v]
        if changed:
            notes.append(f"not bit-exact from here on: {', '.join(changed)}")
        if not exact:
            notes.append("not bit-exact from here on: this checkpoint's optimizer state is gone, it starts from zero")
    return notes
