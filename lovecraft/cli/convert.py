"""Convert a model: between Hugging Face directories, GGUF files, the hub, pickled weights and runs.

SRC is a model directory, a GGUF file, hf:org/name, a run or a checkpoint. DST is a new model directory, or a new GGUF
file where its name ends in .gguf. What is written is read back and compared before it gets its name.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lovecraft.cli import console, options
from lovecraft.cli.target import find_run, find_runs_checkpoint
from lovecraft.cli.words import within
from lovecraft.config.resolve import resolve
from lovecraft.config.schema import ModelConfig, RopeScaling
from lovecraft.errors import LovecraftError

if TYPE_CHECKING:
    from lovecraft.convert import Conversion

USAGE = "SRC DST [--dtype TYPE] [--type TYPE] [--max-context N] [--rope-scaling KIND,factor=N] [--shard-size SIZE]"
EXAMPLE = "lc convert models/smollm2_135m smollm2.gguf --type q8_0"
BARE = 2
TAKES_OPTIONS = False
UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}
SMALLEST_SHARD = 10**6
HUB_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
KINDS = ("linear", "dynamic", "llama3", "yarn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc convert`."""
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="type of a directory's weights; auto takes what the source stores, float32 where it is quantised",
    )
    parser.add_argument(
        "--type",
        choices=("f16", "bf16", "q8_0"),
        help="type of a GGUF's matrices; without it f16 where the source is float16, else bf16",
    )
    parser.add_argument(
        "--max-context", type=within(int, 1), metavar="N", help="the context to write into the configuration"
    )
    parser.add_argument(
        "--rope-scaling",
        type=rope_scaling,
        metavar="KIND[,NAME=N]",
        help=f"stretch positions: {', '.join(KINDS)}, such as yarn,factor=4; names as of --model.rope-scaling",
    )
    parser.add_argument("--shard-size", type=shard_size, metavar="SIZE", help="largest weight file: 2GB, 500MB, 1GiB")
    parser.add_argument("--checkpoint", metavar="WHICH", help="of a run: latest, best or a step's number")
    parser.add_argument("--dry-run", action="store_true", help="check the source and say what would be written")


def run(args: argparse.Namespace) -> int:
    """Convert SRC to DST; print what was done to stderr and the destination to stdout."""
    if len(args.bare) != 2:
        raise LovecraftError("lc convert takes a source and a destination", hint=f"for example: {EXAMPLE}")
    src, dst = _source(args.bare[0], args.checkpoint), Path(args.bare[1])
    for name in ("dtype", "shard_size") if dst.suffix == ".gguf" else ("type",):
        if getattr(args, name) is not None:
            hint = "a GGUF is one file, and has --type" if dst.suffix == ".gguf" else "DST must end in .gguf for that"
            raise LovecraftError(f"{options.flag_of(name)} has no effect on {dst}", hint=hint)
    from lovecraft.checkpoint import SHARD_BYTES
    from lovecraft.convert import convert

    try:
        done = convert(
            src,
            dst,
            dtype=args.dtype or "auto",
            kind=args.type or "auto",
            max_context=args.max_context,
            scaling=args.rope_scaling,
            shard_bytes=args.shard_size or SHARD_BYTES,
            dry_run=args.dry_run,
            tell=_progress,
        )
    finally:
        _progress("", 0, 0)
    _report(done, args.dry_run)
    console.out(str(dst))
    return 0


def shard_size(text: str) -> int:
    """Return the bytes that a size like 2GB is, for argparse."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(\w+)", text)
    size = int(float(match[1]) * UNITS.get(match[2], 0)) if match else 0
    if size < SMALLEST_SHARD:
        raise argparse.ArgumentTypeError(f"expected a size from 1MB with {', '.join(UNITS)}, not {text!r}")
    return size


def rope_scaling(text: str) -> RopeScaling:
    """Return the scaling that a text like `yarn,factor=4` describes: a section of ModelConfig in short."""
    kind, *pairs = text.split(",")
    if kind not in KINDS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(KINDS)}, not {kind!r}")
    flags = [f"--rope-scaling.{pair}" for pair in pairs]
    cls: type[ModelConfig] = options.apply(ModelConfig, ["--rope-scaling", f"{kind.capitalize()}Scaling", *flags], None)
    scaling = resolve(cls).rope_scaling
    assert isinstance(scaling, RopeScaling)
    return scaling


def _source(word: str, checkpoint: str | None) -> Path:
    """Return the model directory or the GGUF file that SRC names."""
    if run := find_run(word):
        return find_runs_checkpoint(run, checkpoint or "latest")
    if checkpoint is not None:
        raise LovecraftError(f"--checkpoint has no effect on {word}", hint="it chooses among the checkpoints of a run")
    if word.startswith("hf:"):
        from lovecraft.hub import fetch

        return fetch(word, HUB_WEIGHTS)
    return Path(word)


def _report(done: "Conversion", dry_run: bool) -> None:
    verb, after = ("would write", "") if dry_run else ("wrote", f" in {console.duration(done.seconds)}, verified")
    because, files = f" ({done.reason})" if done.reason else "", len(done.files)
    size = console.size(sum(done.files.values()))
    several = f", {files} files" if files > 1 else ""
    console.say(f"{verb} {done.tensors} tensors, {size} in {done.dtype}{because}{several}{after}")
    if dry_run and files > 1:
        for name, size in done.files.items():
            console.say(f"  {name}  {console.size(size)}")
    if done.difference is not None:
        console.say(f"logits of source and result differ by {done.difference:.2%} of their spread")


def _progress(what: str, done: int, total: int) -> None:
    """Show what is done at a terminal, in one line; with nothing to say, clear it."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{what} {done} of {total}\x1b[K" if what else "\r\x1b[K")
        sys.stderr.flush()
