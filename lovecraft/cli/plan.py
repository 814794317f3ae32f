"""Predict memory, steps, tokens and time of a training, before anything is loaded.

The time follows from the rate of a matrix product, which is measured here for a moment. For another machine give
--gpu, whose memory and rate are known, or --tflops. Exit code 1 says that it does not fit in memory; then the smallest
changes that make it fit are printed, as flags.
"""

import argparse
from typing import TYPE_CHECKING

from lovecraft.cli import console, target
from lovecraft.cli.words import within
from lovecraft.config.resolve import resolve
from lovecraft.train.gpus import GPUS

if TYPE_CHECKING:
    import torch

    from lovecraft.config.schema import TrainConfig
    from lovecraft.train.memory import Limits
    from lovecraft.train.plan import Plan

USAGE = "CONFIG|RUN [--gpu NAME] [--tflops N] [--json] [--option value …]"
EXAMPLE = "lc plan finetune_lovecraft --gpu 4090"
KIND = "Train"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc plan`."""
    parser.add_argument(
        "--tflops", type=within(float, 0.001), metavar="N", help="matrix product rate of the machine to plan for"
    )
    parser.add_argument("--gpu", choices=list(GPUS), help="plan for one GPU of this kind, whatever this machine has")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the byte table, whether it fits, and what the training takes."""
    config, loaded = target.train_config(args)
    from lovecraft.models import read_architecture
    from lovecraft.train.plan import measured_rate, plan
    from lovecraft.train.setup import base_directory, check_fit, remedy, training_dtype

    config, built, tokenizer = target.start(config, loaded, weights=False)
    arch = read_architecture(base_directory(config), resolve(config.model))
    check_fit(config, arch, tokenizer)
    device, limits = _machine(config, args.gpu)
    dtype = training_dtype(config, device)
    given = args.tflops or (GPUS[args.gpu].tflops if args.gpu else None)
    rate = given * 1e12 if given else measured_rate(device, dtype)
    found = plan(config, arch, built.train_blocks(), dtype=dtype, device=device, rate=rate, limits=limits)
    if args.json:
        console.out_json(found.as_json())
        return 0 if found.bytes.fits else 1
    source = "as given" if args.tflops else f"{args.gpu}'s data sheet" if args.gpu else "measured here"
    _show(found, f"{rate / 1e12:.2f} TFLOP/s ({source})")
    if found.bytes.fits:
        console.out("it fits")
        return 0
    console.out(f"does not fit: {found.bytes.need}\n{remedy(loaded.cls, arch, found.bytes)}")
    return 1


def _machine(config: "TrainConfig", gpu: str | None) -> "tuple[torch.device, Limits]":
    """Return the device and memory to plan for: of a kind of GPU, or of this machine."""
    import torch

    from lovecraft.device import resolve_device
    from lovecraft.train.memory import GIB, Limits, memory_limits

    if gpu is None:
        device = resolve_device(config.device)
        return device, memory_limits(resolve(config.memory), device)
    return torch.device("cuda"), Limits(int(min(GPUS[gpu].gib, config.memory.limit or GPUS[gpu].gib) * GIB))


def _show(found: "Plan", rate: str) -> None:
    rows = [(name, console.size(count)) for name, count in found.as_json()["bytes"].items()]
    rows += [("peak", console.size(found.bytes.peak)), ("limit", console.size(found.bytes.limits.device))]
    if found.bytes.host and found.bytes.device.type != "cpu":
        rows.append(("on the host", console.size(found.bytes.host)))
    console.table(rows, ("memory", "bytes"), styles=("bold",), right=("bytes",))
    counts = {"parameters": found.parameters, "steps": found.steps, "tokens": found.tokens}
    console.out(", ".join(f"{count:,} {what}" for what, count in counts.items()) + f", {found.flops:.3g} FLOPs")
    console.out(f"about {console.duration(found.seconds)}, from a matrix product at {rate}")
    console.out(found.bytes.choice)
