"""Serve a model over the OpenAI API.

Of a run it serves the latest checkpoint, of a config that of its newest run. The options are ServeConfig's; a `Serve`
class beside the config gives their values.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lovecraft.cli import console, options, target
from lovecraft.config.load import Loaded, load
from lovecraft.config.resolve import resolve
from lovecraft.config.schema import ModelConfig, ServeConfig, TrainConfig
from lovecraft.errors import ConfigError, RunError
from lovecraft.runs import Run, list_runs

USAGE = "CONFIG|RUN|MODEL [--checkpoint latest|best|STEP] [--also MODEL] [--option value …]"
EXAMPLE = "lc serve finetune_lovecraft --port 8001"
OPTIONS_OF = "ServeConfig"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc serve`."""
    add = parser.add_argument
    add("--checkpoint", default="latest", metavar="WHICH", help="latest, best or a step's number")
    add("--also", action="append", default=[], metavar="MODEL", help="serve this one too, under its own name")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    from lovecraft.serve import server, service

    found = [find_served(args.target, args.checkpoint), *(find_served(word, "latest") for word in args.also)]
    config = resolve(options.apply(found[0][2], args.options, None))
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("lovecraft").setLevel(logging.INFO)
    names = [config.name or found[0][1], *(name for _, name, _, _ in found[1:])]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two models are called {twice}", hint="--name gives the first one another name")

    def load_all() -> dict[str, service.Served]:
        served = {}
        for name, (directory, _, _, model) in zip(names, found, strict=True):
            console.say(f"loading {directory}")
            served[name] = service.load(directory, config, model)
        return served

    def ready(url: str, served: Mapping[str, service.Served]) -> None:
        for name, one in served.items():
            console.say(f"serving {name} at {url}/v1, context {one.engine.context} tokens")
        console.say(f"write with it in a browser: {url}; Ctrl-C ends it. Or try:")
        for line in _examples(url, names[0], config.api_key_file):
            console.say(f"  {line}")

    server.run(config, names, load_all, ready)
    if sys.stderr.isatty():
        console.say()  # the terminal's ^C stands at the beginning of a line
    return 0


def _examples(url: str, name: str, keys: Path | None) -> list[str]:
    """Return commands that ask the server from this machine."""
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")  # any address is none to ask
    flag = bearer = ""
    if keys:
        file = shlex.quote(str(keys))
        flag, bearer = f" --api-key-file {file}", f""" -H "Authorization: Bearer $(grep -m1 '^[^#]' {file})\""""
    body = f'{{"model": "{name}", "prompt": "The old lighthouse", "max_tokens": 64}}'
    return [
        f"lc generate --url {url}{flag} 'The old lighthouse'",
        f"curl {url}/v1/completions{bearer} -H 'Content-Type: application/json' -d '{body}'",
    ]


def find_served(word: str | None, checkpoint: str) -> tuple[Path, str, Any, ModelConfig | None]:
    """Return the model directory that `word` names, the name clients see, and the class of its serving options.

    Last come the options of a Model config, which change the model.

    Raises ConfigError, ModelError or RunError when there is nothing to serve.
    """
    if run := target.find_run(word):
        return target.find_runs_checkpoint(run, checkpoint), Run(run).name, ServeConfig, None
    if word and (model := target.find_model(word)):
        if model.suffix == ".gguf":
            return target.converted(model), model.stem, ServeConfig, None
        name = word.removeprefix("hf:").partition("@")[0] if word.startswith("hf:") else model.name
        return model, name, ServeConfig, None
    loaded = load(word)
    serve = getattr(sys.modules[loaded.cls.__module__], "Serve", ServeConfig)
    if issubclass(loaded.cls, ModelConfig):
        asked = resolve(loaded.cls)
        return target.model_directory(asked), loaded.name, serve, asked
    if issubclass(loaded.cls, TrainConfig):
        return _trained(loaded, checkpoint), loaded.name, serve, None
    raise ConfigError(
        f"{loaded.name} is not a model", hint="name a Train config with a run, a run, or a model directory"
    )


def _trained(loaded: Loaded, checkpoint: str) -> Path:
    """Return the checkpoint of a config's newest run that has one."""
    from lovecraft.train.state import checkpoint_directory

    for run in reversed(list_runs(loaded.root, loaded.name)):
        if found := checkpoint_directory(run, checkpoint):
            console.say(f"{loaded.name}: {run.name}")
            return found
    raise RunError(f"no run of {loaded.name} has a checkpoint ({checkpoint})", hint=f"lc train {loaded.name}")
