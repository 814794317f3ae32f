"""Training a tokenizer: what it encodes it decodes, the same texts give the same bytes, and it is trained once."""

import json
from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import BPE, DatasetConfig, override, resolve
from lovecraft.data import bpe
from lovecraft.data.bpe import build_tokenizer, tokenizer_inputs, train_bpe
from lovecraft.data.bulk import BulkEncoder
from lovecraft.errors import ConfigError, DataError
from lovecraft.tokenizer import Tokenizer, load_tokenizer

TEXTS = ["The bell of the old church rang in 1928, and the sea was grey. " * 20, "Ça et là: l'été, 漢字 😀.\n" * 20]
DO_NOT_MATTER = {
    *("source", "tokenizer", "bpe"),  # in the key by their content
    *("block_size", "stride", "min_length", "add_bos", "add_eos", "train_on_overlap", "shuffle", "packing"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("trained")
    train_bpe(TEXTS, path, 300, 2)
    return load_tokenizer(path)


@given(text=st.text())
def test_decode_undoes_encode(trained: Tokenizer, text: str) -> None:
    assert trained.decode(trained.encode(text)) == text
    assert trained.decode(trained.encode_template(text), skip_special=False) == text


def test_it_has_the_vocabulary_and_the_special_tokens_that_are_asked_for(trained: Tokenizer) -> None:
    assert trained.vocab_size == 300
    assert (trained.bos_id, trained.eos_id, trained.stop_ids, trained.adds_bos) == (0, 1, (1,), True)
    assert len(trained.encode("the")) == 1
    assert len(trained.encode("1928")) == 4, "digits stand alone"
    assert len(trained.encode("<|end_of_text|>")) > 1


def test_transformers_loads_it_and_gives_the_same_ids(trained: Tokenizer) -> None:
    other = transformers.AutoTokenizer.from_pretrained(trained.path)
    text = "The sea , the bell 's 漢字 don't"
    assert other(text)["input_ids"] == [0, *trained.encode(text)]
    assert other.decode(trained.encode(text)) == text
    assert (other.bos_token_id, other.eos_token_id) == (0, 1)


def test_it_runs_through_tiktoken(trained: Tokenizer) -> None:
    encoder = BulkEncoder(trained)
    assert [ids.tolist() for ids in encoder.encode(TEXTS)] == [trained.encode(text) for text in TEXTS]
    assert encoder.report().startswith("encoded by tiktoken")


def test_the_same_texts_give_the_same_bytes(trained: Tokenizer, tmp_path: Path) -> None:
    train_bpe(iter(TEXTS), tmp_path, 300, 2)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (trained.path / name).read_bytes()


def test_pairs_that_are_rarer_than_asked_for_do_not_merge(tmp_path: Path) -> None:
    train_bpe(["ab ab ab cd"], tmp_path, 300, 3)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert "ab" in vocabulary
    assert "cd" not in vocabulary


# --- built for a dataset ------------------------------------------------------------------------------


class Small(BPE):
    vocab_size = 280


class Texts(DatasetConfig):
    source = Path("texts")
    validation = ("b.txt",)
    bpe = Small


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    for name, text in zip("ab", TEXTS, strict=True):
        (tmp_path / "texts" / f"{name}.txt").write_text(text)
    return tmp_path / "texts"


def dataset(texts: Path, **options: object) -> DatasetConfig:
    return resolve(override(Texts, {"source": texts} | {name.replace("__", "."): v for name, v in options.items()}))


def test_it_is_trained_once_on_the_train_texts_alone(texts: Path, tmp_path: Path, monkeypatch) -> None:
    path = build_tokenizer(dataset(texts), tmp_path / "cache")
    (tmp_path / "alone").mkdir()
    train_bpe(TEXTS[:1], tmp_path / "alone", 280, 2)
    assert (path / "tokenizer.json").read_bytes() == (tmp_path / "alone" / "tokenizer.json").read_bytes()
    monkeypatch.setattr(bpe, "train_bpe", None)
    assert build_tokenizer(dataset(texts, block_size=99), tmp_path / "cache") == path


def test_a_text_is_trained_on_in_parts(texts: Path, tmp_path: Path, monkeypatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(bpe, "train_bpe", lambda texts, *_: seen.extend(texts))
    monkeypatch.setattr(bpe, "PART", 100)
    build_tokenizer(dataset(texts), tmp_path / "cache")
    assert "".join(seen) == TEXTS[0]
    assert max(map(len, seen)) == 100


@pytest.mark.parametrize(
    "options",
    [
        {"validation": ()},
        {"bpe__vocab_size": 281},
        {"bpe__min_frequency": 3},
        {"sample_by": "line"},
    ],
)
def test_another_option_that_matters_makes_another(texts: Path, tmp_path: Path, options: dict) -> None:
    first = build_tokenizer(dataset(texts), tmp_path / "cache")
    assert build_tokenizer(dataset(texts, **options), tmp_path / "cache") != first


def test_another_corpus_or_library_makes_another(texts: Path, tmp_path: Path, monkeypatch) -> None:
    first = build_tokenizer(dataset(texts), tmp_path / "cache")
    (texts / "a.txt").write_text(TEXTS[0] + "more")
    second = build_tokenizer(dataset(texts), tmp_path / "cache")
    monkeypatch.setattr("tokenizers.__version__", "0.0")
    assert len({first, second, build_tokenizer(dataset(texts), tmp_path / "cache")}) == 3


def test_every_option_of_a_dataset_is_in_the_key_or_does_not_matter(texts: Path, tmp_path: Path) -> None:
    known = tokenizer_inputs(dataset(texts), tmp_path / "cache").keys() | DO_NOT_MATTER
    assert set(DatasetConfig.__options__) <= known
    assert {f"bpe.{name}" for name in BPE.__options__} <= known


def test_a_corpus_that_changes_meanwhile_makes_none(texts: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(bpe, "train_bpe", lambda *_: (texts / "a.txt").write_text("other"))
    with pytest.raises(DataError, match="changed while it was read"):
        build_tokenizer(dataset(texts), tmp_path / "cache")
    assert not list((tmp_path / "cache" / "tokenizers").glob(f"*/{bpe.INDEX_FILE}"))


def test_a_tokenizer_to_take_and_one_to_train_contradict_each_other(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tokenizer and bpe"):
        build_tokenizer(dataset(texts, tokenizer=tmp_path), tmp_path / "cache")


def test_without_train_texts_there_is_nothing_to_train_on(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no train texts"):
        build_tokenizer(dataset(texts, train=()), tmp_path / "cache")
    assert not list((tmp_path / "cache" / "tokenizers").glob("*/tokenizer.json"))


def test_a_cache_that_cannot_be_written_is_an_error_of_the_user(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        build_tokenizer(dataset(texts), tmp_path / "cache")
