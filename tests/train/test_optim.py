"""Our optimizers against torch.optim in float32, and how bfloat16 weights take small updates."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lovecraft import SGD, Adafactor, AdamW, OptimizerConfig
from lovecraft.errors import ConfigError
from lovecraft.train.optim import rounding, view
from lovecraft.train.optim import step as steps
from lovecraft.train.optim.step import State, begin_step, gradient_norm, is_decayed, new_state

SHAPES = {
    "model.embed_tokens.weight": (37, 8),
    "model.layers.0.mlp.up_proj.weight": (24, 16),
    "model.norm.weight": (16,),
}
MATRIX = "model.layers.0.mlp.up_proj.weight"

Parameters = dict[str, Tensor]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(view.PART, "cpu", 100)  # every matrix takes several parts, the last one short


def parameters(dtype: torch.dtype = torch.float32, seed: int = 0) -> Parameters:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype).requires_grad_() for name, shape in SHAPES.items()}


def give_gradients(parameters: Parameters, step: int) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def update(
    optimizer: OptimizerConfig, ours: Parameters, state: State, *, step: int, lr: float, seed: int, scale: float = 1.0
) -> None:
    """Take a step with the gradients that the parameters hold."""
    gradients = {name: parameter.grad for name, parameter in ours.items() if parameter.grad is not None}
    begun = begin_step(optimizer, ours, number=step, lr=lr, seed=seed)
    steps.update(begun, ours, gradients, state, scale)


def train(
    optimizer: OptimizerConfig, steps: int = 5, dtype: torch.dtype = torch.float32, **keywords: float
) -> Parameters:
    ours = parameters(dtype)
    masters = {n: p.detach().float().clone() for n, p in ours.items()} if optimizer.rounding == "master" else None
    state = new_state(optimizer, ours, masters)
    for step in range(1, steps + 1):
        give_gradients(ours, step)
        update(optimizer, ours, state, step=step, lr=optimizer.lr, seed=0, **keywords)
    return ours


def train_with_torch(make: Callable[[list[dict[str, object]]], torch.optim.Optimizer], decay: float) -> Parameters:
    theirs = parameters()
    groups = [
        {"params": [p], "weight_decay": decay if n == MATRIX else 0.0} for n, p in theirs.items()
    ]  # torch knows nothing of norms and embeddings
    optimizer = make(groups)
    for step in range(1, 6):
        give_gradients(theirs, step)
        optimizer.step()
    return theirs


PEERS = {
    "adamw": (
        AdamW(lr=1e-2, weight_decay=0.1, betas=(0.8, 0.95), eps=0.1),
        lambda groups: torch.optim.AdamW(groups, lr=1e-2, betas=(0.8, 0.95), eps=0.1),
    ),
    "adafactor": (
        Adafactor(lr=1e-2, weight_decay=0.1, relative_step=True),
        lambda groups: torch.optim.Adafactor(groups, lr=1e-2),
    ),
    "sgd": (SGD(lr=1e-2, weight_decay=0.1), lambda groups: torch.optim.SGD(groups, lr=1e-2)),
    "momentum": (SGD(lr=1e-2, momentum=0.9), lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9)),
}


@pytest.mark.parametrize("peer", PEERS)
def test_float32_steps_equal_torch(peer: str) -> None:
    optimizer, make = PEERS[peer]
    ours, theirs = train(optimizer), train_with_torch(make, optimizer.weight_decay)
    for name in SHAPES:
        torch.testing.assert_close(ours[name], theirs[name], rtol=2e-6, atol=2e-7)


def test_an_absolute_adafactor_step_is_the_rate_whatever_the_weights() -> None:
    ours, before = parameters(), parameters()
    optimizer = Adafactor(lr=1e-2)
    give_gradients(ours, 1)
    update(optimizer, ours, new_state(optimizer, ours), step=1, lr=1e-2, seed=0)
    for name in SHAPES:
        rms = (ours[name] - before[name]).detach().square().mean().sqrt().item()
        assert rms == pytest.approx(1e-2, rel=0.05)


def test_an_adafactor_step_leaves_a_row_without_gradient_as_it_is() -> None:
    ours, before = parameters(), parameters()
    optimizer = Adafactor(lr=1e-2)
    give_gradients(ours, 1)
    for parameter in ours.values():
        assert parameter.grad is not None
        parameter.grad[3] = 0  # as of a token that no block of the step holds
    update(optimizer, ours, new_state(optimizer, ours), step=1, lr=1e-2, seed=0)
    assert all(torch.equal(ours[n][3], before[n][3]) and ours[n].isfinite().all() for n in SHAPES)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (AdamW, {"betas": (1.0, 0.9)}),  # each would divide by zero, or never forget
        (SGD, {"momentum": 1.0}),
        (Adafactor, {"decay_rate": 0.5}),
        (Adafactor, {"eps": (0.0, 1e-3)}),
    ],
)
def test_rates_that_no_step_could_use_are_refused(kind: type[OptimizerConfig], wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        kind(**wrong)


def test_decay_spares_norms_embeddings_and_tied_heads() -> None:
    assert [n for n, p in parameters().items() if is_decayed(n, p)] == [MATRIX]
    assert is_decayed("lm_head.weight", torch.zeros(2, 2))


def test_a_scale_is_the_same_as_scaled_gradients() -> None:
    scaled, by_hand = parameters(), parameters()
    optimizer = SGD(lr=0.1)
    give_gradients(scaled, 1)
    for name, parameter in by_hand.items():
        gradient = scaled[name].grad
        assert gradient is not None
        parameter.grad = gradient * 0.25
    update(optimizer, scaled, new_state(optimizer, scaled), step=1, lr=0.1, seed=0, scale=0.25)
    update(optimizer, by_hand, new_state(optimizer, by_hand), step=1, lr=0.1, seed=0)
    assert all(torch.equal(scaled[n], by_hand[n]) for n in SHAPES)


def test_gradient_norm_is_torchs_and_sees_every_nan() -> None:
    ours = parameters(torch.bfloat16)
    give_gradients(ours, 1)
    gradients = [p.grad.float() for p in ours.values() if p.grad is not None]
    assert gradient_norm([p.grad for p in ours.values() if p.grad is not None]) == pytest.approx(
        torch.nn.utils.get_total_norm(gradients).item(), rel=1e-6
    )
    gradient = ours["model.norm.weight"].grad
    assert gradient is not None
    gradient[3] = torch.nan
    assert math.isnan(gradient_norm([gradient]))


# --- bfloat16 -----------------------------------------------------------------------------------------


def mean_update(mode: str, lr: float = 5e-6) -> float:
    """Return by how much one step of SGD on gradients of 1 moves weights of size 0.02 on average."""
    weights = (0.02 * torch.randn(200_000, generator=torch.Generator().manual_seed(0))).bfloat16()
    parameter = weights.clone().requires_grad_()
    parameter.grad = torch.ones_like(parameter)
    optimizer = SGD(lr=lr, rounding=mode)
    update(optimizer, {"w": parameter}, new_state(optimizer, {"w": parameter}), step=1, lr=lr, seed=3)
    return (weights.double() - parameter.detach().double()).mean().item()


def words(count: int, seed: int = 0, step: int = 1, index: int = 0, start: int = 0) -> Tensor:
    return rounding.step_noise(seed, step, count, torch.device("cpu")).words(count, index, start)


@pytest.fixture
def large_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(view.PART, "cpu", 1 << 16)


@pytest.mark.usefixtures("large_parts")
def test_stochastic_rounding_keeps_the_mean_of_updates_that_nearest_loses() -> None:
    assert mean_update("stochastic") == pytest.approx(5e-6, rel=0.02)
    assert mean_update("nearest") < 0.2 * 5e-6


def test_stochastic_rounding_picks_a_neighbour_by_its_nearness() -> None:
    low, high = torch.tensor([1.0, 1.0078125]).bfloat16()
    weight = torch.full((100_000,), 1.0 + 0.25 * 0.0078125)
    into = torch.empty_like(weight, dtype=torch.bfloat16)
    rounding.round_stochastically(weight.clone(), into, words(len(weight)))
    assert set(into.unique().tolist()) == {low.item(), high.item()}
    assert (into == high).double().mean().item() == pytest.approx(0.25, abs=0.01)


def test_stochastic_rounding_leaves_exact_values_alone() -> None:
    exact = torch.randn(10_001, generator=torch.Generator().manual_seed(2)).bfloat16()
    into = torch.empty_like(exact)
    rounding.round_stochastically(exact.float(), into, words(len(exact)))
    assert torch.equal(into, exact)


def test_noise_depends_on_seed_step_parameter_and_place() -> None:
    assert torch.equal(words(9), words(9))
    keys = [(1, 2, 3, 0), (2, 2, 3, 0), (1, 3, 3, 0), (1, 2, 4, 0), (1, 2, 3, 9), (12, 3, 3, 0)]
    assert len({tuple(words(9, *key).tolist()) for key in keys}) == len(keys)


def test_noise_is_uniform_and_two_parts_of_a_step_are_uncorrelated() -> None:
    noise = rounding.step_noise(0, 1, 1 << 16, torch.device("cpu"))
    parts = torch.stack([noise.words(1 << 16, index, 0).double() for index in range(64)])
    assert parts.min() == 0
    assert parts.max() == 65535
    assert parts.mean().item() == pytest.approx(32767.5, rel=0.01)
    correlations = torch.corrcoef(parts)[~torch.eye(64, dtype=torch.bool)]
    assert abs(correlations.mean().item()) < 0.02


@pytest.mark.parametrize("make", [AdamW, Adafactor, SGD])
def test_masters_follow_the_float32_path_exactly(make: type[OptimizerConfig]) -> None:
    ours = parameters(torch.bfloat16)
    masters = {n: p.detach().float().clone() for n, p in ours.items()}
    plain = {n: m.clone().requires_grad_() for n, m in masters.items()}
    optimizer = make(lr=1e-3, rounding="master", weight_decay=0.1)
    state, plain_state = new_state(optimizer, ours, masters), new_state(optimizer, plain)
    for step in range(1, 4):
        give_gradients(ours, step)
        for name, parameter in plain.items():
            gradient = ours[name].grad
            assert gradient is not None
            parameter.grad = gradient.float()
        update(optimizer, ours, state, step=step, lr=1e-3, seed=0)
        update(optimizer, plain, plain_state, step=step, lr=1e-3, seed=0)
    for name in SHAPES:
        assert torch.equal(state[name]["master"], plain[name])
        assert torch.equal(ours[name], plain[name].bfloat16())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    optimizer = AdamW(lr=1e-3)

    def run(seed: int) -> Tensor:
        ours = parameters(torch.bfloat16)
        give_gradients(ours, 1)
        update(optimizer, ours, new_state(optimizer, ours), step=1, lr=1e-3, seed=seed)
        return ours[MATRIX]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_no_state_or_temporary_of_adafactor_is_as_large_as_a_matrix() -> None:
    ours = parameters()
    state = new_state(Adafactor(), ours)
    assert {slot: tuple(t.shape) for slot, t in state[MATRIX].items()} == {"row_var": (24, 1), "col_var": (1, 16)}


# --- bfloat16 moments ---------------------------------------------------------------------------------


def second_moment(optimizer: AdamW, steps: int = 400) -> Tensor:
    """Return the mean second moment after `steps` whose gradients are 1: 1 - 0.999 ** steps."""
    parameter = torch.zeros(4096, requires_grad=True)
    state = new_state(optimizer, {"w": parameter})
    for step in range(1, steps + 1):
        parameter.grad = torch.ones_like(parameter)
        update(optimizer, {"w": parameter}, state, step=step, lr=1e-3, seed=0)
    return state["w"]["exp_avg_sq"].double().mean()


@pytest.mark.usefixtures("large_parts")
def test_bfloat16_moments_take_updates_that_nearest_would_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = AdamW(state_dtype="bfloat16")
    assert second_moment(narrow).item() == pytest.approx(1 - 0.999**400, rel=0.01)
    monkeypatch.setattr(view, "round_stochastically", lambda value, into, words: into.copy_(value))
    assert second_moment(narrow).item() < 0.8 * (1 - 0.999**400)  # it stands where a step is half of a last digit


def test_bfloat16_moments_train_as_float32_ones_do_and_repeat_by_their_seed() -> None:
    wide, narrow, again = (train(AdamW(lr=1e-2, state_dtype=t)) for t in ("float32", "bfloat16", "bfloat16"))
    for name in SHAPES:
        assert torch.equal(narrow[name], again[name])
        assert not torch.equal(narrow[name], wide[name])
        torch.testing.assert_close(narrow[name], wide[name], rtol=0, atol=2e-3)  # of about 5e-2 that each weight moves


def test_noise_of_a_parameter_and_of_its_moments_differ() -> None:
    noise = rounding.step_noise(0, 1, 100, torch.device("cpu"))
    drawn = {tuple(noise.words(100, 0, 0, state).tolist()) for state in ("", "exp_avg", "exp_avg_sq")}
    assert len(drawn) == 3


@pytest.mark.parametrize("rounding_of_weights", ["nearest", "master"])
def test_noise_for_the_moments_does_not_touch_weights_that_do_without(rounding_of_weights: str) -> None:
    def first_step(**options: object) -> Parameters:
        return train(AdamW(lr=1e-2, rounding=rounding_of_weights, **options), steps=1, dtype=torch.bfloat16)

    wide, narrow = first_step(), first_step(state_dtype="bfloat16")
    assert all(torch.equal(wide[name], narrow[name]) for name in SHAPES)  # a first step is made of float32 moments
