"""SentencePiece vocabularies: ids as joining by score gives them, tokenizer.model, what cannot be read is refused."""

import itertools
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import pieces
from lovecraft.errors import ModelError
from lovecraft.pieces import BYTE, BYTES, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Piece
from lovecraft.tokenizer import load_tokenizer

LETTERS = "▁abth"
WORDS = ("th", "▁th", "▁▁", "ab", "bab", "aba", "abab", "tha", "▁a", "▁tha")
SPECIAL = [Piece("<unk>", 0.0, UNKNOWN), Piece("<s>", 0.0, CONTROL), Piece("</s>", 0.0, CONTROL)]


def vocabulary(words: tuple[str, ...] = WORDS) -> list[Piece]:
    """Return special tokens, bytes, words from the highest score down, and letters, as SentencePiece orders them."""
    plain = [Piece(text, -float(i), NORMAL) for i, text in enumerate([*words, *LETTERS])]
    return [*SPECIAL, *(Piece(byte, 0.0, BYTE) for byte in BYTES), *plain]


def join_by_score(rows: list[Piece], text: str, *, prefixed: bool) -> list[int]:
    """Return the ids as SentencePiece's bpe_model.cc comes to them, one join at a time."""
    scores = {piece.text: piece.score for piece in rows if piece.kind == NORMAL}
    ids = {piece.text: i for i, piece in enumerate(rows)}
    parts = list(("▁" * (prefixed and text != "") + text).replace(" ", "▁"))
    while joins := [(-scores[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in scores]:
        _, i = min(joins)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    known = ([ids[part]] if part in scores else [ids[f"<0x{byte:02X}>"] for byte in part.encode()] for part in parts)
    return [i for row in known for i in row]


@given(text=st.text("abth  é🐙\n", max_size=40), words=st.permutations(WORDS), prefixed=st.booleans())
def test_ids_are_those_of_joining_by_score(text: str, words: list[str], prefixed: bool) -> None:
    rows = vocabulary(tuple(words))
    library = pieces.build(Path("x"), rows, prefixed=prefixed)
    ids = library.encode(text, add_special_tokens=False).ids
    assert ids == join_by_score(rows, text, prefixed=prefixed)
    assert library.decode(ids) == text


@given(words=st.permutations(WORDS), prefixed=st.booleans())
def test_the_merges_say_the_scores_again(words: list[str], prefixed: bool) -> None:
    content = json.loads(pieces.build(Path("x"), vocabulary(tuple(words)), prefixed=prefixed).to_str())
    scores = pieces.scores_of(content, [*words, *LETTERS])
    assert scores is not None
    assert pieces.ways(scores) == [tuple(merge) for merge in content["model"]["merges"]]
    assert pieces.prefix_of(content) is prefixed


def test_merges_that_no_scores_say_are_seen() -> None:
    content = json.loads(pieces.build(Path("x"), vocabulary(), prefixed=True).to_str())
    merges, plain = content["model"]["merges"], [*WORDS, *LETTERS]
    ways_to_abab = [i for i, (left, right) in enumerate(merges) if left + right == "abab"]
    assert len(ways_to_abab) > 1
    apart = [*merges, merges[ways_to_abab[0]]]
    del apart[ways_to_abab[0]]
    for broken in (merges[1:], apart):
        assert pieces.scores_of(content | {"model": content["model"] | {"merges": broken}}, plain) is None


WRONG = {
    "a token twice": (vocabulary()[3], "twice"),
    "equal scores": (Piece("hab", 0.0, NORMAL), "are equal"),
    "no score": (Piece("hab", float("nan"), NORMAL), "are equal"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_vocabulary_that_merges_cannot_say_is_refused(name: str) -> None:
    row, complaint = WRONG[name]
    with pytest.raises(ModelError, match=complaint):
        pieces.build(Path("x"), [*vocabulary(), Piece("ha", -50.0, NORMAL), row], prefixed=True)


def test_a_vocabulary_without_all_bytes_is_refused() -> None:
    with pytest.raises(ModelError, match="lacks 1 bytes, such as <0x0A>"):
        pieces.build(Path("x"), [row for row in vocabulary() if row.text != "<0x0A>"], prefixed=True)


def test_whole_tokens_are_taken_whole_and_unused_ones_not_at_all() -> None:
    rows = [*vocabulary(), Piece("at", 0.0, USER_DEFINED), Piece("bath", 0.0, UNUSED)]
    library = pieces.build(Path("x"), rows, prefixed=False)
    assert library.encode("bath", add_special_tokens=False).tokens == ["b", "at", "h"]


# --- tokenizer.model --------------------------------------------------------------------------------


def number(value: int) -> bytes:
    return bytes([value & 127 | 128]) + number(value >> 7) if value > 127 else bytes([value])


def field(key: int, value: int | float | bytes) -> bytes:
    """Return a field as protobuf writes it."""
    match value:
        case int():
            return number(key << 3) + number(value)
        case float():
            return number(key << 3 | 5) + struct.pack("<f", value)
        case _:
            return number(key << 3 | 2) + number(len(value)) + value


def write_model(path: Path, rows: list[Piece], trainer: bytes | None = None, normalizer: bytes = b"") -> bytes:
    """Write tokenizer.model as Llama's is: BPE, texts as they are; later fields win over those."""
    said = [field(1, field(1, row.text.encode()) + field(2, row.score) + field(3, row.kind)) for row in rows]
    said.append(field(2, (field(3, 2) if trainer is None else trainer) + field(43, 2**64 - 1)))
    said.append(field(3, field(1, b"identity") + field(4, 0) + normalizer))
    (path / "tokenizer.model").write_bytes(b"".join(said))
    return b"".join(said)


def test_a_tokenizer_model_is_read(tmp_path: Path) -> None:
    write_model(tmp_path, vocabulary())
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos) == (1, 2, True)
    assert tokenizer.encode(" that é") == join_by_score(vocabulary(), " that é", prefixed=True)
    assert tokenizer.encode("<s>")[0] != 1  # text that spells a special token
    assert tokenizer.encode_template("<s>")[:1] == [1]


def test_a_tokenizer_model_says_whether_a_blank_comes_first(tmp_path: Path) -> None:
    write_model(tmp_path, vocabulary(), normalizer=field(3, 0))
    assert load_tokenizer(tmp_path).encode("th") == join_by_score(vocabulary(), "th", prefixed=False)


def test_added_tokens_follow_the_vocabulary(tmp_path: Path) -> None:
    rows = vocabulary()
    write_model(tmp_path, rows)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<pad>": len(rows), "<s>": 1}))
    assert load_tokenizer(tmp_path).encode_template("<pad>") == [len(rows)]
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<pad>": len(rows) + 1}))
    with pytest.raises(ModelError, match="do not follow"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("trainer", "normalizer", "complaint"),
    [
        (field(3, 1), b"", "is no BPE"),
        (b"", b"", "is no BPE"),  # where nothing is said it is a unigram model
        (None, field(2, b"charsmap"), "changes characters"),
        (None, field(4, 1), "takes out blanks"),
        (None, field(5, 0), "does not escape blanks"),
        (field(3, 2) + field(24, 1), b"", "blanks behind words"),
    ],
)
def test_another_sentencepiece_model_is_refused_by_name(
    tmp_path: Path, trainer: bytes | None, normalizer: bytes, complaint: str
) -> None:
    write_model(tmp_path, vocabulary(), trainer, normalizer)
    with pytest.raises(ModelError, match=complaint) as caught:
        load_tokenizer(tmp_path)
    assert "save_pretrained" in caught.value.hint


@given(data=st.data())
def test_a_broken_tokenizer_model_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("broken")
    whole = write_model(path, vocabulary()[:40])
    place = data.draw(st.integers(1, len(whole) - 1))
    (path / "tokenizer.model").write_bytes(whole[:place] + data.draw(st.binary(max_size=9)))
    with pytest.raises(ModelError):
        load_tokenizer(path)
