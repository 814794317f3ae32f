"""Stochastic gradient descent, with or without momentum."""

import torch
from torch import Tensor

from lovecraft.config.schema import SGD
from lovecraft.train.optim.view import View


def slots(config: SGD, parameter: Tensor) -> dict[str, Tensor]:
    """Return the state of one parameter before its first step: the velocity, float32, where there is momentum."""
    return {"velocity": torch.zeros_like(parameter, dtype=torch.float32)} if config.momentum else {}


def update(config: SGD, view: View, state: dict[str, Tensor], *, step: int, lr: float) -> None:
    """Take a step: v = momentum * v + g, w -= lr * v, after the decay of w."""
    for part in view.parts():
        weight, direction = view.weight(part), view.gradient(part)
        if view.weight_decay:
            weight.mul_(1 - lr * view.weight_decay)
        if config.momentum:
            direction = state["velocity"][part].mul_(config.momentum).add_(direction)
        weight.sub_(direction, alpha=lr)
        view.store(part, weight)
