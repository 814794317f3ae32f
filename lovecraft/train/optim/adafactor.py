"""Adafactor without first moment (Shazeer and Stern, 2018), as torch.optim.Adafactor computes it.

The second moment of a matrix is kept as the means of its rows and of its columns: a few kilobytes instead of the
matrix. Each pass below goes over the parts of a parameter, so that no temporary is as large as the matrix.
"""

import math

import torch
from torch import Tensor

from lovecraft.config.schema import Adafactor
from lovecraft.train.optim.view import View


def slots(config: Adafactor, parameter: Tensor) -> dict[str, Tensor]:
    """Return the state of one parameter before its first step: the factored second moment, float32."""
    if parameter.ndim == 1:
        return {"variance": torch.zeros_like(parameter, dtype=torch.float32)}
    rows, columns = parameter.shape
    new = {"dtype": torch.float32, "device": parameter.device}
    return {"row_var": torch.zeros(rows, 1, **new), "col_var": torch.zeros(1, columns, **new)}


def update(config: Adafactor, view: View, state: dict[str, Tensor], *, step: int, lr: float) -> None:
    """Take step `step` (the first is 1): w -= lr * u / max(1, rms(u) / clip_threshold), u = g / sqrt(v)."""
    _learn_variance(view, state, float(step) ** config.decay_rate)
    size = lr * max(config.eps[1], _rms_of_weights(view)) if config.relative_step else lr
    clip = max(1.0, _rms_of_update(config, view, state) / config.clip_threshold)
    for part in view.parts():
        weight = view.weight(part)
        if view.weight_decay:
            weight.mul_(1 - lr * view.weight_decay)
        weight.sub_(_direction(config, view, state, part), alpha=size / clip)
        view.store(part, weight)


def _learn_variance(view: View, state: dict[str, Tensor], rate: float) -> None:
    if "variance" in state:
        for part in view.parts():
            state["variance"][part].lerp_(view.gradient(part).square(), rate)
        return
    columns = torch.zeros_like(state["col_var"])
    for part in view.parts():
        square = view.gradient(part).square()
        state["row_var"][part].lerp_(square.mean(1, keepdim=True), rate)
        columns += square.sum(0, keepdim=True)
    state["col_var"].lerp_(columns / view.shape[0], rate)


def _direction(config: Adafactor, view: View, state: dict[str, Tensor], part: slice) -> Tensor:
    if "variance" in state:
        variance = state["variance"][part].clone()
    else:
        rows = state["row_var"][part] / state["row_var"].mean().clamp(min=config.eps[0])
        variance = rows @ state["col_var"]  # (rows, 1) @ (1, columns)
    # Not eps squared, which is zero in float32: a row without gradient, as of a token not seen, would become NaN.
    return variance.clamp_(min=config.eps[0]).rsqrt_().mul_(view.gradient(part))


def _rms_of_update(config: Adafactor, view: View, state: dict[str, Tensor]) -> float:
    return _rms(view, [_direction(config, view, state, part).square_().sum() for part in view.parts()])


def _rms_of_weights(view: View) -> float:
    return _rms(view, [view.weight(part).square().sum() for part in view.parts()])


def _rms(view: View, squares: list[Tensor]) -> float:
    return math.sqrt(float(torch.stack(squares).sum()) / math.prod(view.shape))
