import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lovecraft.engine import sampling
from lovecraft.engine.request import SamplingParams
from lovecraft.engine.sampling import FLOOR, INVALID, Draw, sample, score, uniform

V = 40


def logits(rows: int = 1, seed: int = 0, vocabulary: int = V) -> torch.Tensor:
    return 2 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def draw(rows: torch.Tensor, params: Sequence[SamplingParams], steps: Sequence[int]) -> list[int]:
    return sample(rows.clone(), [Draw(rule, step) for rule, step in zip(params, steps, strict=True)])


def drawn(row: torch.Tensor, params: SamplingParams, draws: int = 400) -> Counter[int]:
    return Counter(draw(row.expand(draws, -1), [params] * draws, list(range(draws))))


def kept(row: torch.Tensor, params: SamplingParams) -> set[int]:
    """Say which tokens may be drawn, in the plainest way: one rule after the other on the renormalised rest."""
    order = (row[0] / params.temperature).softmax(-1).tolist()
    ranked = sorted(range(len(order)), key=lambda i: -order[i])
    if params.top_k:
        ranked = ranked[: params.top_k]
    total, mass, nucleus = sum(order[i] for i in ranked), 0.0, []
    for i in ranked:
        if mass >= params.top_p * total:
            break
        nucleus.append(i)
        mass += order[i]
    return {i for i in nucleus if order[i] >= params.min_p * order[ranked[0]]}


def test_temperature_zero_is_the_first_of_the_largest() -> None:
    row = torch.tensor([[0.0, 3.0, 3.0, 1.0], [5.0, 5.0, 5.0, 5.0]])
    assert draw(row, [SamplingParams(temperature=0)] * 2, [0, 7]) == [1, 0]


@pytest.mark.parametrize("head", [4, 8, V])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(top_k=3),
        SamplingParams(top_k=20, top_p=0.9),
        SamplingParams(top_p=0.5),
        SamplingParams(top_p=0.97, temperature=1.7),
        SamplingParams(min_p=0.2),
        SamplingParams(min_p=0.01, top_p=0.95, top_k=25),
        SamplingParams(),
        SamplingParams(top_k=10_000),
    ],
)
def test_only_what_the_rules_keep_is_drawn_and_all_of_it(
    params: SamplingParams, head: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "HEAD", head)
    row = logits() / 2
    found = drawn(row, params, draws=4000)
    allowed = kept(row, params)
    assert set(found) <= allowed
    probs = (row[0] / params.temperature).softmax(-1)
    likely = {i for i in allowed if probs[i] / sum(probs[j] for j in allowed) > 0.004}
    assert likely <= set(found)


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(top_p=0.8), SamplingParams(temperature=0.5)])
def test_frequencies_are_the_probabilities(params: SamplingParams) -> None:
    row, draws = logits(), 20_000
    allowed = kept(row, params)
    probs = (row[0] / params.temperature).softmax(-1)
    total = float(sum(probs[i] for i in allowed))
    found = drawn(row, params, draws)
    for i in allowed:
        p = float(probs[i]) / total
        assert abs(found[i] / draws - p) < 5 * math.sqrt(p * (1 - p) / draws) + 1e-3


@given(seed=st.integers(0, 2**63), others=st.integers(0, 5), place=st.integers(0, 5))
def test_neighbours_change_nothing(seed: int, others: int, place: int) -> None:
    rules = [
        SamplingParams(),
        SamplingParams(0),
        SamplingParams(top_p=0.9),
        SamplingParams(top_k=2),
        SamplingParams(1.5),
    ]
    mine, row = SamplingParams(0.9, 0.95, seed=seed), logits(seed=3)
    [alone] = draw(row, [mine], [11])
    at = min(place, others)
    batch, params = list(logits(others, seed=4)), rules[:others]
    batch.insert(at, row[0])
    params.insert(at, mine)
    assert draw(torch.stack(batch), params, [11] * len(params))[at] == alone


def test_a_row_that_is_not_finite_fails_alone() -> None:
    rows = logits(5)
    rows[1, 7], rows[2, 7], rows[3] = float("nan"), float("inf"), float("-inf")
    for temperature in (0.0, 1.0):
        found = draw(rows, [SamplingParams(temperature, 0.9)] * 5, [0] * 5)
        assert [token == INVALID for token in found] == [False, True, True, True, False]


def test_masked_tokens_are_never_drawn() -> None:
    row = logits()
    row[0, ::2] = float("-inf")
    assert all(token % 2 for token in drawn(row, SamplingParams(temperature=2)))


def test_coldest_temperature_is_greedy() -> None:
    assert set(drawn(logits(), SamplingParams(temperature=1e-40), 20)) == {int(logits().argmax())}


def test_noise_is_a_function_of_seed_and_step() -> None:
    found = {uniform(seed, step) for seed in (0, 1, -5, 1 << 64) for step in range(100)}
    assert len(found) == 400
    assert all(0 <= u < 1 for u in found)
    assert abs(sum(found) / 400 - 0.5) < 0.05
    assert uniform(7, 3) == uniform(7, 3)


RULES = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.7, 1.3]),
    top_p=st.sampled_from([1.0, 0.8]),
    top_k=st.sampled_from([0, 5]),
    min_p=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 2**40),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
    presence_penalty=st.sampled_from([0.0, 1.0]),
    frequency_penalty=st.sampled_from([0.0, -0.5]),
    logit_bias=st.dictionaries(st.integers(0, V - 1), st.floats(-100, 100, width=32), max_size=3),
)
DRAWS = st.builds(
    Draw,
    RULES,
    st.integers(0, 1000),
    st.dictionaries(st.integers(0, V - 1), st.integers(0, 4), max_size=6),
    st.sets(st.integers(0, V - 2), max_size=4),
)


@given(st.lists(DRAWS, min_size=1, max_size=6), st.integers(0, 100))
def test_a_row_is_drawn_as_it_would_be_alone(draws: list[Draw], seed: int) -> None:
    rows = logits(len(draws), seed)
    alone = [sample(row[None].clone(), [one])[0] for row, one in zip(rows, draws, strict=True)]
    assert sample(rows.clone(), draws) == alone


@given(DRAWS, st.integers(0, 100))
def test_logits_are_edited_in_the_plainest_way(one: Draw, seed: int) -> None:
    rows, rules = logits(1, seed), one.params
    plain = rows[0].tolist()
    for token, bias in rules.logit_bias.items():
        plain[token] += bias
    for token, count in one.seen.items():
        value = plain[token]
        value = value / rules.repetition_penalty if value > 0 else value * rules.repetition_penalty
        plain[token] = value - rules.presence_penalty * (count > 0) - rules.frequency_penalty * count
    for token in one.banned:
        plain[token] = float("-inf")
    sampling._edit(rows, [one])
    assert torch.allclose(rows[0], torch.tensor(plain), atol=1e-4)


def test_scores_are_the_log_probabilities() -> None:
    rows = logits(3)
    rows[2, 4] = float("-inf")
    wanted = rows.log_softmax(-1)
    found = score(rows, [1, 2, 4], 5)
    assert [one.token for one in found] == [1, 2, 4]
    assert [one.logprob for one in found[:2]] == [float(wanted[0, 1]), float(wanted[1, 2])]
    assert found[2].logprob == FLOOR
    for row, one in zip(wanted, found, strict=True):
        assert list(one.top) == [(i, float(row[i])) for i in row.argsort(descending=True)[:5].tolist()]
    assert score(rows, [1, 2, 4], 0)[0].top == ()
    assert len(score(rows, [1, 2, 4], 1000)[0].top) == V
