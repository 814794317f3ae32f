"""The tokenizer: what it reads from which file, and that it never adds, cuts or guesses."""

import json
import pickle
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors

from lovecraft.errors import ModelError
from lovecraft.tokenizer import Tokenizer, load_tokenizer


def write_tokenizer(path: Path, *, template: bool = False, **config: object) -> Path:
    """Write a byte-level tokenizer with one merge, <s> and </s>; `config` goes to tokenizer_config.json."""
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))} | {"th": 256}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[("t", "h")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])  # 257, 258
    if template:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 257), ("</s>", 258)]
        )
    backend.enable_truncation(4)
    backend.enable_padding(length=8)
    path.mkdir(parents=True, exist_ok=True)
    backend.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("plain")
    return load_tokenizer(write_tokenizer(path, bos_token="<s>", eos_token={"content": "</s>", "special": True}))


def test_encode_neither_cuts_nor_pads_nor_adds(plain: Tokenizer) -> None:
    assert len(plain.encode("th" * 100)) == 100
    assert plain.encode("") == []
    assert plain.encode_batch(["th", ""]) == [[256], []]


def test_encode_adds_no_bos_where_the_habit_is_to_add_it(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, template=True, bos_token="<s>"))
    assert tokenizer.adds_bos
    assert tokenizer.encode("th") == [256]
    assert tokenizer.encode_batch(["th"]) == [[256]]
    assert tokenizer.encode_template("th") == [256]


def test_the_habit_is_the_post_processors_not_the_configs(tmp_path: Path) -> None:
    assert not load_tokenizer(write_tokenizer(tmp_path, bos_token="<s>", add_bos_token=True)).adds_bos


def test_a_leading_token_that_is_not_bos_is_no_bos_habit(tmp_path: Path) -> None:
    assert not load_tokenizer(write_tokenizer(tmp_path, template=True, bos_token="</s>")).adds_bos


def test_text_that_spells_a_special_token_is_text(plain: Tokenizer) -> None:
    ids = plain.encode("a</s>b")
    assert plain.eos_id not in ids
    assert plain.decode(ids) == "a</s>b"
    assert ids == plain.encode_batch(["a</s>b"])[0]


def test_a_rendered_template_may_hold_special_tokens(plain: Tokenizer) -> None:
    ids = plain.encode_template("<s>a")
    assert ids[0] == plain.bos_id
    assert plain.decode(ids) == "a"
    assert plain.decode(ids, skip_special=False) == "<s>a"


def test_offsets_say_which_characters_a_token_stands_for(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, template=True, bos_token="<s>", eos_token="</s>"))
    text = "the é\n</s>"
    ids, offsets = tokenizer.encode_with_offsets(text, template=True)
    assert ids == tokenizer.encode_template(text)
    assert offsets[:3] == [(0, 2), (2, 3), (3, 4)], "white space counts"
    assert offsets[3:] == [(4, 5), (4, 5), (5, 6), (6, 10)], "both bytes of a letter stand for it"
    plain, offsets = tokenizer.encode_with_offsets(text, template=False)
    assert plain == tokenizer.encode(text)
    assert offsets[-4:] == [(6, 7), (7, 8), (8, 9), (9, 10)]


def test_what_is_special_is_what_a_template_may_write_or_a_generation_ends_at(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, bos_token="<s>", eos_token="<end>")
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.add_tokens(["<end>", "<word>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).special.findall("<s> <word> </s> <end>") == ["<s>", "</s>", "<end>"]


@given(text=st.text())
def test_decode_undoes_encode(plain: Tokenizer, text: str) -> None:
    assert plain.decode(plain.encode(text)) == text
    assert plain.encode_batch([text]) == [plain.encode(text)]


def test_vocab_size_is_above_every_id(plain: Tokenizer) -> None:
    assert plain.vocab_size == 259


def test_a_pickled_tokenizer_still_takes_special_tokens_as_text(plain: Tokenizer) -> None:
    again = pickle.loads(pickle.dumps(plain))
    assert again.encode("</s>") == plain.encode("</s>")
    assert again.fingerprint == plain.fingerprint


def test_special_tokens_come_from_the_first_file_that_names_them(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path).eos_id is None
    (tmp_path / "config.json").write_text('{"eos_token_id": 257}')
    assert load_tokenizer(tmp_path).eos_id == 257
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [258, 257]}')
    assert load_tokenizer(tmp_path).eos_id == 258
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<s>"}')
    assert load_tokenizer(tmp_path).eos_id == 257
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": null}')
    assert load_tokenizer(tmp_path).eos_id is None


def test_stop_ids_are_eos_and_what_generation_stops_at(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, eos_token="</s>")
    assert load_tokenizer(tmp_path).stop_ids == (258,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [257, 258]}')
    assert load_tokenizer(tmp_path).stop_ids == (258, 257)


def test_the_fingerprint_follows_what_makes_ids(tmp_path: Path) -> None:
    first = load_tokenizer(write_tokenizer(tmp_path / "a", eos_token="</s>", model_max_length=1)).fingerprint
    assert load_tokenizer(write_tokenizer(tmp_path / "b", eos_token="</s>", model_max_length=2)).fingerprint == first
    assert load_tokenizer(write_tokenizer(tmp_path / "c", eos_token="<s>")).fingerprint != first
    assert load_tokenizer(write_tokenizer(tmp_path / "d", eos_token="</s>", template=True)).fingerprint != first


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "not json", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}']
)
def test_a_broken_tokenizer_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.hint


def test_a_missing_tokenizer_json_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer\.json") as caught:
        load_tokenizer(tmp_path)
    assert "lc convert" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", '{"bos_token": "<absent>"}'),
        ("tokenizer_config.json", '{"bos_token": 257}'),
        ("tokenizer_config.json", "[1]"),
        ("tokenizer_config.json", "{"),
        ("special_tokens_map.json", '"x"'),
        ("config.json", '{"bos_token_id": 5000}'),
        ("config.json", '{"bos_token_id": -1}'),
        ("config.json", '{"bos_token_id": [true]}'),
        ("generation_config.json", '{"eos_token_id": "</s>"}'),
    ],
)
def test_a_wrong_special_token_is_refused_naming_it(tmp_path: Path, name: str, content: str) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=r"(bos|eos)_token|JSON object|cannot be read"):
        load_tokenizer(tmp_path)
