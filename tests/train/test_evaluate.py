import math

import pytest
import torch
import torch.nn.functional as F

from lovecraft.checkpoint import load_model
from lovecraft.data.blocks import Blocks
from lovecraft.models.llama import Llama
from lovecraft.train.evaluate import evaluate
from tests.train.bench import Bench, packed

CPU = torch.device("cpu")


@pytest.fixture
def model(bench: Bench) -> Llama:
    return load_model(bench.model_dir, dtype=torch.float32, device=CPU)


def token_losses(model: Llama, blocks: Blocks) -> list[tuple[int, float]]:
    """Return (token, loss) of every supervised token, block by block, from whole logits."""
    found = []
    for i in range(len(blocks)):
        ids, labels = torch.from_numpy(blocks[i].input_ids), torch.from_numpy(blocks[i].labels)
        with torch.no_grad():
            losses = F.cross_entropy(model(ids[None])[0, :-1], labels[1:], reduction="none", ignore_index=-100)
        found += [(int(t), float(x)) for t, x in zip(labels[1:], losses, strict=True) if t != -100]
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_loss_is_the_sum_over_all_tokens_by_their_number_whatever_the_batches(
    bench: Bench, model: Llama, batch_size: int
) -> None:
    blocks = bench.built(bench.config()).splits["validation"]
    losses = [loss for _, loss in token_losses(model, blocks)]
    found = evaluate(model, blocks, eos_id=bench.tokenizer.eos_id, batch_size=batch_size, loss_chunk=7)
    assert found.tokens == len(losses) == sum(d.tokens - 1 for d in blocks.documents)
    assert found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.documents == 1


def test_every_token_counts_once_whatever_the_stride(bench: Bench, model: Llama) -> None:
    tokens = set()
    for stride in (0, 4, 20):
        blocks = bench.built(bench.config(dataset__stride=stride)).splits["validation"]
        tokens.add(evaluate(model, blocks, eos_id=bench.tokenizer.eos_id, batch_size=2, loss_chunk=0).tokens)
    assert len(tokens) == 1


def test_overlap_that_train_supervises_again_counts_once(bench: Bench, model: Llama) -> None:
    found = []
    for again in (False, True):
        blocks = bench.built(bench.config(dataset__train_on_overlap=again)).splits["train"]
        found.append(evaluate(model, blocks, eos_id=bench.tokenizer.eos_id, batch_size=2, loss_chunk=0))
    assert found[0] == found[1]


def test_bits_per_byte_are_those_of_the_text_without_its_end(bench: Bench, model: Llama, request: object) -> None:
    blocks = bench.built(bench.config()).splits["validation"]
    eos = bench.tokenizer.eos_id
    text = sum(loss for token, loss in token_losses(model, blocks) if token != eos)
    size = (bench.texts / "c.txt").stat().st_size
    found = evaluate(model, blocks, eos_id=eos, batch_size=4, loss_chunk=0)
    assert found.bits_per_byte == pytest.approx(text / math.log(2) / size, rel=1e-6)


def test_bits_per_byte_need_the_whole_split(bench: Bench, model: Llama) -> None:
    blocks = bench.built(bench.config()).splits["validation"]
    found = evaluate(model, blocks, eos_id=None, batch_size=4, loss_chunk=0, max_blocks=2)
    assert found.bits_per_byte is None
    assert found.tokens == sum(int((blocks[i].labels != -100).sum()) for i in range(2))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_packed_split_measures_as_its_pieces_do(bench: Bench, model: Llama, split: str) -> None:
    blocks = bench.built(bench.config()).splits[split]
    eos = bench.tokenizer.eos_id
    wanted = evaluate(model, blocks, eos_id=eos, batch_size=3, loss_chunk=0)
    found = evaluate(model, packed(blocks, 2), eos_id=eos, batch_size=3, loss_chunk=0)
    assert (found.tokens, found.documents) == (wanted.tokens, wanted.documents)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-6)
    assert found.bits_per_byte == pytest.approx(wanted.bits_per_byte, rel=1e-6)


def test_documents_of_a_part_of_a_packed_split_are_those_of_its_pieces(bench: Bench, model: Llama) -> None:
    blocks = bench.built(bench.config()).splits["train"]
    last = int((blocks.table[:, 0] == 0).sum())  # pieces of the first document
    blocks = packed(blocks, last + 1)
    assert evaluate(model, blocks, eos_id=None, batch_size=1, loss_chunk=0, max_blocks=1).documents == 2
