"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

import math

import torch
from torch import Tensor

from lovecraft.config.schema import AdamW
from lovecraft.train.optim.view import View


def slots(config: AdamW, parameter: Tensor) -> dict[str, Tensor]:
    """Return the state of one parameter before its first step: both moments, in `state_dtype`."""
    dtype = getattr(torch, config.state_dtype)
    return {name: torch.zeros_like(parameter, dtype=dtype) for name in ("exp_avg", "exp_avg_sq")}


def update(config: AdamW, view: View, state: dict[str, Tensor], *, step: int, lr: float) -> None:
    """Take step `step` (the first is 1): w -= lr * (m / c1) / (sqrt(v / c2) + eps), after the decay of w.

    c1 and c2 are the bias corrections 1 - beta ** step; sqrt(c2) is moved out of the fraction to save a pass.
    """
    beta1, beta2 = config.betas
    root = math.sqrt(1 - beta2**step)
    size = lr * root / (1 - beta1**step)
    for part in view.parts():
        weight, gradient = view.weight(part), view.gradient(part)
        mean, square = state["exp_avg"][part].float(), state["exp_avg_sq"][part].float()
        if view.weight_decay:
            weight.mul_(1 - lr * view.weight_decay)
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        weight.addcdiv_(mean, square.sqrt().add_(config.eps * root), value=-size)
        view.store(part, weight)
        view.keep("exp_avg", state["exp_avg"], part, mean)
        view.keep("exp_avg_sq", state["exp_avg_sq"], part, square)
