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
from lovecraft.errors import ModelError
from lovecraft.models.architecture import config_of
from lovecraft.models.llama import Llama
from lovecraft.runs import Run
from lovecraft.tokenizer import Tokenizer
from lovecraft.train import failures, sinks, state
from lovecraft.train.batches import collate, step_blocks, total_steps
from lovecraft.train.control import PATIENCE, Control, Stopped, controlled
from lovecraft.train.display import Display
from lovecraft.train.evaluate import evaluate
from lovecraft.train.loss import linear_cross_entropy
from lovecraft.train.memory import peak_memory
from lovecraft.train.metrics import Metrics, best_step, fruitless, running_mean
from lovecraft.train.plan import ideal_seconds, measured_rate
from lovecraft.train.rehearsal import rehearse
from lovecraft.train.sample import continuation
from lovecraft.train.schedule import multiplier
from lovecraft.train.setup import Training, base_directory, prepare
from lovecraft.train.trace import traced

SAMPLED_TOKENS = 80


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
            if _wants_measuring(t, metrics):
                _evaluate(t, metrics, display, control)
            reason = _lost_patience(t, metrics) or control.reason()

            while t.progress.step < t.steps and reason in ("", "save"):
                with trace.step():
                    row = take_step(t)
                step, is_last = row["step"], row["step"] == t.steps
                display.show(row, t.progress.mean_loss or row["loss"])
                if is_last or _is_due(config.log.every, step):
                    metrics.write(**row)
                improved = _wants_measuring(t, metrics) and _evaluate(t, metrics, display, control)
                reason = _lost_patience(t, metrics) or control.reason()
                if save is not None and _wants_saving(save, step, is_last, improved, reason):
                    _save(t, metrics, save)
                    if reason == "save":
                        control.asked = reason = ""

        if t.progress.step == t.steps and reason != "abort" and not _wants_measuring(t, metrics):
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


def _wants_measuring(t: Training, metrics: Metrics) -> bool:
    """Say whether the held-out loss is due where the training is, and not measured: a stop may have cut that short."""
    config, step = t.config.eval, t.progress.step
    if config is None or t.held_out is None or any(row["step"] == step for row in metrics.evaluations):
        return False
    return step in (0, t.steps) or _is_due(config.every, step)


def _evaluate(t: Training, metrics: Metrics, display: Display, control: Control) -> bool:
    """Measure the held-out loss, print samples; return whether the loss is the lowest of this run's steps so far."""
    config, step = t.config.eval, t.progress.step
    assert config is not None
    assert t.held_out is not None
    try:
        found = evaluate(
            t.model,
            t.held_out,
            eos_id=t.tokenizer.eos_id,
            batch_size=t.config.batch_size,
            loss_chunk=t.config.memory.loss_chunk,
            max_blocks=config.max_blocks,
            heed=control.heed,
        )
    except Stopped:
        return False
    except ModelError as error:  # before the first step the model is to blame, after it the options
        hint = failures.GENTLER if step else error.hint
        raise failures.Diverged(f"after step {step}: {error.message}", hint=hint) from None
    metrics.write(
        step=step,
        split=config.split,
        loss=found.loss,
        tokens=found.tokens,
        perplexity=found.perplexity,
        bits_per_byte=found.bits_per_byte,
    )
    per_byte = "" if found.bits_per_byte is None else f", {found.bits_per_byte:.4f} bits per byte"
    display.say(f"step {step}: {config.split} loss {found.loss:.4f}, perplexity {found.perplexity:.2f}{per_byte}")
    with contextlib.suppress(Stopped):
        for prompt in config.prompts:
            said = continuation(t.model, t.tokenizer, prompt, SAMPLED_TOKENS, control.heed)
            display.sample(f"step {step}: a sample", prompt, said)
    return best_step(metrics.evaluations) == step


def _lost_patience(t: Training, metrics: Metrics) -> str:
    """Return PATIENCE if the held-out loss has not fallen for as many evaluations as the config waits for."""
    patience = None if t.config.eval is None else t.config.eval.patience
    return PATIENCE if patience is not None and fruitless(metrics.evaluations) >= patience else ""


def _wants_saving(save: Save, step: int, is_last: bool, improved: bool, reason: str) -> bool:
    if reason == "abort":
        return False
    if is_last or reason == PATIENCE:
        return save.final or reason not in ("", PATIENCE)
    return bool(reason) or _is_due(save.every, step) or (save.best and improved)


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


def _is_due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0
