"""lovecraft: a declarative build tool for finetuning language models, configured in Python."""

from lovecraft.config.api import diff, load, override, show
from lovecraft.config.base import Config, derived
from lovecraft.config.resolve import resolve
from lovecraft.config.schema import (
    BPE,
    SGD,
    WSD,
    Adafactor,
    AdamW,
    Constant,
    Cosine,
    DatasetConfig,
    Eval,
    Init,
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
    "BPE",
    "SGD",
    "WSD",
    "Adafactor",
    "AdamW",
    "Config",
    "Constant",
    "Cosine",
    "DatasetConfig",
    "Eval",
    "Init",
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
    "diff",
    "load",
    "override",
    "resolve",
    "show",
]
