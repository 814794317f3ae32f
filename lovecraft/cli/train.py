"""Train what a config describes, or go on with a run.

The newest run with the same options and the same inputs is resumed exactly where it was left; if it is finished, that
is said. Where anything differs, the next number begins. `lc train RUN` goes on with that run.
"""

import argparse
import sys
from typing import TYPE_CHECKING

import attrs

from lovecraft.cli import console, target
from lovecraft.config import diff, record
from lovecraft.config.load import Loaded
from lovecraft.config.resolve import resolve, rows
from lovecraft.config.schema import TrainConfig
from lovecraft.errors import RunError
from lovecraft.runs import Run, checkpoints, create, list_runs, newest, newest_same

if TYPE_CHECKING:
    from lovecraft.data.build import Built
    from lovecraft.tokenizer import Tokenizer
    from lovecraft.train.loop import Outcome

USAGE = "CONFIG|RUN [--new] [--option value …]"
EXAMPLE = "lc train finetune_lovecraft --max-steps 10"
KIND = "Train"
EXIT_CODES = {"": 0, "patience": 0, "max_minutes": 0, "SIGTERM": 143, "SIGHUP": 129}
INTERRUPTED = 130
MODEL_FILES = ("*.json", "*.jinja", "tokenizer.model", "*.safetensors")  # what another README does not change
SAMPLED_TOKENS = 80
PROMPT_TOKENS = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc train`."""
    parser.add_argument("--new", action="store_true", help="start another run, whatever runs there are")


def run(args: argparse.Namespace) -> int:
    """Print what differs from the defaults, build the blocks, train; print the run's directory to stdout."""
    config, loaded = target.train_config(args)
    changes = diff.changed_from_defaults(diff.entries(loaded.cls, loaded.root))
    console.say(f"{loaded.name}, where it differs from the defaults:")
    console.changes(changes, sys.stderr, of_defaults=True)
    from lovecraft.data.build import identity
    from lovecraft.files import content_hash
    from lovecraft.train.control import only_one
    from lovecraft.train.setup import base_directory, check
    from lovecraft.train.sinks import require

    require(config.log.sinks)
    for one in list_runs(loaded.root, loaded.name):
        if one.damage:
            console.say(f"skipped: {one.damage}")
    dataset = resolve(config.dataset)
    config, built, tokenizer = target.start(config, loaded)
    model = base_directory(config)
    made = model.is_relative_to(loaded.cache)  # then its name is of all that made it
    inputs = {
        **identity(dataset, tokenizer, loaded.cache),
        "model": model.name if made else content_hash(model, loaded.cache / "hashes.json", MODEL_FILES),
    }
    found = None if args.new else _same(args, loaded, inputs, config)
    if found is not None and _is_finished(found, config):
        console.say(f"{found.name} is finished; the same command with --new starts another")
        _summary(found)
        console.out(str(found.directory))
        return 0
    built.train_blocks()  # what cannot be trained gets no run
    check(config, tokenizer, of=loaded.cls)
    if found is None:
        return _train(config, _started(args, loaded, inputs), built, tokenizer)
    with only_one(found.directory):  # to the end: the record, too, is written only by the process that trains the run
        _resume(found, loaded)
        return _train(config, found, built, tokenizer)


def _is_finished(found: Run, config: TrainConfig) -> bool:
    """Say whether a run took its last step, or its held-out loss has not fallen for as long as `config` waits for."""
    from lovecraft.train import metrics
    from lovecraft.train.control import PATIENCE

    if found.status.get("reason") == PATIENCE:
        patience = None if config.eval is None else config.eval.patience
        measured = [row for row in metrics.read(found.directory) if "split" in row]
        return patience is not None and metrics.fruitless(measured) >= patience
    return found.status.get("status") == "finished"


def _same(args: argparse.Namespace, loaded: Loaded, inputs: dict[str, str], config: TrainConfig) -> Run | None:
    """Return the run to go on with: that of the same options and inputs, if its steps were to be saved."""
    from lovecraft.train.control import DIVERGED, SPIKED

    wanted = record.fingerprint(loaded.cls, loaded.root)
    named = _named(args, loaded)
    found = newest_same(loaded.root, loaded.name, wanted, inputs)
    if named is not None and record.fingerprint(record.replay(named.record, loaded.root), loaded.root) == wanted:
        found = named
        if changed := [what for what, content in found.record["inputs"].items() if inputs[what] != content]:
            raise RunError(
                f"{found.name} was trained on another {' and another '.join(changed)}",
                hint=f"`lc train {loaded.name}` starts a new run",
            )
    if found is None:
        return None
    if found.status.get("reason") == DIVERGED:
        raise RunError(
            f"{found.name} stopped because its loss was not finite, and would again",
            hint="change an option, such as --optimizer.lr, or give --new",
        )
    ratio = found.status.get("ratio", 0.0) if found.status.get("reason") == SPIKED else 0.0
    if config.stop_on_spike is not None and ratio > config.stop_on_spike:
        raise RunError(
            f"{found.name} stopped because a loss was {ratio:.2f} times its running mean, and would again",
            hint="raise --stop-on-spike above that, change another option, such as --optimizer.lr, or give --new",
        )
    return None if _saves_nothing(found) else found


def _named(args: argparse.Namespace, loaded: Loaded) -> Run | None:
    """Return the run of this workspace that the command line names; a record that lies elsewhere is none."""
    named = target.find_run(args.target)
    return Run(named) if named is not None and named.is_relative_to(loaded.root / "runs") else None


def _saves_nothing(found: Run) -> bool:
    return any(entry.path == "save" and entry.value is None for entry in record.options_of(found.record))


def _started(args: argparse.Namespace, loaded: Loaded, inputs: dict[str, str]) -> Run:
    """Make the next run, and say what differs from the one that is named, or else from the one before."""
    last = _named(args, loaded) or newest(loaded.root, loaded.name)
    written = record.make(loaded.cls, loaded.name, loaded.root, inputs, args.argv)
    chosen = create(loaded.root, loaded.name, written)
    console.say(f"\nrun {chosen.name}")
    if last is not None:
        before, now = last.record, chosen.record
        changes = diff.diff(record.options_of(before), record.options_of(now))
        what = [name for name, content in inputs.items() if before["inputs"].get(name) != content]
        console.say(f"compared with {last.name}:" + ("" if changes or what else " nothing differs"))
        if changes:
            console.changes(changes, sys.stderr)
        for name in what:
            console.say(f"another {name}")
    return chosen


def _resume(found: Run, loaded: Loaded) -> None:
    """Say where a run goes on, and write into its record what this command changes without changing the result."""
    from lovecraft.train import metrics

    step = max(checkpoints(found.directory), default=0)
    reached = max((row["step"] for row in metrics.read(found.directory)), default=0)
    lost = f" (steps up to {reached} were not saved)" if reached > step else ""
    console.say(f"resuming {found.name} at step {step} of {found.status.get('steps', '?')}{lost}")
    quiet = {row.path for row in rows(loaded.cls) if row.quiet}
    content = found.record
    before = {entry.path: entry for entry in record.options_of(content)}
    for earlier in (option for change in content["changes"] for option in change["options"]):
        before[earlier["path"]] = attrs.evolve(before[earlier["path"]], value=earlier["b"], origin=earlier["b_origin"])
    here = diff.entries(loaded.cls, loaded.root)
    changes = [c for c in diff.diff(before.values(), here) if c.path in quiet]
    if changes:
        console.changes(changes, sys.stderr)
        written = {"at": record.now(), "step": step, "options": [attrs.asdict(change) for change in changes]}
        record.write(found.directory / record.NAME, {**content, "changes": [*content["changes"], written]})


def _train(config: TrainConfig, chosen: Run, built: "Built", tokenizer: "Tokenizer") -> int:
    from lovecraft.train.control import PATIENCE
    from lovecraft.train.loop import train

    outcome = train(config, chosen, built, tokenizer)
    if outcome.reason == PATIENCE:
        console.say(f"finished early, after step {outcome.step} of {outcome.steps}: the held-out loss falls no more")
    if outcome.reason not in ("", PATIENCE):
        console.say(f"{chosen.name} stopped after step {outcome.step} of {outcome.steps} ({outcome.reason})")
        kept = max(checkpoints(chosen.directory), default=0)
        going_on = f"the same command goes on from step {kept}" if kept else "the same command begins again"
        console.say("nothing saved" if config.save is None else going_on)
    else:
        _sample(config, outcome, built, tokenizer)
        _summary(chosen)
    console.out(str(chosen.directory))
    return EXIT_CODES.get(outcome.reason, INTERRUPTED)


def _sample(config: TrainConfig, outcome: "Outcome", built: "Built", tokenizer: "Tokenizer") -> None:
    """Print a continuation of the beginning of a text, held out if one is, unless prompts were continued already."""
    from lovecraft.train.sample import continuation

    if config.eval is not None and config.eval.prompts and config.eval.split in built.splits:
        return
    blocks = built.splits.get("validation", built.splits["train"])
    prompt = tokenizer.decode(blocks[0].input_ids[:PROMPT_TOKENS].tolist())
    console.say(f"\n{prompt}{continuation(outcome.model, tokenizer, prompt, SAMPLED_TOKENS)}\n")


def _summary(found: Run) -> None:
    """Print the held-out loss before and after, and the two commands that serve the run and talk to it."""
    from lovecraft.train import metrics

    measured = [row for row in metrics.read(found.directory) if "split" in row]
    if measured:
        before, after = measured[0], measured[-1]
        same = (before["split"], before["tokens"]) == (after["split"], after["tokens"])  # a resume may change them
        first = f"{before['loss']:.4f} → " if same else ""
        console.say(f"{after['split']} loss {first}{after['loss']:.4f} after {after['step']} steps")
    if _saves_nothing(found):
        console.say("nothing saved")
        return
    best = metrics.best_step(measured)
    if best in checkpoints(found.directory) and best != measured[-1]["step"]:
        console.say(f"it was lowest after step {best}: `lc serve {found.name} --checkpoint best`")
    console.say(f"serve it, and talk to it:\n  lc serve {found.name}")
    console.say('  lc generate --url http://127.0.0.1:8000 "The old lighthouse"')
