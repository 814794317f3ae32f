import pytest
import torch

from lovecraft.models.inference import for_inference
from lovecraft.models.kv_cache import KVCache

CASES = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}),
    ("mistral", {"sliding_window": 16}),
]


@pytest.mark.parametrize(("family", "changes"), CASES)
def test_the_layout_for_inference_computes_the_same(ours, ids, family, changes):
    model, rows = ours(family, **changes), ids(2, 40)
    cache = KVCache(model.architecture, 2, 40, torch.float32, torch.device("cpu"))
    with torch.inference_mode():
        wanted = model(rows)
        for_inference(model)
        whole = model(rows)
        model(rows[:, :20], cache)
        rest = torch.cat([model(rows[:, i : i + 1], cache) for i in range(20, 40)], dim=1)
    assert (whole - wanted).abs().max() <= 5e-5
    assert (rest - wanted[:, 20:]).abs().max() <= 5e-5


@pytest.mark.parametrize("tied", [False, True])
def test_packed_bfloat16_strays_no_further_from_float32(pair, ids, tied):
    ours, theirs = pair("llama", torch.bfloat16, tie_word_embeddings=tied)
    rows = ids(4, 64)
    with torch.inference_mode():
        plain, packed = ours(rows), for_inference(ours)(rows)
        truth = theirs.float()(rows).logits
    assert packed.dtype == torch.float32
    assert (packed - truth).square().mean() <= 1.2 * (plain - truth).square().mean()
