"""Finetune the small starter model on the shipped tales: minutes on two CPU cores."""

from lovecraft import AdamW, Cosine, Eval, ModelConfig, TrainConfig
from projects.tales_dataset.default import Dataset
from workspace import ROOT


class Model(ModelConfig):
    path = ROOT / "models" / "smollm2_135m"  # `make model` fetches it


class Optimizer(AdamW):
    lr = 5e-5


class Schedule(Cosine):
    warmup = 0.1


class Evaluation(Eval):
    every = 35  # once an epoch
    prompts = ("The keeper had not spoken since noon, and when at last he",)


class Train(TrainConfig):
    dataset = Dataset
    model = Model
    optimizer = Optimizer
    schedule = Schedule
    eval = Evaluation
    epochs = 2
    batch_size = 2
    max_grad_norm = 1.0
