"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

import math

import torch
from torch import Tensor

from lovecraft.config.schema import AdamW
from lovecraft.train.optim.target import Target


def slots(config: AdamW, parameter: Tensor) -> dict[str, Tensor]:
    """Return the state of one parameter before its first step: both moments, float32."""
    return {name: torch.zeros_like(parameter, dtype=torch.float32) for name in ("exp_avg", "exp_avg_sq")}


def update(config: AdamW, target: Target, state: dict[str, Tensor], *, step: int, lr: float) -> None:
    """Take step `step` (the first is 1): w -= lr * (m / c1) / (sqrt(v / c2) + eps), after the decay of w."""
    beta1, beta2 = config.betas
    size = lr / (1 - beta1**step)
    root = math.sqrt(1 - beta2**step)
    for part in target.parts():
        weight, gradient = target.weight(part), target.gradient(part)
        mean, square = state["exp_avg"][part], state["exp_avg_sq"][part]
        if target.weight_decay:
            weight.mul_(1 - lr * target.weight_decay)
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        weight.addcdiv_(mean, square.sqrt().div_(root).add_(config.eps), value=-size)
        target.store(part, weight)
