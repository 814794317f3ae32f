"""What the server serves, and the state it is in."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

from lovecraft.chat_template import ChatTemplate, find_template
from lovecraft.config.schema import ModelConfig, ServeConfig
from lovecraft.engine.engine import Engine
from lovecraft.engine.request import Policy
from lovecraft.errors import ModelError, RequestError
from lovecraft.serve.metrics import Metrics
from lovecraft.tokenizer import Tokenizer, load_tokenizer

log = logging.getLogger(__name__)

STUCK_SECONDS = 60
"""Without a step while there is work: something is wrong with the engine."""


@attrs.frozen
class Served:
    """A loaded model."""

    tokenizer: Tokenizer
    engine: Engine
    template: ChatTemplate | None = None


def load(path: Path, config: ServeConfig, asked: ModelConfig | None = None) -> Served:
    """Load a model directory, as the options `asked` for change it, and start its engine."""
    from lovecraft.engine import generate

    tokenizer = load_tokenizer(path)
    batch = generate.load(
        path,
        tokenizer,
        device=config.device,
        dtype=config.dtype,
        max_context=config.max_context,
        model=asked,
        slots=config.max_concurrent,
    )
    return Served(tokenizer, Engine(batch, max_queue=config.max_queue), _template(path))


def _template(path: Path) -> ChatTemplate | None:
    try:
        return find_template(path)
    except ModelError as error:  # texts can be continued all the same
        log.warning("%s; chats are refused", error.message)
        return None


@attrs.define
class Service:
    """The models, by the names that clients give. `served` is filled in when all of them are loaded."""

    names: Sequence[str]
    policy: Policy
    created: int = attrs.field(factory=lambda: int(time.time()))
    served: Mapping[str, Served] = attrs.field(factory=dict)
    draining: bool = False
    metrics: Metrics = attrs.field(factory=Metrics)

    @property
    def status(self) -> Literal["loading", "ready", "draining", "stuck"]:
        """What `/health` says."""
        if self.draining or not self.served:
            return "draining" if self.draining else "loading"
        engines = [one.engine for one in self.served.values() if one.engine.jobs]
        return "stuck" if any(time.monotonic() - one.beat > STUCK_SECONDS for one in engines) else "ready"

    def find(self, name: str | None) -> tuple[str, Served]:
        """Return a model and its name, the first one without a name. Raises RequestError where there is none."""
        name = self.names[0] if name is None else name
        if name not in self.served:
            raise RequestError(
                f"the model {name!r} does not exist; this server has {', '.join(map(repr, self.served))}",
                param="model",
                code="model_not_found",
                status=404,
            )
        return name, self.served[name]
