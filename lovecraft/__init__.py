"""lovecraft: a declarative build tool for finetuning language models, configured in Python."""

from typing import Any

from lovecraft.config.base import Config, derived
from lovecraft.config.load import load as _load
from lovecraft.config.override import override
from lovecraft.config.resolve import resolve
from lovecraft.config.schema import (
    SGD,
    WSD,
    Adafactor,
    AdamW,
    Constant,
    Cosine,
    DatasetConfig,
    Eval,
    Linear,
    Log,
    Memory,
    ModelConfig,
    OptimizerConfig,
    Save,
    ScheduleConfig,
    ServeConfig,
    TrainConfig,
)
from lovecraft.errors import LovecraftError

__version__ = "0.1.0"
__all__ = [
    "SGD",
    "WSD",
    "Adafactor",
    "AdamW",
    "Config",
    "Constant",
    "Cosine",
    "DatasetConfig",
    "Eval",
    "Linear",
    "Log",
    "LovecraftError",
    "Memory",
    "ModelConfig",
    "OptimizerConfig",
    "Save",
    "ScheduleConfig",
    "ServeConfig",
    "TrainConfig",
    "derived",
    "load",
    "override",
    "resolve",
]


def load(name: str | None = None) -> Any:
    """Return the config class that `name` means, as on the command line: `load("finetune_lovecraft/default")`."""
    return _load(name).cls
