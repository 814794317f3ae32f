"""Checkpointing and offload change where tensors wait, never what they are."""

import math

import pytest
import torch
from torch import Tensor

from lovecraft.checkpoint import load_model
from lovecraft.models.llama import Block, Llama, RunBlock, call
from lovecraft.train.batches import collate, largest, largest_tokens, step_blocks
from lovecraft.train.checkpointing import checkpointed
from lovecraft.train.loss import linear_cross_entropy
from lovecraft.train.offload import KEEP, Offload, slab_bytes
from tests.tiny import tiny_model_dir
from tests.train.bench import Bench, packed

LAYERS = 5


@pytest.fixture(params=["llama", "mistral"], scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    """A model of five layers; Mistral's window is narrower than the text."""
    window = {"sliding_window": 6} if request.param == "mistral" else {}
    path = tiny_model_dir(tmp_path_factory.mktemp("m"), request.param, num_hidden_layers=LAYERS, **window)
    return load_model(path, dtype=torch.float32, device=torch.device("cpu"))


def tokens(rows: int, seed: int, length: int = 16) -> Tensor:
    return torch.randint(300, (rows, length), generator=torch.Generator().manual_seed(seed))


def gradients(model: Llama, run_block: RunBlock, ids: Tensor) -> list[Tensor]:
    model.zero_grad(set_to_none=True)
    hidden = model.hidden(ids, run_block=run_block)
    linear_cross_entropy(hidden.flatten(0, 1), model.head, ids.flatten(), 8).backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def assert_empty(offload: Offload) -> None:
    """Check that backward has fetched every input that forward sent away."""
    assert not offload._waiting, f"never fetched: blocks {sorted(offload._waiting)}"
    assert not offload._fetched, f"fetched in vain: blocks {sorted(offload._fetched)}"


def test_gradients_are_equal_to_the_bit_over_steps_that_share_the_slab(model: Llama) -> None:
    offload = Offload(LAYERS)
    for step, rows in enumerate((2, 1, 3)):  # a smaller batch, then one that outgrows the slab
        ids = tokens(rows, step)
        plain = gradients(model, call, ids)
        assert len(plain) == len(list(model.parameters()))
        for run_block in (checkpointed, offload.run_block):
            assert all(torch.equal(a, b) for a, b in zip(plain, gradients(model, run_block, ids), strict=True))
        assert_empty(offload)


def test_offload_moves_each_input_but_the_last_ones_and_nothing_else(
    model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, sent, offload = tokens(2, 0), [], Offload(LAYERS)
    pack = Offload._pack

    def spy(self: Offload, index: int, tensor: Tensor) -> int:
        sent.append((index, tuple(tensor.shape)))
        return pack(self, index, tensor)

    monkeypatch.setattr(Offload, "_pack", spy)
    gradients(model, offload.run_block, ids)
    assert sent == [(index, (2, 16, 64)) for index in range(LAYERS - KEEP)]
    assert offload._slab is not None
    assert offload._slab.nbytes == sum(4 * math.prod(shape) for _, shape in sent)
    assert offload._slab.nbytes == slab_bytes(LAYERS, row=4 * 2 * 16 * 64)


def test_the_slab_is_made_once_however_the_batches_change(model: Llama) -> None:
    offload = Offload(LAYERS, largest=3 * 16 * 64)
    gradients(model, offload.run_block, tokens(1, 0))
    slab = offload._slab
    for rows in (2, 3, 1):
        gradients(model, offload.run_block, tokens(rows, 0))
        assert offload._slab is slab


def test_the_largest_batch_of_a_run_fits_into_the_slab(bench: Bench) -> None:
    config = bench.config(batch_size=3)
    pieces = bench.built(config).splits["train"]
    for blocks in (pieces, packed(pieces)):
        most = largest_tokens(config, blocks)
        numbers = [some for step in range(1, 9) for some in step_blocks(config, len(blocks), step)]
        sizes = [collate(blocks, some, torch.device("cpu")).input_ids.numel() for some in numbers]
        rehearsed = collate(blocks, largest(config, blocks), torch.device("cpu")).input_ids.numel()
        assert max(sizes) <= rehearsed <= most


def test_every_input_is_wanted_back_once(model: Llama) -> None:
    offload = Offload(LAYERS)
    hidden = model.hidden(tokens(1, 0), run_block=offload.run_block)
    with pytest.raises(AssertionError, match="never fetched"):
        assert_empty(offload)
    hidden.sum().backward()
    assert_empty(offload)


def test_a_forward_pass_without_backward_leaves_nothing_for_the_next(model: Llama) -> None:
    offload, ids = Offload(LAYERS), tokens(1, 0)
    model.hidden(tokens(1, 1), run_block=offload.run_block)
    assert all(
        torch.equal(a, b)
        for a, b in zip(gradients(model, call, ids), gradients(model, offload.run_block, ids), strict=True)
    )
    assert_empty(offload)


def test_a_model_no_deeper_than_what_is_kept_is_not_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Offload, "_pack", None)  # not to be called
    offload = Offload(2)
    hidden = torch.ones(1, 3, 4, requires_grad=True)
    offload.run_block(1, torch.sin, offload.run_block(0, torch.sin, hidden)).sum().backward()
    assert_empty(offload)


def test_checkpointing_keeps_one_tensor_a_block_and_stops_recomputing_early(model: Llama) -> None:
    kept, calls = [], []

    def run(index: int, block: Block, hidden: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            return checkpointed(index, block, hidden)

    down = model.model.layers[0].mlp.down_proj
    handle = down.register_forward_hook(lambda *_: calls.append(1))
    hidden = model.hidden(tokens(1, 0), run_block=run)
    assert len(kept) == LAYERS
    hidden.sum().backward()
    handle.remove()
    assert len(calls) == 1, "down_proj is the last product of a block: backward needs its inputs only"


def test_only_hidden_states_may_be_arguments_of_a_block() -> None:
    offload, mask = Offload(3, keep=0), torch.ones(2, requires_grad=True)
    hidden = torch.ones(2, requires_grad=True)

    def leaky(index: int, block: Block, h: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: offload._pack(index, t), offload._unpack):
            return h * mask

    offload._begin(hidden)
    with pytest.raises(AssertionError, match="more than its input"):
        leaky(0, torch.sin, hidden)
