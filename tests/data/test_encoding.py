"""Documents become tokens: BOS and EOS once around each, in one file, whatever the batches."""

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from lovecraft import DatasetConfig
from lovecraft.data import encoding
from lovecraft.data.blocks import BYTES, CHARACTERS, FILE, FIRST_TOKEN_BYTES, NUMBER, ROW, TOKENS
from lovecraft.data.encoding import SUPERVISED_FILE, TOKENS_FILE, Corpus, encode, token_type
from lovecraft.data.splits import read
from lovecraft.errors import DataError
from lovecraft.tokenizer import Tokenizer, load_tokenizer
from tests.tiny import BOS_ID, EOS_ID, TEXT


def encoded(tmp_path: Path, texts: list[str], tokenizer: Tokenizer, **options: Any) -> tuple[Corpus, list[list[int]]]:
    """Encode texts that are rows of one file; return what was found and each document's tokens."""
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    corpus = encode(read(DatasetConfig(source=source, **options)), tokenizer, tmp_path)
    tokens = np.fromfile(tmp_path / TOKENS_FILE, token_type(tokenizer))
    return corpus, [part.tolist() for part in np.split(tokens, np.cumsum(corpus.documents[:, TOKENS])[:-1])]


@pytest.mark.parametrize("add_eos", [True, False])
@pytest.mark.parametrize("add_bos", [True, False])
def test_bos_and_eos_stand_once_around_a_document(
    add_bos: bool, add_eos: bool, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    _, tokens = encoded(tmp_path, [TEXT, "sea"], tokenizer, add_bos=add_bos, add_eos=add_eos)

    assert tokens == [[BOS_ID] * add_bos + tokenizer.encode(t) + [EOS_ID] * add_eos for t in (TEXT, "sea")]


def test_a_text_that_spells_special_tokens_gets_no_second_bos(tokenizer: Tokenizer, tmp_path: Path) -> None:
    _, [tokens] = encoded(tmp_path, ["<s>one</s>"], tokenizer)

    assert tokens.count(BOS_ID) == tokens.count(EOS_ID) == 1
    assert tokenizer.decode(tokens) == "<s>one</s>"


def test_documents_know_their_place_their_size_and_their_first_token(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = ["— it", "the sea"]
    with_bos, without = (encoded(tmp_path, texts, tokenizer, add_bos=bos)[0].documents for bos in (True, False))

    for table in (with_bos, without):
        assert table[:, [FILE, ROW, NUMBER]].tolist() == [[0, 1, 0], [0, 2, 1]]
        assert table[:, [CHARACTERS, BYTES]].tolist() == [[4, 6], [7, 7]]
    assert with_bos[:, FIRST_TOKEN_BYTES].tolist() == [0, 0]
    # "—" is three tokens of one byte each, none a character of its own
    first = len(tokenizer.decode(tokenizer.encode("the sea")[:1]))
    assert without[:, FIRST_TOKEN_BYTES].tolist() == [0, first]
    assert (with_bos[:, TOKENS] == without[:, TOKENS] + 1).all()


def test_batches_change_nothing(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [TEXT[i * 7 : i * 9 + 20] for i in range(30)]
    whole = encoded(tmp_path, texts, tokenizer)
    monkeypatch.setattr(encoding, "BATCH_CHARACTERS", 100)

    parts = encoded(tmp_path, texts, tokenizer)

    assert parts[1] == whole[1]
    assert parts[0].documents.tolist() == whole[0].documents.tolist()


def test_a_text_without_tokens_is_refused_by_name(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding.BulkEncoder, "encode", lambda self, texts: [np.array([], np.uint16) for _ in texts])

    with pytest.raises(DataError, match=r"^/.*: the tokenizer finds no token in texts\.jsonl:1"):
        encoded(tmp_path, ["one"], tokenizer)


def test_an_error_of_the_reader_comes_through_and_ends_the_thread(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\nbroken\n')

    with pytest.raises(DataError, match=r"a\.jsonl:2 is not JSON"):
        encode(read(DatasetConfig(source=tmp_path / "a.jsonl")), tokenizer, tmp_path)


def test_tokens_take_two_bytes_where_they_fit(tokenizer: Tokenizer) -> None:
    assert token_type(tokenizer) == np.uint16
    assert token_type(attrs.evolve(tokenizer, vocab_size=65537)) == np.uint32


def test_texts_have_no_file_of_what_is_supervised(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoded(tmp_path, ["one"], tokenizer)

    assert not (tmp_path / SUPERVISED_FILE).exists()


def test_the_library_that_ran_is_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert encoded(tmp_path, ["one"], tokenizer)[0].encoding.startswith("encoded by ")


def test_what_the_vocabulary_cannot_spell_is_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    content = json.loads((tokenizer.path / "tokenizer.json").read_text())
    del content["model"]["vocab"][chr(256 + 4)]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_text((tokenizer.path / "tokenizer_config.json").read_text())
    lacking = load_tokenizer(tmp_path)
    assert lacking.encode("a\x04b") == lacking.encode("ab"), "the library drops it without a word"

    corpus, _ = encoded(tmp_path, ["one", "t\x04wo", "three"], lacking)

    assert corpus.troubles == [
        "the tokenizer has no token for the bytes 04, which are lost in 1 documents (texts.jsonl:2)"
    ]
    assert encoded(tmp_path, ["t\x04wo"], tokenizer)[0].troubles == []


# --- conversations and pairs ------------------------------------------------------------------------


def pairs(tmp_path: Path, rows: list[tuple[str, str]], tokenizer: Tokenizer, size: int) -> Corpus:
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps({"q": q, "a": a}) + "\n" for q, a in rows))
    dataset = DatasetConfig(source=source, prompt_field="q", response_field="a", block_size=size, stride=0)
    return encode(read(dataset), tokenizer, tmp_path)


def test_of_a_pair_only_the_response_is_supervised(tokenizer: Tokenizer, tmp_path: Path) -> None:
    corpus = pairs(tmp_path, [("Who? ", "The sea."), ("Where? ", "Here.")], tokenizer, 64)
    tokens = np.fromfile(tmp_path / TOKENS_FILE, token_type(tokenizer))
    supervised = np.fromfile(tmp_path / SUPERVISED_FILE, bool)

    assert len(tokens) == len(supervised) == corpus.documents[:, TOKENS].sum()
    assert tokenizer.decode(tokens[supervised].tolist(), skip_special=False) == "The sea.</s>Here.</s>"
    assert "no chat template" in corpus.encoding


def test_what_is_too_long_is_left_out_and_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    corpus = pairs(tmp_path, [("Who? ", "The sea."), ("Where? ", "Here. " * 40), ("Why? ", "So.")], tokenizer, 32)

    assert corpus.documents[:, ROW].tolist() == [1, 3]
    assert corpus.documents[:, NUMBER].tolist() == [0, 2]
    assert corpus.troubles == ["conversations left out, longer than a block of 32 tokens: 1 (pairs.jsonl:2)"]
