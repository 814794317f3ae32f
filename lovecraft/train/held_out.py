"""The held-out loss of a training: when it is due, what is said of it, when it has fallen long enough."""

import contextlib

from lovecraft.errors import ModelError
from lovecraft.train import failures
from lovecraft.train.batches import is_due
from lovecraft.train.control import PATIENCE, Control, Stopped
from lovecraft.train.display import Display
from lovecraft.train.evaluate import evaluate
from lovecraft.train.metrics import Metrics, best_step, fruitless
from lovecraft.train.sample import continuation
from lovecraft.train.setup import Training

SAMPLED_TOKENS = 80


def is_wanting(t: Training, metrics: Metrics) -> bool:
    """Say whether the held-out loss is due where the training is, and not measured: a stop may have cut that short."""
    config, step = t.config.eval, t.progress.step
    if config is None or t.held_out is None or any(row["step"] == step for row in metrics.evaluations):
        return False
    return step in (0, t.steps) or is_due(config.every, step)


def measure(t: Training, metrics: Metrics, display: Display, control: Control) -> bool:
    """Measure the held-out loss if it is due, and print samples; return whether it is the lowest after any step."""
    if not is_wanting(t, metrics):
        return False
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


def lost_patience(t: Training, metrics: Metrics) -> str:
    """Return PATIENCE if the held-out loss has not fallen for as many evaluations as the config waits for."""
    patience = None if t.config.eval is None else t.config.eval.patience
    return PATIENCE if patience is not None and fruitless(metrics.evaluations) >= patience else ""
