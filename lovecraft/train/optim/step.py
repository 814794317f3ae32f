"""One optimizer step over all named parameters, with the state in plain sight: parameter name -> slot -> tensor."""

import types
from collections.abc import Iterable, Mapping

import attrs
import torch
from torch import Tensor

from lovecraft.config.schema import SGD, Adafactor, AdamW, OptimizerConfig
from lovecraft.train.optim import adafactor, adamw, sgd
from lovecraft.train.optim.rounding import Noise, step_noise
from lovecraft.train.optim.view import LARGE_PART, View, part_size

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


def gradient_norm(gradients: Iterable[Tensor]) -> float:
    """Return the norm of all gradients together, computed in float32; inf or nan if one of them is."""
    return total_norm([norm for gradient in gradients for norm in part_norms(gradient)])


def part_norms(gradient: Tensor) -> list[Tensor]:
    """Return the norms of a gradient's parts, float32."""
    size = NORM_PART if gradient.is_cpu else LARGE_PART
    return [torch.linalg.vector_norm(part.float()) for part in gradient.reshape(-1).split(size)]


def total_norm(norms: list[Tensor]) -> float:
    """Return the norm of all gradients together from those of their parts."""
    return float(torch.linalg.vector_norm(torch.stack(norms)))


@attrs.frozen
class Step:
    """Optimizer step `number` (the first is 1): what the updates of all parameters have in common."""

    optimizer: OptimizerConfig
    number: int
    lr: float
    noise: Noise | None


def begin_step(
    optimizer: OptimizerConfig, parameters: Mapping[str, Tensor], *, number: int, lr: float, seed: int
) -> Step:
    """Return step `number`, with the noise for whatever of it is rounded stochastically."""
    like = next(iter(parameters.values()))
    rounded = like.dtype == torch.bfloat16 and optimizer.rounding == "stochastic"
    if rounded or (isinstance(optimizer, AdamW) and optimizer.state_dtype == "bfloat16"):
        noise = step_noise(seed, number, max(map(part_size, parameters.values())), like.device)
        return Step(optimizer, number, lr, noise)
    return Step(optimizer, number, lr, None)


@torch.no_grad()
def update(
    step: Step,
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    state: State,
    scale: float = 1.0,
) -> None:
    """Take a step with `gradients`, by parameter, times `scale`; changes parameters and state."""
    for index, (name, parameter) in enumerate(parameters.items()):
        if name in gradients:
            update_one(step, index, name, parameter, gradients[name], state.get(name, {}), scale)


def update_one(
    step: Step, index: int, name: str, parameter: Tensor, gradient: Tensor, slots: dict[str, Tensor], scale: float = 1.0
) -> None:
    """Take a step of one parameter, number `index` among all."""
    optimizer = step.optimizer
    view = View(
        parameter=parameter,
        whole_gradient=gradient,
        index=index,
        scale=scale,
        weight_decay=optimizer.weight_decay if is_decayed(name, parameter) else 0.0,
        master=slots.get("master"),
        nearest=optimizer.rounding != "stochastic",
        noise=step.noise,
    )
    _rule(optimizer).update(optimizer, view, slots, step=step.number, lr=step.lr)


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Say whether weight decay applies: to matrices, but not to the embedding (nor to a head tied to it)."""
    return parameter.ndim > 1 and "embed" not in name


def _rule(optimizer: OptimizerConfig) -> types.ModuleType:
    return next(rule for kind, rule in RULES.items() if isinstance(optimizer, kind))
