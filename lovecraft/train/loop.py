"""The training loop, on one page: `train` and the one step that it repeats.

All that a step depends on is a function of its number: its blocks, its learning rate, its rounding noise. So the loop
reads from top to bottom, and a resumed run enters it at a later number.
"""

import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch

from lovecraft.config.resolve import resolve
from lovecraft.config.schema import Save, TrainConfig
from lovecraft.data.build import Built
from lovecraft.models.architecture import config_of
from lovecraft.models.llama import Llama
from lovecraft.runs import Run
from lovecraft.tokenizer import Tokenizer
from lovecraft.train import failures, sinks, state
from lovecraft.train.batches import collate, is_due, step_blocks, total_steps
from lovecraft.train.control import PATIENCE, controlled
from lovecraft.train.display import Display
from lovecraft.train.held_out import is_wanting, lost_patience, measure
from lovecraft.train.loss import linear_cross_entropy
from lovecraft.train.memory import peak_memory
from lovecraft.train.metrics import Metrics, best_step, running_mean
from lovecraft.train.plan import ideal_seconds, measured_rate
from lovecraft.train.rehearsal import rehearse
from lovecraft.train.schedule import multiplier
from lovecraft.train.setup import Training, base_directory, prepare
from lovecraft.train.trace import traced


@attrs.frozen
class Outcome:
    """How a training ended: `reason` is empty when it took its last step, else what stopped it."""

    step: int
    steps: int
    reason: str
    model: Llama


def train(config: TrainConfig, run: Run, built: Built, tokenizer: Tokenizer) -> Outcome:
    """Train `run` from where it is to its last step, or until it is told to stop.

    Raises TrainingFailed when a loss, gradient or weight is not finite or memory runs out, RunError when another
    process trains this run or its directory cannot be written.
    """
    save = None if config.save is None else resolve(config.save)
    with failures.recorded(run), controlled(run.directory, config.max_minutes) as control:
        run.say(status="running", reason="", steps=total_steps(config, len(built.splits["train"])), pid=os.getpid())
        t = prepare(config, run, built, tokenizer)
        ideal = ideal_seconds(t.model.architecture, t.blocks, measured_rate(t.device, t.model.head.dtype))
        with (
            Display(t.steps, t.progress.step, ideal) as display,
            sinks.opened(config, run, t.progress.step, display.say) as others,
            contextlib.closing(Metrics(run.directory, t.progress.metrics_bytes, others)) as metrics,
            traced(run.directory, config.log.profile, display.say) as trace,
        ):
            for note in t.notes:
                display.say(note)
            rehearse(t)
            measure(t, metrics, display, control)
            reason = lost_patience(t, metrics) or control.reason()

            while t.progress.step < t.steps and reason in ("", "save"):
                with trace.step():
                    row = take_step(t)
                step, is_last = row["step"], row["step"] == t.steps
                display.show(row, t.progress.mean_loss or row["loss"])
                if is_last or is_due(config.log.every, step):
                    metrics.write(**row)
                improved = measure(t, metrics, display, control)
                reason = lost_patience(t, metrics) or control.reason()
                if save is not None and _wants_saving(save, step, is_last, improved, reason):
                    _save(t, metrics, save)
                    if reason == "save":
                        control.asked = reason = ""

        if t.progress.step == t.steps and reason != "abort" and not is_wanting(t, metrics):
            reason = ""
        # Resumed with save = none, a run whose earlier steps were saved still lacks its last one.
        whole = save.final if save is not None else not state.checkpoints(run.directory)
        finished = whole and reason in ("", PATIENCE)
        run.say(status="finished" if finished else "stopped", reason=reason, step=t.progress.step, steps=t.steps)
        return Outcome(t.progress.step, t.steps, reason, t.model)


def take_step(t: Training) -> dict[str, Any]:
    """Take the next optimizer step and return its row of metrics.

    Raises TrainingFailed when the loss or a gradient is not finite: before anything is changed, or, where weights are
    updated in backward, before anything of this step can be saved.
    """
    begun = time.perf_counter()
    config, step = t.config, t.progress.step + 1  # the first is step 1

    # The step's blocks, and the number of tokens that its loss is the mean over.
    numbers = step_blocks(config, len(t.blocks), step)
    batches = [collate(t.blocks, some, t.device) for some in numbers]
    supervised = sum(batch.supervised for batch in batches)
    failures.refuse_nothing_to_learn(supervised, step, t.blocks, numbers)

    # Forward and backward, pass by pass; the gradients add up, or update in backward.
    lr = config.optimizer.lr * multiplier(resolve(config.schedule), step - 1, t.steps)
    t.updates.begin(step, lr)
    loss = torch.zeros((), device=t.device)
    for batch in batches:
        hidden = t.model.hidden(batch.input_ids, run_block=t.run_block, lengths=batch.lengths).flatten(0, 1)
        targets = batch.targets.flatten()  # (B * T,), and hidden (B * T, D)
        part = linear_cross_entropy(hidden, t.model.head, targets, config.memory.loss_chunk) / supervised
        loss += part.detach()
        if t.updates.in_backward:
            _refuse(t, float(loss), None, step, numbers)
        part.backward()
    norm = t.updates.norm()
    _refuse(t, float(loss), norm, step, numbers)
    t.updates.finish(1.0 if config.max_grad_norm is None else min(1.0, config.max_grad_norm / (norm + 1e-6)))

    seconds = time.perf_counter() - begun
    tokens = sum(batch.tokens for batch in batches)
    t.progress = attrs.evolve(
        t.progress,
        step=step,
        tokens=t.progress.tokens + tokens,
        seconds=t.progress.seconds + seconds,
        mean_loss=running_mean(t.progress.mean_loss, float(loss), step),
    )
    return {
        "step": step,
        "loss": float(loss),
        "lr": lr,
        "grad_norm": norm,
        "tokens": t.progress.tokens,
        "tokens_per_second": round(tokens / seconds, 1),
        "memory": peak_memory(t.device),
        "seconds": round(t.progress.seconds, 3),
    }


def _refuse(t: Training, loss: float, norm: float | None, step: int, numbers: Sequence[np.ndarray]) -> None:
    """Raise TrainingFailed where a step's loss, or the norm of its gradients if that is known, must not be learnt."""
    failures.refuse_not_finite(loss, norm, step, t.blocks, numbers)
    failures.refuse_spike(loss, t.progress.mean_loss, t.config.stop_on_spike, step, t.blocks, numbers)


def _wants_saving(save: Save, step: int, is_last: bool, improved: bool, reason: str) -> bool:
    if reason == "abort":
        return False
    if is_last or reason == PATIENCE:
        return save.final or reason not in ("", PATIENCE)
    return bool(reason) or is_due(save.every, step) or (save.best and improved)


def _save(t: Training, metrics: Metrics, save: Save) -> None:
    failures.refuse_ruined(t.parameters, t.progress.step)
    progress = attrs.evolve(t.progress, metrics_bytes=metrics.sync())
    state.save(
        t.run.directory,
        model=t.model,
        optimizer=t.optimizer,
        progress=progress,
        like=base_directory(t.config),
        tokenizer=t.tokenizer.path,
        config=config_of(base_directory(t.config), resolve(t.config.model)),
    )
    state.prune(t.run.directory, save, best_step(metrics.evaluations))
