"""Files of ranks: the ids are those of tiktoken and of the makers' own layout, whatever the text."""

import base64
import json
from pathlib import Path

import pytest
import tiktoken
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import TikTokenConverter

from lovecraft.engine.detokenizer import Detokenizer
from lovecraft.errors import ModelError
from lovecraft.ranks import LLAMA3_PATTERN
from lovecraft.tokenizer import Tokenizer, load_tokenizer

TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+|[\p{L}\p{M}]+"
)
TEXT = "The bell of the old church didn't ring in 1928.\n\nÇa et là l'été: ЖЩ 漢字かな 😀👍🏽 ½ ٣\r\n\t the the bell\n"
SPECIALS = 20  # of a small tekken.json
WORDS = st.sampled_from(
    ["the ", "bell's", "'S", "  \n", "12345", " ½", "漢字", "é", "<s>", "<|eot_id|>", "[INST]", "😀"]
)
ANY_TEXT = st.lists(st.one_of(st.text(), WORDS)).map("".join)


def small_ranks() -> dict[bytes, int]:
    """Return the ranks of a small BPE that the tokenizers library trains, in the order of its merges."""
    library = tokenizers.Tokenizer(models.BPE())
    splitting = pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([splitting, bytes_only])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=380, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([TEXT] * 3, trainer)
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printed]
    spelled = {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(rest)}
    merged = (a + b for a, b in json.loads(library.to_str())["model"]["merges"])
    tokens = [*(bytes([byte]) for byte in range(256)), *(bytes(spelled[c] for c in token) for token in merged)]
    return {token: rank for rank, token in enumerate(dict.fromkeys(tokens))}


RANKS = small_ranks()


def write_ranks(path: Path) -> Path:
    """Write a small tokenizer.model as Llama 3's is written."""
    path.mkdir(parents=True, exist_ok=True)
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in RANKS.items()]
    (path / "tokenizer.model").write_text("".join(lines))
    return path


def tekken() -> dict:
    """Return the content of a small tekken.json: more tokens than its vocabulary takes, as in Mistral's."""
    rows = [{"rank": r, "token_bytes": base64.b64encode(t).decode(), "token_str": None} for t, r in RANKS.items()]
    size = len(RANKS) - 10 + SPECIALS
    config = {"pattern": TEKKEN_PATTERN, "default_vocab_size": size, "default_num_special_tokens": SPECIALS}
    return {"config": config | {"num_vocab_tokens": len(RANKS), "version": "v3"}, "vocab": rows}


def write_tekken(path: Path, content: object) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "tekken.json").write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def llama3(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(write_ranks(tmp_path_factory.mktemp("llama3")))


@pytest.fixture(scope="module")
def nemo(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(write_tekken(tmp_path_factory.mktemp("nemo"), tekken()))


@pytest.fixture(scope="module", params=["llama3", "nemo"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


@given(text=ANY_TEXT)
def test_llama3s_ids_are_tiktokens_and_those_of_the_converted_tokenizer(llama3: Tokenizer, text: str) -> None:
    plain = tiktoken.Encoding("plain", pat_str=LLAMA3_PATTERN, mergeable_ranks=RANKS, special_tokens={})
    assert llama3.encode(text) == plain.encode_ordinary(text)
    converted = TikTokenConverter(str(llama3.path / "tokenizer.model")).converted()
    assert llama3.encode(text) == converted.encode(text).ids


@given(text=ANY_TEXT)
def test_nemos_ids_are_ranks_behind_the_special_tokens(nemo: Tokenizer, text: str) -> None:
    kept = {token: rank for token, rank in RANKS.items() if rank < len(RANKS) - 10}
    plain = tiktoken.Encoding("plain", pat_str=TEKKEN_PATTERN, mergeable_ranks=kept, special_tokens={})
    assert nemo.encode(text) == [rank + SPECIALS for rank in plain.encode_ordinary(text)]


@given(text=ANY_TEXT)
def test_decode_undoes_encode(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text]) == [ids]
    assert tokenizer.decode(tokenizer.encode_template(text), skip_special=False) == text
    stream = Detokenizer(tokenizer.decode)
    assert "".join([*map(stream.push, ids), stream.flush()]) == text


@given(text=ANY_TEXT)
def test_offsets_are_the_characters_of_each_token(tokenizer: Tokenizer, text: str) -> None:
    for template in (False, True):
        ids, offsets = tokenizer.encode_with_offsets(text, template=template)
        assert ids == (tokenizer.encode_template if template else tokenizer.encode)(text)
        for token, (start, end) in zip(ids, offsets, strict=True):
            assert tokenizer.decode([token], skip_special=False).strip("\ufffd") in text[start:end]
        assert {i for start, end in offsets for i in range(start, end)} == set(range(len(text)))


def test_llama3s_special_tokens_follow_the_ranks(llama3: Tokenizer) -> None:
    n = len(RANKS)
    assert (llama3.bos_id, llama3.eos_id, llama3.stop_ids) == (n, n + 1, (n + 1, n + 8, n + 9))
    assert llama3.vocab_size == n + 256
    assert llama3.adds_bos
    names = ["<|reserved_special_token_0|>", "<|start_header_id|>", "<|reserved_special_token_247|>"]
    assert [llama3.encode_template(name) for name in names] == [[n + 2], [n + 6], [n + 255]]


def test_nemos_special_tokens_come_first(nemo: Tokenizer) -> None:
    assert (nemo.bos_id, nemo.eos_id, nemo.stop_ids) == (1, 2, (2,))
    assert nemo.vocab_size == len(RANKS) - 10 + SPECIALS
    assert nemo.adds_bos
    assert nemo.encode_template("<s>[INST]") == [1, 3]
    assert nemo.decode([1, 3, 4]) == ""
    assert nemo.decode([1, 3, 4], skip_special=False) == "<s>[INST][/INST]"


def test_a_tekken_json_may_name_its_special_tokens(tmp_path: Path) -> None:
    named = [
        {"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(["<unk>", "<s>", "</s>", "[X]"])
    ]
    tokenizer = load_tokenizer(write_tekken(tmp_path, tekken() | {"special_tokens": named}))
    assert tokenizer.encode_template("[X]<SPECIAL_4>") == [3, 4]


def test_text_that_spells_a_special_token_is_text(tokenizer: Tokenizer) -> None:
    for name in ("<|eot_id|>", "</s>"):
        assert len(tokenizer.encode(name)) > 1
    assert tokenizer.special.fullmatch("</s>" if tokenizer.bos_id == 1 else "<|eot_id|>")


def test_the_models_configs_come_before_the_formats_own(tmp_path: Path) -> None:
    write_tekken(tmp_path, tekken())
    (tmp_path / "config.json").write_text('{"eos_token_id": [4, 2]}')
    assert load_tokenizer(tmp_path).stop_ids == (4, 2)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "[INST]"}')
    assert load_tokenizer(tmp_path).bos_id == 3


def test_the_fingerprint_is_of_the_file(tmp_path: Path, llama3: Tokenizer) -> None:
    assert load_tokenizer(write_ranks(tmp_path / "a")).fingerprint == llama3.fingerprint
    content = tekken()
    first = load_tokenizer(write_tekken(tmp_path / "b", content)).fingerprint
    content["config"]["default_vocab_size"] -= 1
    assert load_tokenizer(write_tekken(tmp_path / "b", content)).fingerprint != first


def test_a_run_of_blanks_too_long_for_the_regex_is_encoded_all_the_same(llama3: Tokenizer) -> None:
    text = " " * 1_000_000 + "a"
    assert llama3.decode(llama3.encode(text)) == text


@pytest.mark.parametrize(
    "data",
    [b"", b"IQ==", b"IQ== x", b"IQ== 0 1", b"?? 0", b"IQ== 0\nIg== 2", b"IQ== 0\nIg== 1"],
)
def test_a_broken_tokenizer_model_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(ModelError, match=r"tokenizer\.model cannot be read"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"config": {}},
        {"config": None},
        {"vocab": []},
        {"vocab": [{"rank": 0}]},
        {"vocab": list(reversed(tekken()["vocab"]))},
        {"special_tokens": [{"rank": 0, "token_str": "x"}, {"rank": 1, "token_str": "x"}]},
        {"special_tokens": [{"rank": 0}]},
        {"config": tekken()["config"] | {"pattern": "("}},
        {"config": tekken()["config"] | {"default_vocab_size": 10**6}},
        {"config": tekken()["config"] | {"default_vocab_size": "1"}},
    ],
)
def test_a_broken_tekken_json_is_refused(tmp_path: Path, change: dict) -> None:
    write_tekken(tmp_path, tekken() | change)
    with pytest.raises(ModelError, match=r"tekken\.json cannot be read"):
        load_tokenizer(tmp_path)
