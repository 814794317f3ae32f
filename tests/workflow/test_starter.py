"""The starter model against transformers: run where `make model` has fetched it."""

from pathlib import Path

import pytest
import torch

from lovecraft.checkpoint import load_model
from lovecraft.engine.batch import events
from lovecraft.engine.generate import load
from lovecraft.engine.request import Request, SamplingParams
from lovecraft.tokenizer import load_tokenizer

MODEL = Path(__file__).parents[2] / "models" / "smollm2_135m"
TEXT = "The Harbour Commissioners of Orfleet engaged me in the January of 1902, at ninety pounds a year and coals, "

pytestmark = [
    pytest.mark.starter,
    pytest.mark.skipif(not MODEL.exists(), reason="the starter model is not there; `make model` fetches it"),
]


@pytest.fixture(scope="module")
def theirs():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


def test_logits_equal_transformers(theirs):
    ids = torch.tensor([load_tokenizer(MODEL).encode(TEXT * 4)])
    ours = load_model(MODEL, dtype=torch.float32, device=torch.device("cpu"))

    with torch.inference_mode():
        difference = (ours(ids) - theirs(ids).logits).abs().max()

    assert difference <= 1e-4


def test_greedy_decoding_gives_the_tokens_that_transformers_gives(theirs):
    tokenizer = load_tokenizer(MODEL)
    ids = tokenizer.encode(TEXT)
    batch = load(MODEL, load_tokenizer(MODEL), device="cpu", dtype="float32", max_context=256)
    request = Request(tuple(ids), 40, SamplingParams(temperature=0), frozenset())

    ours = [event for event in events(batch, request) if isinstance(event, int)]
    made = theirs.generate(torch.tensor([ids]), max_new_tokens=40, do_sample=False, eos_token_id=None)

    assert ours == made[0, len(ids) :].tolist()


def test_the_tokenizer_equals_transformers():
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(MODEL)
    for text in (TEXT, "It was 1928, and 20,000 of them -- no more; \t\n\n  «déjà vu» 🐙"):
        assert load_tokenizer(MODEL).encode(text) == reference(text, add_special_tokens=False).input_ids
        assert load_tokenizer(MODEL).decode(load_tokenizer(MODEL).encode(text)) == text
