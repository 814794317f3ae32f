"""From the word on the command line to what it names: a config, a run, a model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lovecraft.cli import completion, console, options
from lovecraft.config import base, diff
from lovecraft.config import record as records
from lovecraft.config.diff import Change, Entry
from lovecraft.config.load import Loaded, find_root, listing, load
from lovecraft.config.modules import use
from lovecraft.config.override import override
from lovecraft.config.record import find_record
from lovecraft.config.record import find_run as find_run
from lovecraft.config.resolve import resolve
from lovecraft.config.schema import DatasetConfig, ModelConfig, TrainConfig
from lovecraft.data.options import check_options
from lovecraft.errors import ConfigError, DataError, LovecraftError, ModelError, RunError
from lovecraft.runs import Run, checkpoints

if TYPE_CHECKING:
    from lovecraft.data.build import Built
    from lovecraft.tokenizer import Tokenizer

HOW_TO_GET_A_TOKENIZER = (
    "give --tokenizer DIR (after a Train config --dataset.tokenizer DIR), or make the model that is configured; "
    "dataset.bpe = BPE trains one on the texts"
)
TOKENIZERS = ("tokenizer.json", "tekken.json", "tokenizer.model")
STARTER = "smollm2_135m"


def find_model(word: str | None, *, weights: bool = True) -> Path | None:
    """Return the model directory, or the GGUF file, that `word` names; None if it names none.

    A model of the hub is fetched, with its weights or without.
    """
    if not word:
        return None
    if word.startswith("hf:"):
        return local(word, weights=weights)
    path = Path(word)
    if path.suffix == ".gguf" and path.is_file():
        return path.resolve()
    return path.resolve() if (path / "config.json").is_file() else None


def load_config(args: argparse.Namespace) -> Loaded:
    """Return the config that the command line names, its options applied as the last subclass.

    A run, or a record, stands for the config that it recorded.
    """
    if file := find_record(args.target):
        record = records.read(file)
        _refuse_own(record, args)
        try:
            root = find_root(file.resolve())
        except ConfigError:  # a record from elsewhere is replayed in the workspace that one stands in
            root = find_root()
        use(root)
        cls = options.apply(records.replay(record, root), args.options, root)
        return Loaded(cls, record["config"], root)
    if (args.target or "").startswith("hf:") or find_model(args.target):
        raise ConfigError(f"{args.target} is a model, not a config", hint="`lc show` prints what it is")
    if args.target and Path(args.target).name.isdigit():
        raise RunError(f"no run {args.target!r}", hint="`lc runs` lists them all")
    if not args.target:
        list(options.read(args.options))  # a config behind the options is refused before the lack of one
    loaded = load(args.target)
    completion.remember(loaded.name, loaded.cls, loaded.root)
    return Loaded(options.apply(loaded.cls, args.options, loaded.root), loaded.name, loaded.root)


def recorded(args: argparse.Namespace) -> dict[str, Any] | None:
    """Return the record of the run that is named, if no option changes it; None otherwise."""
    file = find_record(args.target)
    return records.read(file) if file and not args.options else None


def _refuse_own(record: dict[str, Any], args: argparse.Namespace) -> None:
    """Raise ConfigError for options that the recorded config itself declared: what followed from them is replayed."""
    asked = {flag.path for flag in options.read([*args.options, "--" + (getattr(args, "why", None) or "")])}
    if own := sorted(asked.intersection(record["own"])):
        raise ConfigError(
            f"{own[0]} is an option of the config's own; a record keeps its value, and replays only what followed",
            hint=f"give it to the config: {record['config']}",
        )


def entries(args: argparse.Namespace) -> tuple[str, list[Entry]]:
    """Return the kind of what is named, and its options: a run's as recorded, a config's as resolved now."""
    if record := recorded(args):
        return record["class"], records.options_of(record)
    loaded = load_config(args)
    return base.library_class(loaded.cls).__name__, diff.entries(loaded.cls, loaded.root)


def differences(a: argparse.Namespace, b: argparse.Namespace) -> list[Change]:
    """Return what differs between what two command lines name. Raises ConfigError where that is of two kinds."""
    (kind, left), (other, right) = entries(a), entries(b)
    if kind != other:
        raise ConfigError(
            f"{a.target} is a {kind}, {b.target} a {other}", hint="compare two of one kind; CONFIG:Class names a class"
        )
    return diff.diff(left, right)


def train_config(args: argparse.Namespace) -> tuple[TrainConfig, Loaded]:
    """Return the resolved training config that the command line names. Raises ConfigError if it is of another kind."""
    loaded = load_config(args)
    if not issubclass(loaded.cls, TrainConfig):
        raise ConfigError(
            f"{loaded.name} is a {_kind(loaded.cls)} config; this command takes a Train config",
            hint=_how_to_train(loaded),
        )
    config: TrainConfig = resolve(loaded.cls)
    check_options(resolve(config.dataset))
    check_model(resolve(config.model))
    return config, loaded


def dataset_config(args: argparse.Namespace) -> tuple[DatasetConfig, Loaded]:
    """Return the resolved dataset config that the command line names, or that of a training config."""
    loaded = load_config(args)
    config: Any = resolve(loaded.cls)
    if isinstance(config, TrainConfig):
        config = config.dataset
    if not isinstance(config, DatasetConfig):
        raise ConfigError(f"{loaded.name} is a {_kind(loaded.cls)} config; this command takes a Dataset or a Train")
    check_options(config)
    return config, loaded


def _how_to_train(loaded: Loaded) -> str:
    """Return the command that trains on a dataset, with a Train config of the workspace; else where configs are."""
    if issubclass(loaded.cls, DatasetConfig):
        for item in listing(loaded.root):
            if "Train" in item.classes:
                return f"`lc train {item.name.removesuffix('/default')} --dataset {loaded.name}` trains on it"
    return "`lc ls` lists the configs"


def _kind(cls: Any) -> str:
    return str(base.library_class(cls).__name__).removesuffix("Config")


def check_model(model: ModelConfig) -> None:
    """Raise ConfigError where a model has neither or both of `path` and `init`."""
    if model.path is None and model.init is None:
        hint = "set path to a model, or init = Init to start from a new one"
        raise ConfigError("neither model.path nor model.init is set", hint=hint)
    if model.path is not None and model.init is not None:
        hint = "path = None starts from a new model, init = None from the one that path names"
        raise ConfigError("model.path and model.init are both set", hint=hint)


def model_directory(model: ModelConfig, *, weights: bool = True) -> Path:
    """Return the directory of a model that `path` names, fetched or converted if need be.

    Raises ConfigError for a new model, which needs a dataset's tokenizer, ModelError when there is no such directory.
    """
    check_model(model)
    if model.path is None:
        hint = "name the Train config, or train it and name the run"
        raise ConfigError("a new model takes its vocabulary from a dataset, and here is none", hint=hint)
    path = local(model.path, weights=weights)
    if path.suffix == ".gguf" and path.is_file():
        return converted(path)
    if not (path / "config.json").is_file():
        raise ModelError(f"model.path {path} is not a model directory: it has no config.json", hint=how_to_get(path))
    return path


def local(location: Path | str, *, weights: bool = True) -> Path:
    """Return where a location is on this machine; what lies on the hub is fetched, and its commit said."""
    if not str(location).startswith("hf:"):
        return Path(location)
    from lovecraft.hub import WEIGHTS, fetch

    path = fetch(str(location), WEIGHTS if weights else ())
    if weights:
        console.say(f"{location} at commit {path.name[:12]}")
    return path


def converted(gguf: Path) -> Path:
    """Return the model directory of a GGUF file, which the workspace, or else the user, has once of each content."""
    from lovecraft import paths
    from lovecraft.convert import convert
    from lovecraft.files import content_hash, locked

    try:
        cache = find_root() / ".lc" / "cache"
    except ConfigError:
        cache = paths.cache()
    final = cache / "models" / content_hash(gguf, cache / "hashes.json")[:16]
    with locked(final, "model"):
        if not final.exists():
            console.say(f"converting {gguf.name} once, to {final}")
            convert(gguf, final)
    return final


def start(config: TrainConfig, loaded: Loaded, *, weights: bool = True) -> "tuple[TrainConfig, Built, Tokenizer]":
    """Return a config whose model lies in a directory, made if need be, with the blocks and their tokenizer.

    Without `weights` the directory may lack them.
    """
    model = resolve(config.model)
    directory = None if model.init is not None else model_directory(model, weights=weights)
    built, tokenizer = build_blocks(resolve(config.dataset), loaded, directory)
    if model.init is not None:
        from lovecraft.models import read_architecture
        from lovecraft.models.architecture import parameter_count
        from lovecraft.train.scratch import build_model

        directory = build_model(resolve(model.init), tokenizer, config.seed, loaded.cache, weights=weights)
        arch = read_architecture(directory)
        rows = f"{arch.vocab_size:,} rows for the tokenizer's {tokenizer.vocab_size:,} tokens"
        console.say(f"a new model of {parameter_count(arch):,} parameters, {rows}")
    return resolve(override(loaded.cls, {"model.path": directory, "model.init": None})), built, tokenizer


def how_to_get(model: Path) -> str:
    """Return the command that gets a model that is missing."""
    if model.name == STARTER:
        return "`make model` fetches the starter model"
    return "`lc convert` makes one of a GGUF; model.path or --model.path names another"


def tokenizer_path(loaded: Loaded) -> Path | None:
    """Return a dataset's tokenizer directory: its own, trained if need be, the config's model, the workspace's Model.

    None where none of them is on this machine.
    """
    config: Any = resolve(loaded.cls)
    dataset: Any = config.dataset if isinstance(config, TrainConfig) else config
    if dataset.bpe is not None:
        from lovecraft.data.bpe import build_tokenizer

        return build_tokenizer(dataset, loaded.cache)
    if dataset.tokenizer is not None:
        return local(dataset.tokenizer, weights=False)
    model = config.model if isinstance(config, TrainConfig) else workspace_model()
    found = None if model is None or model.path is None else local(model.path, weights=False)
    return found if found is not None and any((found / name).is_file() for name in TOKENIZERS) else None


def load_tokenizer(loaded: Loaded, model: Path | None = None) -> "Tokenizer":
    """Return the tokenizer of a config's dataset, or else that of `model`. Raises DataError if there is neither."""
    from lovecraft import tokenizer

    path = tokenizer_path(loaded) or model
    if path is None:
        config: Any = resolve(loaded.cls)
        if isinstance(config, TrainConfig) and config.model.path is not None:
            model_directory(resolve(config.model))  # which may be what is missing
        raise DataError("this needs tokens, and there is no tokenizer", hint=HOW_TO_GET_A_TOKENIZER)
    return tokenizer.load_tokenizer(path)


def build_blocks(dataset: DatasetConfig, loaded: Loaded, model: Path | None = None) -> "tuple[Built, Tokenizer]":
    """Return the token blocks of a config's dataset, built where they are stale, and the tokenizer they are of."""
    from lovecraft.data.build import build

    tokenizer = load_tokenizer(loaded, model)
    return build(dataset, tokenizer, loaded.cache), tokenizer


def workspace_model() -> ModelConfig | None:
    """Return the workspace's own `Model`, resolved; None if workspace.py defines none."""
    import importlib

    model = getattr(importlib.import_module("workspace"), "Model", None)
    return resolve(model) if isinstance(model, type) and issubclass(model, ModelConfig) else None


def find_runs_checkpoint(run: Path, which: str = "latest") -> Path:
    """Return a run's checkpoint directory: `latest`, `best`, or a step's number.

    Raises LovecraftError when the run has none.
    """
    from lovecraft.train.state import checkpoint_directory

    found = checkpoint_directory(Run(run), which)
    if found is None:
        there, kind = ", ".join(map(str, checkpoints(run))), "" if which == "latest" else f"{which} "
        hint = f"it has {there}" if there else f"`lc runs {Run(run).name}` shows how far it came"
        raise LovecraftError(f"{Run(run).name} has no {kind}checkpoint", hint=hint)
    return found
