"""Checkpoints of a run, whole or absent, and what a resumed training needs to go on to the bit.

    RUN/checkpoints/step-00000100/    a Hugging Face model directory: exactly what the forward pass uses
      manifest.json                   sizes and hashes of all but the optimizer's state
      trainer/state.json              where the training is
      trainer/optimizer.safetensors   moments and float32 masters, in the newest checkpoint only unless asked,
      trainer/manifest.json           with their own hashes

There is no RNG state: data order and rounding noise are functions of seed and step. Nothing here needs more memory than
one tensor, whatever the size of model and optimizer.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import safe_open
from torch import nn

from lovecraft.checkpoint import save_model, write_file
from lovecraft.config.resolve import resolve
from lovecraft.config.schema import Save, TrainConfig
from lovecraft.errors import RunError
from lovecraft.files import MANIFEST, check_manifest, new_directory, remove_directory, write_manifest
from lovecraft.models.architecture import read_config
from lovecraft.runs import Run, checkpoints
from lovecraft.train.metrics import best_step, read
from lovecraft.train.optim.step import State

TRAINER = "trainer"
PROGRESS = "state.json"
OPTIMIZER = "optimizer.safetensors"


@attrs.frozen
class Progress:
    """Where a training is after `step` optimizer steps."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    metrics_bytes: int = 0
    """Length of metrics.jsonl, to which a resumed training cuts it."""

    mean_loss: float | None = None
    """The running mean of the steps' losses."""

    exactness: Mapping[str, str] = attrs.field(factory=dict)
    """What the bits depend on besides the record: torch, threads, device, memory options."""


@attrs.frozen
class Found:
    """The newest sound checkpoint, and what had to be said on the way to it."""

    directory: Path | None
    warnings: list[str]


def save(
    run: Path,
    *,
    model: nn.Module,
    optimizer: State,
    progress: Progress,
    like: Path,
    tokenizer: Path,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write the checkpoint of `progress.step` beside the others and return it.

    The config files are those of the model directory `like`, the tokenizer's those of the directory `tokenizer`; what
    stands in config.json is `config`, where it is given.

    Raises OSError when it cannot be written; nothing is left behind then, and no other checkpoint is touched.
    """
    final = run / "checkpoints" / f"step-{progress.step:08d}"
    with new_directory(final) as directory:
        dtype = next(model.parameters()).dtype
        save_model(directory, model, like=like, dtype=dtype, tokenizer=tokenizer, config=config)
        trainer = directory / TRAINER
        trainer.mkdir()
        (trainer / PROGRESS).write_text(json.dumps(attrs.asdict(progress), indent=2) + "\n", encoding="utf-8")
        write_manifest(directory)
        flat = {f"{name}/{slot}": tensor for name, slots in optimizer.items() for slot, tensor in slots.items()}
        write_file(trainer / OPTIMIZER, flat, lambda name: flat[name].detach().cpu())
        write_manifest(trainer)
    return final


def prune(run: Path, save: Save, best: int | None) -> None:
    """Remove the checkpoints, and of others the optimizer's states, that `save` does not keep; `best` is a step."""
    found = checkpoints(run)
    for step in list(found)[: -save.keep]:
        if not (save.best and step == best):
            remove_directory(found.pop(step))
    for directory in list(found.values())[:-1] if save.optimizer == "newest" else []:
        (directory / TRAINER / MANIFEST).unlink(missing_ok=True)  # first: without it the state counts as absent
        (directory / TRAINER / OPTIMIZER).unlink(missing_ok=True)


def refuse_full_disk(run: Path, config: TrainConfig, steps: int, *, weights: int, optimizer: int) -> None:
    """Raise RunError unless the disk holds all checkpoints that `config.save` may keep, and one more being written.

    `weights` and `optimizer` are the bytes of each in one checkpoint. What the run has already counts as held.
    """
    if config.save is None:
        return
    save = resolve(config.save)
    every = [save.every, config.eval.every if save.best and config.eval is not None else None]
    saves = 2 + sum(steps // number for number in every if number)  # 2: the last, and one where it is stopped
    count = min(save.keep + 1 + save.best, saves)
    states = count if save.optimizer == "all" else 2
    needed = count * weights + states * optimizer
    held = sum(f.stat().st_size for one in checkpoints(run).values() for f in one.rglob("*") if f.is_file())
    free = shutil.disk_usage(run).free
    if needed - held > free:
        raise RunError(
            f"{run}: up to {count} checkpoints lie there at once and take {needed / 1e9:.1f} GB, "
            f"but the disk has {(free + held) / 1e9:.1f} GB for them",
            hint="free some space, lower save.keep, set save.best to false, or take an optimizer with less state",
        )


def checkpoint_directory(run: Run, which: str = "latest") -> Path | None:
    """Return a run's checkpoint: `latest`, `best` (the lowest held-out loss), or that of a step's number."""
    found = checkpoints(run.directory)
    if which == "best":
        best = best_step([row for row in read(run.directory) if "split" in row and row["step"] in found])
        return None if best is None else found[best]
    if which == "latest":
        return found[max(found)] if found else None
    return found.get(int(which)) if which.isdecimal() else None


def newest_sound(run: Path) -> Found:
    """Return the newest checkpoint that is as it was written; damaged ones are renamed out of the way.

    The caller holds the run's lock.
    """
    warnings = []
    for step, directory in sorted(checkpoints(run).items(), reverse=True):
        problems = check_manifest(directory)
        if has_optimizer(directory):
            problems += check_manifest(directory / TRAINER)
        if not problems:
            return Found(directory, warnings)
        aside = directory.with_name(f"damaged-{directory.name}")
        shutil.rmtree(aside, ignore_errors=True)
        directory.rename(aside)
        warnings.append(f"the checkpoint of step {step} is damaged and skipped: {'; '.join(problems)}")
    return Found(None, warnings)


def has_optimizer(directory: Path) -> bool:
    """Return whether a checkpoint still has the optimizer's state."""
    return (directory / TRAINER / MANIFEST).is_file()


def read_dtype(directory: Path) -> torch.dtype:
    """Return the type of a checkpoint's weights, which is what `dtype = auto` meant when the run began."""
    config = read_config(directory)
    return getattr(torch, str(config.get("torch_dtype") or config["dtype"]))


def read_progress(directory: Path) -> Progress:
    """Return where the training was when it wrote a checkpoint."""
    content = json.loads((directory / TRAINER / PROGRESS).read_text(encoding="utf-8"))
    return Progress(**{field.name: content[field.name] for field in attrs.fields(Progress) if field.name in content})


def read_optimizer(directory: Path, device: torch.device) -> State:
    """Return a checkpoint's optimizer state on `device`."""
    state: State = {}
    with safe_open(directory / TRAINER / OPTIMIZER, framework="pt", device=str(device)) as file:
        for key in file.keys():  # noqa: SIM118 - a handle is no mapping
            name, slot = key.split("/")
            # A copy: a mapped tensor would hold the file's place on the disk, and might lie where sums differ in a bit.
            state.setdefault(name, {})[slot] = file.get_tensor(key).clone()
    return state
