"""A workspace for the checker."""

from pathlib import Path

from lovecraft import AdamW, ModelConfig, TrainConfig, derived

ROOT = Path(__file__).parent


class Model(ModelConfig):
    path = ROOT / "model"


class Optimizer(AdamW):
    lr = 1e-4
    betas = (0.9, 0.99)


class Train(TrainConfig):
    model = Model
    optimizer = Optimizer

    @derived
    def batch_size(self) -> int:
        return 4096 // self.dataset.block_size
