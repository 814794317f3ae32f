"""The rebuilt tokenizer: its ids, its splitting by name, its special tokens; what cannot be rebuilt is refused."""

import json
from pathlib import Path

import pytest

from lovecraft.convert.gguf import open_gguf
from lovecraft.convert.gguf_tokenizer import SPLITTINGS, tokenizer_files
from lovecraft.errors import ModelError
from lovecraft.tokenizer import Tokenizer, load_tokenizer
from tests.convert.gguf_writer import TOKENS, tiny_gguf
from tests.test_pieces import join_by_score, vocabulary


def rebuild(path: Path, **changes: object) -> Tokenizer:
    """Return the tokenizer of the tiny model with `changes` to its metadata (see `llama_metadata`)."""
    gguf = open_gguf(tiny_gguf(path / "tiny.gguf", **changes))
    for name, content in tokenizer_files(gguf, 128).items():
        (path / name).write_text(content, encoding="utf-8")
    return load_tokenizer(path)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [TOKENS[i].replace("Ġ", " ") for i in tokenizer.encode(text)]


def test_ids_are_those_of_the_file(tmp_path: Path) -> None:
    tokenizer = rebuild(tmp_path)
    assert tokenizer.vocab_size == len(TOKENS)
    assert pieces(tokenizer, "th th") == ["th", " th"]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos) == (0, 1, False)
    assert tokenizer.decode(tokenizer.encode("Cthulhu ÿ\r\n\t 🐙")) == "Cthulhu ÿ\r\n\t 🐙"


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("gpt-2", "12th", ["12", "th"]),
        ("smollm", "12th", ["1", "2", "th"]),  # digits one by one: the merge of 1 and 2 never applies
        ("smollm", " 12", [" ", "1", "2"]),
        ("gpt-2", "1212", ["12", "12"]),
        ("llama-bpe", "1212", ["12", "1", "2"]),  # digits in threes: 121, 2
        ("default", "12", ["12"]),
    ],
)
def test_the_splitting_is_that_of_its_name(tmp_path: Path, kind: str, text: str, expected: list[str]) -> None:
    assert pieces(rebuild(tmp_path, tokenizer__ggml__pre=kind), text) == expected


@pytest.mark.parametrize("kind", sorted(SPLITTINGS))
def test_every_splitting_gives_back_the_text(tmp_path: Path, kind: str) -> None:
    tokenizer = rebuild(tmp_path, tokenizer__ggml__pre=kind)
    for text in ("It's 1928.\r\n\r\nÎä! ‘ph’nglui’ $<=>|~ 12345 \u00a0\t  end  ", "  x", "\n", "मुंबई 狂気", "a" * 99):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_whole_token_beats_the_merges_only_where_the_name_says_so(tmp_path: Path) -> None:
    no_merges = ["1 2"]  # th is in the vocabulary, but no merge makes it
    assert pieces(rebuild(tmp_path, tokenizer__ggml__merges=no_merges), "th") == ["t", "h"]
    llama = rebuild(tmp_path, tokenizer__ggml__merges=no_merges, tokenizer__ggml__pre="llama-bpe")
    assert pieces(llama, "th") == ["th"]


@pytest.mark.parametrize(
    ("kind", "says", "adds"),
    [("smollm", None, False), ("smollm", True, True), ("llama-bpe", None, True), ("llama-bpe", False, False)],
)
def test_bos_is_added_as_the_file_says_else_as_the_kind_does(
    tmp_path: Path, kind: str, says: bool | None, adds: bool
) -> None:
    tokenizer = rebuild(tmp_path, tokenizer__ggml__pre=kind, tokenizer__ggml__add_bos_token=says)
    assert tokenizer.adds_bos is adds
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["add_bos_token"] is adds


def test_a_file_without_bos_adds_none(tmp_path: Path) -> None:
    tokenizer = rebuild(tmp_path, tokenizer__ggml__bos_token_id=None, tokenizer__ggml__add_bos_token=True)
    assert (tokenizer.bos_id, tokenizer.adds_bos) == (None, False)


def test_eos_goes_behind_a_text_where_the_file_says_so(tmp_path: Path) -> None:
    rebuild(tmp_path, tokenizer__ggml__add_bos_token=True, tokenizer__ggml__add_eos_token=True)
    template = json.loads((tmp_path / "tokenizer.json").read_text())["post_processor"]["single"]
    assert [next(iter(piece)) for piece in template] == ["SpecialToken", "Sequence", "SpecialToken"]


def test_control_tokens_are_special_and_user_defined_ones_are_whole_text(tmp_path: Path) -> None:
    types = [3, 3] + [1] * (len(TOKENS) - 2) + [4, 5]
    tokens = [*TOKENS, "  two  ", "[PAD261]"]
    tokenizer = rebuild(tmp_path, tokenizer__ggml__tokens=tokens, tokenizer__ggml__token_type=types)
    ids = tokenizer.encode("<s>  two  ")
    assert ids[-1] == len(TOKENS)  # matched whole, spaces and all
    assert 0 not in ids  # <s> as text
    assert tokenizer.decode([0, *ids]) == "<s>  two  "
    assert tokenizer.vocab_size == len(TOKENS) + 1  # a row that only fills the embedding is no token


def test_a_file_without_token_types_has_plain_tokens(tmp_path: Path) -> None:
    assert rebuild(tmp_path, tokenizer__ggml__token_type=None).encode("th") == [TOKENS.index("th")]


def test_the_tokenizer_config_says_what_transformers_needs(tmp_path: Path) -> None:
    rebuild(tmp_path, tokenizer__ggml__unknown_token_id=1, tokenizer__ggml__padding_token_id=1)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "</s>",
        "pad_token": "</s>",
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 128,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": "{{ messages }}",
    }


def test_rebuilding_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    gguf = open_gguf(tiny_gguf(tmp_path / "tiny.gguf", tokenizer__ggml__add_bos_token=True))
    assert tokenizer_files(gguf, 128) == tokenizer_files(gguf, 128)


ROWS = vocabulary()
LLAMA = {
    "tokenizer__ggml__model": "llama",
    "tokenizer__ggml__pre": None,
    "tokenizer__ggml__merges": None,
    "tokenizer__ggml__tokens": [row.text for row in ROWS],
    "tokenizer__ggml__token_type": [row.kind for row in ROWS],
    "tokenizer__ggml__scores": [row.score for row in ROWS],
    "tokenizer__ggml__bos_token_id": 1,
    "tokenizer__ggml__eos_token_id": 2,
}


@pytest.mark.parametrize("prefixed", [True, False])
def test_sentencepieces_kind_joins_by_score(tmp_path: Path, prefixed: bool) -> None:
    says = {} if prefixed else {"tokenizer__ggml__add_space_prefix": False}
    tokenizer = rebuild(tmp_path, **LLAMA, **says)
    assert tokenizer.encode(" that é\n") == join_by_score(ROWS, " that é\n", prefixed=prefixed)
    assert (tokenizer.bos_id, tokenizer.stop_ids, tokenizer.adds_bos) == (1, (2,), True)  # BOS, where it is silent
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["add_prefix_space"] is prefixed


WRONG = {
    "no splitting": ({"tokenizer__ggml__pre": None}, "split by ''"),
    "an unknown splitting": ({"tokenizer__ggml__pre": "mystery"}, "split by 'mystery'"),
    "another kind": ({"tokenizer__ggml__model": "bert"}, "the kind 'bert'"),
    "no scores": (LLAMA | {"tokenizer__ggml__scores": None}, "has no tokenizer.ggml.scores"),
    "too few scores": (LLAMA | {"tokenizer__ggml__scores": [0.5]}, "has 1 scores for"),
    "fewer blanks": (LLAMA | {"tokenizer__ggml__remove_extra_whitespaces": True}, "changes texts first"),
    "other characters": (LLAMA | {"tokenizer__ggml__precompiled_charsmap": [1]}, "changes texts first"),
    "no tokens": ({"tokenizer__ggml__tokens": None}, "has no tokenizer.ggml.tokens"),
    "no merges": ({"tokenizer__ggml__merges": None}, "has no tokenizer.ggml.merges"),
    "tokens that are numbers": ({"tokenizer__ggml__tokens": [1, 2]}, "not a list"),
    "a token twice": ({"tokenizer__ggml__tokens": [*TOKENS[:-1], "th"]}, "twice"),
    "too few types": ({"tokenizer__ggml__token_type": [3, 3]}, "leaves a type out"),
    "too many types": ({"tokenizer__ggml__token_type": [1] * (len(TOKENS) + 1)}, "leaves a type out"),
    "a merge of absent tokens": ({"tokenizer__ggml__merges": ["q q"]}, "merges of .* do not fit"),
    "a merge of three": ({"tokenizer__ggml__merges": ["t h e"]}, "merges of .* do not fit"),
    "bos past the end": ({"tokenizer__ggml__bos_token_id": 5000}, "bos_token_id in .* is 5000"),
    "bos that is a word": ({"tokenizer__ggml__bos_token_id": "<s>"}, "is a str, not a int"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_tokenizer_that_cannot_be_rebuilt_is_refused(tmp_path: Path, name: str) -> None:
    changes, complaint = WRONG[name]
    with pytest.raises(ModelError, match=complaint) as caught:
        rebuild(tmp_path, **changes)
    assert caught.value.hint
