import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from lovecraft.models import architecture
from tests.tiny import LLAMA3_ROPE

CASES = {
    "grouped heads, own output head": {},
    "as many key as query heads": {"num_key_value_heads": 4},
    "one key head, heads wider than the hidden size": {"num_key_value_heads": 1, "head_dim": 32},
    "tied head": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "linear rope": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama3 rope": {"rope_theta": 500000.0, "rope_scaling": LLAMA3_ROPE},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_logits_equal_those_of_transformers(pair, ids, changes):
    ours, theirs = pair("llama", **changes)
    rows = ids(2, 200)
    with torch.no_grad():
        got, wanted = ours(rows), theirs(rows).logits
    assert got.dtype == torch.float32
    assert (got - wanted).abs().max() <= 5e-5  # of logits up to 8; both round differently
    assert wanted.std() > 1


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_equal_those_of_transformers(pair, ids, tied):
    ours, theirs = pair("llama", tie_word_embeddings=tied)
    rows = ids(2, 50)
    F.cross_entropy(ours(rows)[:, :-1].flatten(0, 1), rows[:, 1:].flatten()).backward()
    theirs(rows, labels=rows).loss.backward()
    wanted = dict(theirs.named_parameters())
    assert dict(ours.named_parameters()).keys() == wanted.keys()
    for name, parameter in ours.named_parameters():
        error = (parameter.grad - wanted[name].grad).norm() / wanted[name].grad.norm()
        assert error < 1e-5, name


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_bfloat16_strays_no_further_from_float32_than_transformers_does(pair, ids, family):
    ours, theirs = pair(family, torch.bfloat16)
    rows = ids(4, 128)
    with torch.no_grad():
        got, peer = ours(rows), theirs(rows).logits.float()
        truth = theirs.float()(rows).logits
    assert (got - truth).square().mean().sqrt() <= 1.2 * (peer - truth).square().mean().sqrt()


def test_run_block_runs_every_block_once_and_in_order(ours, ids):
    model, rows = ours(), ids(1, 9)
    seen = []

    def run_block(index, block, h):
        seen.append(index)
        return block(h)

    with torch.no_grad():
        assert torch.equal(model.hidden(rows, run_block=run_block), model.hidden(rows))
    assert seen == [0, 1]


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_checkpointed_block_keeps_its_input_alone_and_gives_the_same_gradients(ours, ids, family):
    model, rows = ours(family, **({"sliding_window": 8} if family == "mistral" else {})), ids(2, 20)
    model.hidden(rows).square().sum().backward()
    plain = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    kept = []

    def run_block(index, block, h):
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda x: x):
            return checkpoint(block, h, use_reentrant=False, preserve_rng_state=False)

    model.hidden(rows, run_block=run_block).square().sum().backward()
    again = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert [tensor.shape for tensor in kept] == [(2, 20, 64)] * 2
    assert all(map(torch.equal, plain, again))


def test_a_model_used_in_inference_mode_can_still_be_trained(ours, ids):
    model = ours()
    with torch.inference_mode():
        model(ids(1, 600))
    model(ids(1, 600)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_one_forward_counts_the_parameters_it_says(ours):
    for changes in CASES.values():
        model = ours(**changes)
        assert architecture.parameter_count(model.architecture) == sum(p.numel() for p in model.parameters())
