"""`lc convert`: a foreign model file becomes a model directory."""

import argparse
from pathlib import Path

from lovecraft.cli import console
from lovecraft.errors import LovecraftError

USAGE = "SRC.gguf DST [--dtype float32|bfloat16|float16] [--dry-run]"
EXAMPLE = "lc convert SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2_135m --dtype bfloat16"
BARE = 2
TAKES_OPTIONS = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc convert`."""
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="type of the weights; auto takes what the file stores, float32 where it is quantised",
    )
    parser.add_argument("--dry-run", action="store_true", help="check the file and say what would be written")


def run(args: argparse.Namespace) -> int:
    """Convert SRC to DST; print what was done to stderr and the destination to stdout."""
    if len(args.bare) != 2:
        raise LovecraftError("lc convert takes a source and a destination", hint=f"for example: {EXAMPLE}")
    from lovecraft.convert import convert

    src, dst = map(Path, args.bare)
    done = convert(src, dst, dtype=args.dtype, dry_run=args.dry_run)
    verb, after = ("would write", "") if args.dry_run else ("wrote", f" in {console.duration(done.seconds)}, verified")
    because = f" ({done.reason})" if done.reason else ""
    console.say(f"{verb} {done.tensors} tensors, {console.size(done.bytes)} in {done.dtype}{because}{after}")
    console.out(str(dst))
    return 0
