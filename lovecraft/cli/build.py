"""Bring a part of a config up to date, print what it is and where: the token blocks of its dataset.

With --dry-run nothing is built: it says whether the part is fresh or stale, and which option or input made it so.
"""

import argparse

from lovecraft.cli import console, target
from lovecraft.errors import ConfigError

USAGE = "CONFIG [dataset] [--dry-run] [--option value …]"
EXAMPLE = "lc build finetune_lovecraft dataset --dry-run"
BARE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc build`."""
    parser.add_argument("--dry-run", action="store_true", help="say what is fresh and what is stale; build nothing")


def run(args: argparse.Namespace) -> int:
    """Build, or judge, the blocks; a dry run exits 1 when something is stale."""
    if len(args.bare) == 2 and args.bare[1] != "dataset":
        raise ConfigError(f"no part {args.bare[1]!r} can be built", hint="parts: dataset")
    dataset, loaded = target.dataset_config(args)
    from lovecraft.data import build

    tokenizer = target.load_tokenizer(loaded)
    inputs = build.build_inputs(dataset, tokenizer, build.corpus_hash(dataset, loaded.cache))
    directory = loaded.cache / "blocks" / build.cache_key(inputs)
    if not args.dry_run:
        blocks = build.build(dataset, tokenizer, loaded.cache).splits
        console.say("dataset: " + ", ".join(f"{len(b):,} {name} blocks" for name, b in blocks.items()))
        console.out(str(directory))
        return 0
    if directory.exists():
        console.out(f"dataset  fresh  {directory}")
        return 0
    before = build.closest_build(inputs, loaded.cache)
    reasons = (
        ["never built"]
        if before is None
        else [_change(k, before.get(k), v) for k, v in inputs.items() if before.get(k) != v]
    )
    console.out("\n".join(f"dataset  stale  {reason}" for reason in reasons))
    return 1


def _change(name: str, before: object, now: object) -> str:
    if name in ("corpus", "tokenizer"):
        return f"{name}: content has changed"
    return f"{'stride' if name == 'shared' else name}: {before} → {now}"
