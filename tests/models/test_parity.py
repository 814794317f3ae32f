"""Every family and every RoPE scaling against transformers, row by row."""

import pytest
import torch
from transformers import DynamicCache

from lovecraft.models.architecture import parameter_count
from lovecraft.models.inference import for_inference
from lovecraft.models.kv_cache import KVCache
from tests.models.rows import ROWS, WINDOW

CPU = torch.device("cpu")
WINDOWED = {name: row for name, row in ROWS.items() if row[1].get("sliding_window")}
row = pytest.mark.parametrize(("family", "changes"), ROWS.values(), ids=ROWS.keys())


@row
def test_logits_equal_those_of_transformers(pair, ids, family, changes):
    ours, theirs = pair(family, **changes)
    rows = ids(2, 200)
    with torch.no_grad():
        got, wanted = ours(rows), theirs(rows).logits
    assert (got.float() - wanted).abs().max() <= 5e-5  # of logits up to 8; both round differently
    assert wanted.std() > 1


@pytest.mark.parametrize("tokens", [WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 150])
@pytest.mark.parametrize(("family", "changes"), WINDOWED.values(), ids=WINDOWED.keys())
def test_logits_are_equal_up_to_and_past_the_window(pair, ids, family, changes, tokens):
    ours, theirs = pair(family, **changes)
    rows = ids(2, tokens)
    with torch.no_grad():
        assert (ours(rows) - theirs(rows).logits).abs().max() <= 5e-5


@row
@pytest.mark.parametrize("fused", [False, True])
def test_a_prompt_in_chunks_and_tokens_after_it_equal_those_of_transformers(pair, ids, family, changes, fused):
    ours, theirs = pair(family, **changes)
    rows, prompt, tokens = ids(2, 100), 70, 100  # of which dynamic RoPE knows 64
    cache = KVCache(ours.architecture, 2, tokens, torch.float32, CPU, ours.windows())
    cache.reach = prompt
    ours = for_inference(ours) if fused else ours
    their_cache = DynamicCache(config=theirs.config)
    steps = [rows[:, i : i + 1] for i in range(prompt, tokens)]
    with torch.no_grad():
        got = torch.cat([ours(x, cache) for x in (*rows[:, :prompt].split(30, dim=1), *steps)], dim=1)
        parts = [theirs(x, past_key_values=their_cache).logits for x in (rows[:, :prompt], *steps)]
    assert (got - torch.cat(parts, dim=1)).abs().max() <= 5e-5


@row
def test_the_layout_for_inference_computes_the_same(ours, ids, family, changes):
    model, rows = ours(family, **changes), ids(2, 40)
    with torch.inference_mode():
        wanted = model(rows)
        assert (for_inference(model)(rows) - wanted).abs().max() <= 5e-5


@row
def test_gradients_equal_those_of_transformers(pair, ids, family, changes):
    ours, theirs = pair(family, **changes)
    rows = ids(2, 50)
    ours(rows).square().mean().backward()
    theirs(rows).logits.square().mean().backward()
    wanted = dict(theirs.named_parameters())
    assert dict(ours.named_parameters()).keys() == wanted.keys()
    for name, parameter in ours.named_parameters():
        error = (parameter.grad - wanted[name].grad).norm()
        assert error < 1e-5 * max(wanted[name].grad.norm(), 1e-3), name


@row
def test_bfloat16_strays_no_further_from_float32_than_transformers_does(pair, ids, family, changes):
    ratios = []
    for seed in range(3):
        ours, theirs = pair(family, torch.bfloat16, seed=seed, **changes)
        rows = ids(4, 128)
        with torch.no_grad():
            got, peer = ours(rows).float(), theirs(rows).logits.float()
            truth = pair(family, torch.bfloat16, seed=seed, **changes)[1].float()(rows).logits
        ratios.append((got - truth).norm() / (peer - truth).norm())
    assert sum(ratios) / len(ratios) <= 1.2


@row
def test_the_parameters_are_counted(pair, family, changes):
    ours, theirs = pair(family, **changes)
    assert parameter_count(ours.architecture) == theirs.num_parameters()
