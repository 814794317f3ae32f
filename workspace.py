"""The workspace's root marker and its shared defaults."""

from pathlib import Path

from lovecraft import Adafactor, ModelConfig, TrainConfig

ROOT = Path(__file__).parent


class Model(ModelConfig):
    path = ROOT / "models" / "mistral_7b"


class Optimizer(Adafactor):
    lr = 4e-6


class Train(TrainConfig):
    model = Model
    optimizer = Optimizer
