import pytest
import torch

from lovecraft.models.inference import for_inference


@pytest.mark.parametrize("tied", [False, True])
def test_packed_bfloat16_strays_no_further_from_float32(pair, ids, tied):
    ours, theirs = pair("llama", torch.bfloat16, tie_word_embeddings=tied)
    rows = ids(4, 64)
    with torch.inference_mode():
        plain, packed = ours(rows).float(), for_inference(ours)(rows).float()
        truth = theirs.float()(rows).logits
    assert (packed - truth).square().mean() <= 1.2 * (plain - truth).square().mean()
