"""What is right: a checker must find nothing here, and it resolves."""

import workspace
from lovecraft import SGD, Config, Cosine, DatasetConfig, Eval, derived


class Dataset(DatasetConfig):
    source = workspace.ROOT / "texts"
    tokenizer = "hf:org/name"
    train = ("a.txt", "b.txt")
    add_bos = True


class Mixin(Config):
    """Options of a user's own."""

    width: int = 4
    """How wide."""


class Train(Mixin, workspace.Train):
    dataset = Dataset
    optimizer = SGD
    save = None
    max_steps = 10
    epochs = 2
    max_grad_norm = 1.0

    class schedule(Cosine):
        warmup = 0.1

    class eval(Eval):
        every = 5

    @derived
    def batch_size(self) -> int:
        return super().batch_size * 2 + self.width

    @derived
    def max_minutes(self) -> float | None:
        return None if self.max_steps is None else self.max_steps / 60


class Switched(Train):
    batch_size = 3
    optimizer = workspace.Optimizer
    max_steps = Train.accumulation * 2
