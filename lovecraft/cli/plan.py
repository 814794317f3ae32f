"""Predict memory, steps, tokens and time of a training, before anything is loaded.

The time follows from the rate of a matrix product, which is measured here for a moment, or given with --tflops for
another machine. Exit code 1 says that it does not fit in memory.
"""

import argparse

from lovecraft.cli import console, target
from lovecraft.cli.words import within
from lovecraft.config.resolve import resolve

USAGE = "CONFIG|RUN [--tflops N] [--json] [--option value …]"
EXAMPLE = "lc plan finetune_lovecraft --batch-size 1"
KIND = "Train"
KNOBS = (
    "lower batch_size and raise accumulation, lower dataset.block_size or memory.loss_chunk, take Adafactor, "
    "set model.dtype to bfloat16"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc plan`."""
    parser.add_argument(
        "--tflops", type=within(float, 0.001), metavar="N", help="matrix product rate of the machine to plan for"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the byte table, whether it fits, and what the training takes."""
    config, loaded = target.train_config(args)
    from lovecraft.device import resolve_device
    from lovecraft.models import read_architecture
    from lovecraft.train.plan import measured_rate, plan
    from lovecraft.train.setup import base_directory, check_fit, training_dtype

    config, built, tokenizer = target.start(config, loaded, weights=False)
    arch = read_architecture(base_directory(config), resolve(config.model))
    check_fit(config, arch, tokenizer)
    device = resolve_device(config.device)
    dtype = training_dtype(config, device)
    rate = args.tflops * 1e12 if args.tflops else measured_rate(device, dtype)
    found = plan(config, arch, built.train_blocks(), dtype=dtype, device=device, rate=rate)
    if args.json:
        console.out_json(found.as_json())
        return 0 if found.bytes.fits else 1
    rows = [(name, console.size(count)) for name, count in found.as_json()["bytes"].items()]
    rows += [("peak", console.size(found.bytes.peak)), ("limit", console.size(found.bytes.limit))]
    console.table(rows, ("memory", "bytes"), styles=("bold",), right=("bytes",))
    counts = {"parameters": found.parameters, "steps": found.steps, "tokens": found.tokens}
    console.out(", ".join(f"{count:,} {what}" for what, count in counts.items()) + f", {found.flops:.3g} FLOPs")
    how = "as given" if args.tflops else "measured here"
    console.out(f"about {console.duration(found.seconds)}, from a matrix product at {rate / 1e12:.2f} TFLOP/s ({how})")
    console.out(f"checkpointing {found.bytes.checkpointing}, offload {found.bytes.offload}")
    console.out("it fits" if found.bytes.fits else f"it does not fit: {KNOBS}")
    return 0 if found.bytes.fits else 1
