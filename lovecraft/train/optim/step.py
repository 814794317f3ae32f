"""One optimizer step over all named parameters, with the state in plain sight: parameter name -> slot -> tensor."""

import types
from collections.abc import Mapping

import torch
from torch import Tensor

from lovecraft.config.schema import SGD, Adafactor, AdamW, OptimizerConfig
from lovecraft.train.optim import adafactor, adamw, sgd
from lovecraft.train.optim.rounding import step_noise
from lovecraft.train.optim.view import View, part_size

State = dict[str, dict[str, Tensor]]
RULES: dict[type[OptimizerConfig], types.ModuleType] = {AdamW: adamw, Adafactor: adafactor, SGD: sgd}
NORM_PART = 1 << 20


def new_state(
    optimizer: OptimizerConfig, parameters: Mapping[str, Tensor], masters: Mapping[str, Tensor] | None = None
) -> State:
    """Return the state before the first step; `masters` are the float32 weights where `rounding` is "master"."""
    rule = _rule(optimizer)
    state = {name: rule.slots(optimizer, parameter) for name, parameter in parameters.items()}
    for name, master in (masters or {}).items():
        state[name]["master"] = master
    return state


def gradient_norm(parameters: Mapping[str, Tensor]) -> float:
    """Return the norm of all gradients together, computed in float32; inf or nan if one of them is."""
    norms = [
        torch.linalg.vector_norm(part, dtype=torch.float32)
        for parameter in parameters.values()
        if parameter.grad is not None
        for part in parameter.grad.reshape(-1).split(NORM_PART)
    ]
    return float(torch.linalg.vector_norm(torch.stack(norms)))


@torch.no_grad()
def update(
    optimizer: OptimizerConfig,
    parameters: Mapping[str, Tensor],
    state: State,
    *,
    step: int,
    lr: float,
    seed: int,
    scale: float = 1.0,
) -> None:
    """Take optimizer step `step` (the first is 1) with gradients times `scale`; changes parameters and state."""
    rule = _rule(optimizer)
    narrow = [p for p in parameters.values() if p.dtype == torch.bfloat16]
    noise = None
    if narrow and optimizer.rounding == "stochastic":
        noise = step_noise(seed, step, max(map(part_size, narrow)), narrow[0].device)
    for index, (name, parameter) in enumerate(parameters.items()):
        slots = state.get(name, {})
        view = View(
            parameter=parameter,
            index=index,
            scale=scale,
            weight_decay=optimizer.weight_decay if is_decayed(name, parameter) else 0.0,
            master=slots.get("master"),
            noise=noise,
        )
        rule.update(optimizer, view, slots, step=step, lr=lr)


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Say whether weight decay applies: to matrices, but not to the embedding (nor to a head tied to it)."""
    return parameter.ndim > 1 and "embed" not in name


def _rule(optimizer: OptimizerConfig) -> types.ModuleType:
    return next(rule for kind, rule in RULES.items() if isinstance(optimizer, kind))
