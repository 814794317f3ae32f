import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from lovecraft.models.kv_cache import KVCache
from tests.models.rows import ROWS, WINDOW

row = pytest.mark.parametrize(("family", "changes"), ROWS.values(), ids=ROWS.keys())


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


# --- documents that share a row -----------------------------------------------------------------------

LENGTHS = [40, 1, 23, 17, 40]


def packed(model, row, lengths=LENGTHS):
    return model.logits(model.hidden(row, lengths=lengths))[0]


def separate(model, row):
    return torch.cat([model(document)[0] for document in row.split(LENGTHS, dim=1)])


def loss(logits, row):
    """Sum the losses of all tokens that a token of their own document precedes."""
    labels = torch.cat([F.pad(document[1:], (0, 1), value=-100) for document in row[0].split(LENGTHS)])
    return F.cross_entropy(logits, labels, reduction="sum")


@row
def test_each_document_of_a_row_has_the_logits_that_it_has_alone(ours, ids, family, changes):
    model, row = ours(family, **changes), ids(1, sum(LENGTHS))
    with torch.no_grad():
        assert (packed(model, row) - separate(model, row)).abs().max() <= 1e-5


@row
def test_logits_of_packed_documents_equal_those_of_transformers(pair, ids, family, changes):
    ours, theirs = pair(family, **changes)
    row = ids(1, sum(LENGTHS))
    with torch.no_grad():
        wanted = torch.cat([theirs(document).logits[0] for document in row.split(LENGTHS, dim=1)])
        assert (packed(ours, row) - wanted).abs().max() <= 5e-5
        assert (ours(row)[0] - wanted).abs().max() > 1  # as one text they are another


@pytest.mark.parametrize(("family", "changes"), [("llama", {}), ("mistral", {"sliding_window": WINDOW})])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_document_changes_no_bit_of_those_beside_it(pair, ids, family, changes, dtype):
    model, row = pair(family, dtype, **changes)[0], ids(1, sum(LENGTHS))
    begin = 0
    with torch.no_grad():
        before = packed(model, row)
        for tokens in LENGTHS:
            place = torch.arange(len(before)).sub(begin)
            inside = (place >= 0) & (place < tokens)
            after = packed(model, torch.where(inside, (row + 1) % 300, row))
            assert torch.equal(after[~inside], before[~inside])
            assert not torch.equal(after[inside], before[inside])
            begin += tokens


@row
def test_gradients_of_packed_documents_are_the_sum_of_their_own(ours, ids, family, changes):
    model, row = ours(family, **changes), ids(1, sum(LENGTHS))
    found = torch.autograd.grad(loss(packed(model, row), row), list(model.parameters()))
    wanted = torch.autograd.grad(loss(separate(model, row), row), list(model.parameters()))
    for got, alone in zip(found, wanted, strict=True):
        assert (got - alone).norm() <= 1e-5 * alone.norm()


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_packed_documents_stray_in_bfloat16_no_further_than_alone(pair, ids, family):
    ours, theirs = pair(family, torch.bfloat16, **({"sliding_window": WINDOW} if family == "mistral" else {}))
    row = ids(1, sum(LENGTHS))
    with torch.no_grad():
        got, alone = packed(ours, row), separate(ours, row)
        truth = separate(lambda document: theirs.float()(document).logits, row)
    assert (got - truth).square().mean().sqrt() <= 1.1 * (alone - truth).square().mean().sqrt()


def test_a_checkpointed_block_of_packed_documents_keeps_its_input_alone(ours, ids):
    model, row, kept = ours("mistral", sliding_window=WINDOW), ids(1, sum(LENGTHS)), []

    def run_block(index, block, h):
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda x: x):
            return checkpoint(block, h, use_reentrant=False, preserve_rng_state=False)

    parameters = list(model.model.parameters())
    plain = torch.autograd.grad(model.hidden(row, lengths=LENGTHS).square().sum(), parameters)
    hidden = model.hidden(row, lengths=LENGTHS, run_block=run_block)
    assert [tensor.shape for tensor in kept] == [(1, sum(LENGTHS), 64)] * 2
    assert all(map(torch.equal, plain, torch.autograd.grad(hidden.square().sum(), parameters)))


def test_packed_documents_fill_one_row_and_no_cache(ours, ids):
    model, row = ours(), ids(1, 9)
    cache = KVCache(model.architecture, 1, 9, torch.float32, torch.device("cpu"), model.windows())
    with pytest.raises(AssertionError):
        model.hidden(row, lengths=[4, 5], cache=cache)
    for rows, lengths in ((row, [4, 4]), (ids(2, 9), [9, 9])):
        with pytest.raises(AssertionError):
            model.hidden(rows, lengths=lengths)
