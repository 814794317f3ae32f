"""Measure the loss on held-out text, each token counted once.

Of a config the model that it starts from, of a run its checkpoint, of a model directory with `--dataset CONFIG`.
"""

import argparse

from lovecraft.cli import console, options, target
from lovecraft.config.load import Loaded, find_root
from lovecraft.config.modules import use
from lovecraft.config.override import override
from lovecraft.config.resolve import resolve
from lovecraft.config.schema import ModelConfig, TrainConfig
from lovecraft.errors import DataError

USAGE = "CONFIG|RUN|MODEL [--split S] [--checkpoint latest|best|STEP] [--json] [--option value …]"
EXAMPLE = "lc eval models/smollm2_135m --dataset lovecraft_dataset/k4 --split test"
KIND = "Train"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc eval`."""
    parser.add_argument("--split", choices=("train", "validation", "test"), help="which split; eval.split otherwise")
    parser.add_argument("--checkpoint", default="latest", metavar="WHICH", help="of a run: latest, best or a step")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print loss, perplexity, bits per byte, and how many tokens and documents they are of."""
    run_directory = target.find_run(args.target)
    config, loaded = target.train_config(args) if run_directory else _what(args)
    from lovecraft.checkpoint import load_model
    from lovecraft.device import resolve_device, resolve_dtype
    from lovecraft.models import read_architecture
    from lovecraft.train.evaluate import evaluate
    from lovecraft.train.setup import base_directory, check_fit

    if run_directory:
        path, asked = target.find_runs_checkpoint(run_directory, args.checkpoint), None  # as it was trained
        built, tokenizer = target.build_blocks(resolve(config.dataset), loaded, path)
    else:
        config, built, tokenizer = target.start(config, loaded)
        path, asked = base_directory(config), resolve(config.model)
    console.say(f"measuring {path}")
    split = args.split or ("validation" if config.eval is None else config.eval.split)
    if split not in built.splits:
        raise DataError(f"the dataset has no {split} split", hint=f"it has {', '.join(built.splits)}")
    arch = read_architecture(path, asked)
    check_fit(config, arch, tokenizer)
    device = resolve_device(config.device)
    found = evaluate(
        load_model(path, dtype=resolve_dtype(config.model.dtype, device), device=device, architecture=arch),
        built.splits[split],
        eos_id=tokenizer.eos_id,
        batch_size=config.batch_size,
        loss_chunk=config.memory.loss_chunk,
        max_blocks=None if config.eval is None else config.eval.max_blocks,
    )
    if args.json:
        names = ("loss", "perplexity", "bits_per_byte", "tokens", "documents")
        console.out_json({name: getattr(found, name) for name in names})
        return 0
    per_byte = "–" if found.bits_per_byte is None else f"{found.bits_per_byte:.4f}"
    cells = [f"{found.loss:.4f}", f"{found.perplexity:.2f}", per_byte, f"{found.tokens:,}", f"{found.documents:,}"]
    heads = ("split", "loss", "perplexity", "bits per byte", "tokens", "documents")
    console.table([[split, *cells]], heads, styles=("bold",), right=heads[1:])
    return 0


def _what(args: argparse.Namespace) -> tuple[TrainConfig, Loaded]:
    """Return the config that says how to measure what is no run, and where it is from."""
    model = target.find_model(args.target)
    if model is None:
        config, loaded = target.train_config(args)
        console.say(f"this is what {loaded.name} starts from; `lc eval {loaded.name}/NNN` measures a run")
        return config, loaded
    if not any(word.partition("=")[0] == "--dataset" for word in args.options):
        raise DataError("a model alone has no text to be measured on", hint="add --dataset CONFIG")
    root = find_root()
    use(root)
    bare = override(TrainConfig, {"model": override(ModelConfig, {"path": model})})
    loaded = Loaded(options.apply(bare, args.options, root), str(args.target), root)
    return resolve(loaded.cls), loaded
