"""What the server serves, and the state it is in."""

import functools
import time
from pathlib import Path
from typing import Literal

import attrs

from lovecraft.config.schema import ModelConfig, ServeConfig
from lovecraft.engine.engine import Engine
from lovecraft.engine.request import Policy
from lovecraft.errors import RequestError
from lovecraft.tokenizer import Tokenizer, load_tokenizer


@attrs.frozen
class Served:
    """A loaded model."""

    tokenizer: Tokenizer
    engine: Engine


def load(path: Path, config: ServeConfig, asked: ModelConfig | None = None) -> Served:
    """Load a model directory, as the options `asked` for change it, and start its engine."""
    from lovecraft.engine import generate

    tokenizer = load_tokenizer(path)
    model, slot = generate.load(
        path, device=config.device, dtype=config.dtype, max_context=config.max_context, model=asked
    )
    steps = functools.partial(generate.generate, model, slot, vocabulary=tokenizer.vocab_size)
    return Served(tokenizer, Engine(steps, context=slot.context, max_queue=config.max_queue))


@attrs.define
class Service:
    """One model under one name. `served` is filled in when it is loaded."""

    name: str
    policy: Policy
    created: int = attrs.field(factory=lambda: int(time.time()))
    served: Served | None = None
    draining: bool = False

    @property
    def status(self) -> Literal["loading", "ready", "draining"]:
        """What `/health` says."""
        return "draining" if self.draining else "ready" if self.served else "loading"

    @property
    def model(self) -> Served:
        """What is served; the guard lets no request in before it is there."""
        assert self.served is not None
        return self.served

    def check_name(self, name: str) -> None:
        """Raise RequestError unless `name` is the served model's."""
        if name != self.name:
            raise RequestError(
                f"the model {name!r} does not exist; this server has {self.name!r}",
                param="model",
                code="model_not_found",
                status=404,
            )
