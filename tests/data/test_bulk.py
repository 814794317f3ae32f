"""Bulk encoding: tiktoken runs where it is proven equal, and whatever differs is found."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import TikTokenConverter

from lovecraft.data import bulk
from lovecraft.data.bulk import BulkEncoder, Differs
from lovecraft.ranks import LLAMA3_PATTERN
from lovecraft.tokenizer import Tokenizer, load_tokenizer
from tests.test_ranks import write_ranks

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
DIGITS = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2])
LLAMA3 = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated"), BYTES])
SPLITTINGS = {"gpt2": GPT2, "digits": DIGITS, "llama3": LLAMA3}

TEXTS = [
    "It was the 17th of August, 1928; the old church's bell didn't ring.\n\n\tThe sea was grey, and 1000 gulls cried.",
    "Ça et là, l'été; ſtrange letters: ÆGIR'S ЖЩ 漢字かな 😀👍🏽 ½ Ⅷ ٣  end \r\n  ",
]
WORDS = st.sampled_from(
    ["the ", "bell's", "'S", "  \n", "12345", " ½", "漢字", "é", "é", "\x85", "\u3000", "ſ", "'ſ", "\0end", "\0", "end"]
)
ANY_TEXT = st.lists(st.one_of(st.text(), WORDS)).map("".join)


def train(splitting: pre_tokenizers.PreTokenizer, vocab_size: int = 400) -> tokenizers.Tokenizer:
    """Return a small byte-level BPE trained on TEXTS."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = splitting
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(TEXTS * 5, trainer)
    return library


def changed(library: tokenizers.Tokenizer, change: Callable[[dict], None]) -> tokenizers.Tokenizer:
    """Return a tokenizer whose tokenizer.json was changed."""
    content = json.loads(library.to_str())
    change(content)
    return tokenizers.Tokenizer.from_str(json.dumps(content))


@pytest.fixture
def load(tmp_path: Path) -> Callable[[tokenizers.Tokenizer], Tokenizer]:
    def one(library: tokenizers.Tokenizer) -> Tokenizer:
        library.save(str(tmp_path / "tokenizer.json"))
        return load_tokenizer(tmp_path)

    return one


def lists(arrays: list[np.ndarray]) -> list[list[int]]:
    return [array.tolist() for array in arrays]


@pytest.fixture(scope="module", params=SPLITTINGS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp(request.param)
    train(SPLITTINGS[request.param]).save(str(path / "tokenizer.json"))
    return load_tokenizer(path)


@given(texts=st.lists(ANY_TEXT, max_size=9))
def test_tiktoken_runs_and_gives_the_ids_of_the_library(trained: Tokenizer, texts: list[str]) -> None:
    encoder = BulkEncoder(trained)
    assert lists(encoder.encode(texts)) == [trained.encode(text) for text in texts]
    assert "tiktoken" in encoder.report()
    assert "same" in encoder.report() or "those of" in encoder.report()


def test_ids_are_of_the_smallest_type(trained: Tokenizer) -> None:
    assert BulkEncoder(trained).encode(["the", ""])[1].dtype == np.uint16


def test_special_tokens_that_a_text_spells_are_text(load: Callable) -> None:
    library = train(LLAMA3)
    library.add_special_tokens(["<s>"])
    tokenizer = load(library)
    encoder = BulkEncoder(tokenizer)
    assert lists(encoder.encode(["a<s>b"])) == [tokenizer.encode("a<s>b")]
    assert "encoded by tiktoken" in encoder.report()


def test_a_vocabulary_with_ignored_merges_runs_through_tiktoken(tmp_path: Path) -> None:
    write_ranks(tmp_path)
    library = TikTokenConverter(str(tmp_path / "tokenizer.model"), extra_special_tokens=["<s>"]).converted()
    (tmp_path / "json").mkdir()
    library.save(str(tmp_path / "json" / "tokenizer.json"))
    encoder = BulkEncoder(load_tokenizer(tmp_path / "json"))
    own = BulkEncoder(load_tokenizer(tmp_path))
    assert lists(encoder.encode(TEXTS)) == lists(own.encode(TEXTS))
    assert "encoded by tiktoken" in encoder.report()
    assert encoder.report() == own.report()


def test_a_text_with_a_byte_that_has_no_token_goes_through_the_library(load: Callable) -> None:
    def drop(content: dict) -> None:
        content["model"]["vocab"] = {t: i for t, i in content["model"]["vocab"].items() if t != "!"}

    tokenizer = load(changed(train(GPT2), drop))
    texts = ["ring ?!? ring", "the bell"]
    encoder = BulkEncoder(tokenizer)
    assert lists(encoder.encode(texts)) == [tokenizer.encode(text) for text in texts]
    assert "encoded by tiktoken" in encoder.report()


def test_a_run_of_blanks_too_long_for_the_regex_is_encoded_all_the_same(load: Callable) -> None:
    tokenizer = load(train(GPT2))
    text = " " * 1_000_000 + "a"
    assert BulkEncoder(tokenizer).encode([text])[0].tolist() == tokenizer.encode(text)


# --- what is not taken ------------------------------------------------------------------------------


def splitting_by(regex: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), BYTES])


def apart(content: dict) -> None:
    """List two ways to make `the`, with other merges between them."""
    vocab = content["model"]["vocab"]
    vocab["he"] = vocab.get("he", len(vocab))
    content["model"]["merges"] += [
        m for m in (["h", "e"], ["t", "he"], ["th", "e"]) if m not in content["model"]["merges"]
    ]


def unlisted(content: dict) -> None:
    """Let `abc` be made of a and bc only, although a and b join before: tiktoken would make it of ab and c."""
    vocab = content["model"]["vocab"]
    for a, b in (("a", "b"), ("b", "c"), ("a", "bc")):
        content["model"]["merges"].append([a, b])
        vocab[a + b] = vocab.get(a + b, len(vocab))


WORD = {"id": 0, "content": "bell", "special": False, "single_word": False, "lstrip": False, "rstrip": False} | {
    "normalized": False
}
CHANGES: dict[str, Callable[[dict], None]] = {
    "an ambiguous merge": unlisted,
    "two ways to one token": apart,
    "bytes for what is unknown": lambda c: c["model"].update(byte_fallback=True),
    "words that are looked for": lambda c: c["added_tokens"].append(WORD),
    "another normalizer": lambda c: c.update(normalizer={"type": "Lowercase"}),
    "a blank before each text": lambda c: c["pre_tokenizer"].update(add_prefix_space=True),
    "another splitting": lambda c: c.update(pre_tokenizer={"type": "Whitespace"}),
    "a regex of another dialect": lambda c: c.update(pre_tokenizer=json.loads(splitting_by(r"\R|\X").__getstate__())),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_tiktoken_would_do_otherwise_is_left_to_the_library(what: str, load: Callable) -> None:
    tokenizer = load(changed(train(GPT2), CHANGES[what]))
    encoder = BulkEncoder(tokenizer)
    texts = [*TEXTS, "abc xabc"]
    assert lists(encoder.encode(texts)) == [tokenizer.encode(text) for text in texts]
    assert encoder.report().startswith("encoded by the tokenizers library: ")


# --- lies that only the texts give away ---------------------------------------------------------------


def lying(monkeypatch: pytest.MonkeyPatch, regex: str) -> None:
    """Let tiktoken cut texts by another regex than the tokenizer's."""
    monkeypatch.setattr(bulk, "GPT2", regex)


def fallen_back(tokenizer: Tokenizer, texts: list[str], reason: str) -> None:
    """Assert that the encoder gives up on the last of the texts, and gives the right ids when it starts over."""
    encoder = BulkEncoder(tokenizer)
    if len(texts) > 1:
        encoder.encode(texts[:-1])
    with pytest.raises(Differs, match=reason) as caught:
        encoder.encode(texts[-1:])
    again = BulkEncoder(tokenizer, str(caught.value))
    assert lists(again.encode(texts)) == [tokenizer.encode(text) for text in texts]
    assert again.report() == f"encoded by the tokenizers library: {caught.value}"


def test_a_lie_about_a_letter_is_found_when_it_first_comes(load: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    lying(monkeypatch, bulk.GPT2.replace("[sdmt]", "[sdm]"))
    monkeypatch.setattr(bulk, "COMPARED", 0)
    fallen_back(load(train(GPT2)), ["word", "t"], "other ids")


def test_a_regex_that_leaves_gaps_is_found(load: Callable) -> None:
    fallen_back(load(train(splitting_by(r"\p{L}+|\s"))), ["word"], "other ids")


def test_a_lie_about_one_class_of_characters_is_found_when_one_of_them_comes(
    load: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying(monkeypatch, bulk.GPT2.replace(r"\p{N}+", r"[\p{Nd}\p{No}]+"))  # Ⅷ is of \p{Nl}
    monkeypatch.setattr(bulk, "COMPARED", 0)
    fallen_back(load(train(GPT2)), ["the bell"] * 3 + ["½"] * 3 + ["a Ⅷ"], "Ⅷ")


def test_a_lie_about_a_rare_word_is_found_while_all_is_compared_and_in_samples_later(
    load: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying(monkeypatch, " gu|" + bulk.GPT2)
    tokenizer = load(train(GPT2))
    fallen_back(tokenizer, ["the sea"] * 60 + [" gulls"], "gulls")
    monkeypatch.setattr(bulk, "COMPARED", 10)
    fallen_back(tokenizer, ["the sea"] * 99 + [" gulls"], "gulls")
    encoder = BulkEncoder(tokenizer)
    encoder.encode(["the sea"] * 97)  # two are compared to begin with, then each fiftieth
    assert encoder.report().endswith("3 of 97 parts, 21 characters")


def test_a_long_text_is_compared_part_by_part(load: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PART", 10)
    encoder = BulkEncoder(load(train(GPT2)))
    encoder.encode(["x" * 25, ""])
    assert encoder.report().endswith("3 of 3 parts, 25 characters")
