"""Bring the parts of a config up to date, print what they are and where: tokenizer, token blocks, model directory.

With --dry-run nothing is built: it says whether each part is fresh or stale, and which option or input made it so.
"""

import argparse
from pathlib import Path
from typing import Any

import attrs

from lovecraft.cli import console, target
from lovecraft.config import base
from lovecraft.config.diff import Change
from lovecraft.config.load import Loaded
from lovecraft.config.render import text_of
from lovecraft.config.resolve import resolve, rows
from lovecraft.config.schema import DatasetConfig, Init, ModelConfig, TrainConfig
from lovecraft.errors import ConfigError

USAGE = "CONFIG [tokenizer | dataset | model] [--dry-run] [--json] [--option value …]"
EXAMPLE = "lc build finetune_lovecraft dataset --dry-run"
BARE = 2
PARTS = {"tokenizer": "bpe.vocab_size", "dataset": "block_size", "model": "path"}
"""The parts of a config, each by an option that a config with it has."""
FILES_NAMED = 5  # of those that changed in the corpus


@attrs.frozen
class Part:
    """What a dry run says of one part. `state` is fresh, stale, damaged or "never built"."""

    part: str
    state: str
    directory: str
    changes: list[Change]
    """The inputs that differ from those of the closest one of its kind there is."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc build`."""
    parser.add_argument("--dry-run", action="store_true", help="say what is fresh and what is stale; build nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Build, or judge, the parts; a dry run exits 1 when something is stale."""
    loaded = target.load_config(args)
    made = {"tokenizer": _tokenizer, "dataset": _dataset, "model": _model}
    parts = [made[name](config, loaded, dry=args.dry_run) for name, config in _configs(args, loaded).items()]
    if args.json:
        console.out_json([attrs.asdict(part) for part in parts])
    else:
        console.out("\n".join(line for part in parts for line in (_lines(part) if args.dry_run else [part.directory])))
    return 0 if all(part.state == "fresh" for part in parts) else 1


def _configs(args: argparse.Namespace, loaded: Loaded) -> dict[str, Any]:
    """Return the parts of the config by name, or the one that is asked for."""
    config: Any = resolve(loaded.cls)
    known = {"dataset": DatasetConfig, "model": ModelConfig}
    if isinstance(config, TrainConfig):
        found = {name: resolve(getattr(config, name)) for name in known}
    else:
        found = {name: config for name, kind in known.items() if isinstance(config, kind)}
    dataset = found.get("dataset")
    if isinstance(dataset, DatasetConfig) and dataset.bpe is not None:
        found = {"tokenizer": dataset, **found}
    if not found:
        raise ConfigError(f"{loaded.name} has nothing to build", hint="name a Train, Dataset or Model config")
    if len(args.bare) < 2:
        return found
    if args.bare[1] not in found:
        raise ConfigError(f"{loaded.name} has no part {args.bare[1]!r}", hint=f"parts: {', '.join(found)}")
    return {args.bare[1]: found[args.bare[1]]}


def _tokenizer(dataset: DatasetConfig, loaded: Loaded, *, dry: bool) -> Part:
    from lovecraft.data import bpe, build

    if not dry:
        path = bpe.build_tokenizer(dataset, loaded.cache)
        console.say(f"tokenizer: {target.load_tokenizer(loaded).vocab_size:,} tokens")
        return Part("tokenizer", "fresh", str(path), [])
    inputs = bpe.tokenizer_inputs(dataset, loaded.cache)
    directory = loaded.cache / bpe.KEPT / build.cache_key(inputs)
    if directory.exists():
        return Part("tokenizer", "fresh", str(directory), [])
    return _stale("tokenizer", inputs, directory, _origins(loaded), loaded.root)


def _dataset(dataset: DatasetConfig, loaded: Loaded, *, dry: bool) -> Part:
    from lovecraft.data import build

    if dry and dataset.bpe is not None and (own := _tokenizer(dataset, loaded, dry=True)).state != "fresh":
        before = build.closest_inputs(build.corpus_inputs(dataset, loaded.cache), loaded.cache / "blocks")
        # of a tokenizer that is still to be trained
        return attrs.evolve(own, part="dataset", directory="") if before else Part("dataset", "never built", "", [])
    tokenizer = target.load_tokenizer(loaded)
    if not dry:
        built = build.build(dataset, tokenizer, loaded.cache)
        console.say("dataset: " + ", ".join(f"{len(b):,} {name} blocks" for name, b in built.splits.items()))
        return Part("dataset", "fresh", str(built.directory), [])
    build.check(dataset, tokenizer)
    inputs = build.build_inputs(dataset, tokenizer, loaded.cache)
    directory = loaded.cache / "blocks" / build.cache_key(inputs)
    if directory.exists():
        return Part("dataset", "fresh" if build.find(directory) else "damaged", str(directory), [])
    return _stale("dataset", inputs, directory, _origins(loaded, tokenizer.path), loaded.root, stride=dataset.stride)


def _stale(
    part: str, inputs: dict[str, Any], directory: Path, origins: dict[str, str], root: Path, **options: Any
) -> Part:
    """Return what is not there yet, with what differs from the closest that is; `options` are as the user gave them."""
    from lovecraft.data import build

    before = build.closest_inputs(inputs, directory.parent)
    if before is None:
        return Part(part, "never built", str(directory), [])
    names = build.differing(before, inputs)
    before, now = ({**side, "source": side["source"].replace(f"{root}/", "//")} for side in (before, inputs | options))
    changes = [Change(name, before.get(name), now.get(name), "", origins[name.partition("/")[0]]) for name in names]
    return Part(part, "stale", str(directory), changes)


def _origins(loaded: Loaded, tokenizer: Path | None = None) -> dict[str, str]:
    """Return where each input of a dataset's blocks, or of its own tokenizer, comes from."""
    prefix = "dataset." if issubclass(loaded.cls, TrainConfig) else ""
    found = {row.path.removeprefix(prefix): row for row in rows(loaded.cls) if row.path.startswith(prefix)}
    places = {name: base.place(row.origin) for name, row in found.items()}
    contents = {"corpus": found["source"].value, "tokenizer": tokenizer, "chat_template": tokenizer}
    contents |= {"add_bos": tokenizer} if found["add_bos"].value is None else {}  # its habit
    names = {"version": "lovecraft", "tokenizers": "tokenizers"}
    return places | names | {name: text_of(path, loaded.root) for name, path in contents.items()}


def _model(model: ModelConfig, loaded: Loaded, *, dry: bool) -> Part:
    from lovecraft.models.architecture import parameter_count

    path = target.model_directory(model) if model.init is None else _new_model(resolve(model.init), loaded, dry=dry)
    if path is None or not path.exists():
        return Part("model", "never built", str(path or ""), [])
    from lovecraft.checkpoint import verify

    arch = verify(path)
    console.say(f"model: {arch.model_type}, {parameter_count(arch):,} parameters")
    return Part("model", "fresh", str(path), [])


def _new_model(init: Init, loaded: Loaded, *, dry: bool) -> Path | None:
    """Return the directory of a model with random weights, made unless `dry`; None where even its name is unknown."""
    config: Any = resolve(loaded.cls)
    if not isinstance(config, TrainConfig):
        return target.model_directory(config)  # which says why not
    if not dry:
        config, *_ = target.start(config, loaded)
        return target.model_directory(resolve(config.model))
    if config.dataset.bpe is not None and _tokenizer(resolve(config.dataset), loaded, dry=True).state != "fresh":
        return None  # of a tokenizer that is still to be trained
    from lovecraft.train.scratch import model_path

    return model_path(init, target.load_tokenizer(loaded), config.seed, loaded.cache)


def _lines(part: Part) -> list[str]:
    """Return what a dry run prints of a part: that it is fresh, and where, or all that made it stale."""
    if part.state == "fresh":
        return [f"{part.part}  fresh  {part.directory}"]
    files = [_reason(change) for change in part.changes if "/" in change.path]
    more = [f"corpus: and {len(files) - FILES_NAMED:,} more files"] * (len(files) > FILES_NAMED)
    options = [_reason(change) for change in part.changes if "/" not in change.path]
    return [f"{part.part}  stale  {why}" for why in [*options, *files[:FILES_NAMED], *more] or [part.state]]


def _reason(change: Change) -> str:
    name, _, file = change.path.partition("/")
    what = f"{text_of(change.a)} → {text_of(change.b)}"
    if name == "tokenizer":
        what = "content has changed"
    elif file:
        what = f"{file} {'added' if change.a is None else 'removed' if change.b is None else 'has changed'}"
    return f"{name}: {what}  ({change.b_origin})"
