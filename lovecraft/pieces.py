"""SentencePiece's BPE vocabularies (Llama 2, the first Mistrals) as merges of the tokenizers library, and back.

SentencePiece joins those neighbours first that make the piece of the highest score. Listing every way to make each
piece of two others, in the order of the scores, says the same (docs/decisions/003).
"""

import io
import itertools
import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, processors

from lovecraft.errors import ModelError
from lovecraft.ranks import Read

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # kinds, numbered as in its files and in a GGUF
BLANK = "▁"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
PREPENDED = {"type": "Prepend", "prepend": BLANK}
ESCAPED = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
AGAIN = "copy it again from where the model comes from"


class Piece(NamedTuple):
    """One row of the vocabulary."""

    text: str
    score: float
    kind: int


def build(where: Path, pieces: Sequence[Piece], *, prefixed: bool) -> tokenizers.Tokenizer:
    """Return the tokenizer of a vocabulary, which puts a blank before each text where it is `prefixed`.

    Raises ModelError, with `where` it is from, for a vocabulary that merges cannot say.
    """
    used = [piece.text for piece in pieces if piece.kind != UNUSED]
    vocab = {piece.text: i for i, piece in enumerate(pieces) if piece.kind != UNUSED}
    if len(vocab) < len(used):
        raise ModelError(f"the vocabulary of {where} names a token twice", hint=AGAIN)
    if absent := [byte for byte in BYTES if byte not in vocab]:
        hint = "a SentencePiece vocabulary needs a token for each byte, or it would lose text"
        raise ModelError(f"the vocabulary of {where} lacks {len(absent)} bytes, such as {absent[0]}", hint=hint)
    scores = {piece.text: piece.score for piece in pieces if piece.kind == NORMAL}
    merges = ways(scores)
    made = {left + right for left, right in merges}
    if len({scores[text] for text in made if math.isfinite(scores[text])}) < len(made):
        hint = "take the model in Hugging Face layout, with a tokenizer.json"
        raise ModelError(f"some scores in {where} are equal, which leaves open what is joined first", hint=hint)
    unknown = next((piece.text for piece in pieces if piece.kind == UNKNOWN), None)
    library = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    escaped = normalizers.Replace(" ", BLANK)
    steps = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    library.normalizer = normalizers.Sequence([normalizers.Prepend(BLANK), escaped] if prefixed else [escaped])
    library.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    whole = [piece for piece in pieces if piece.kind in (UNKNOWN, CONTROL, USER_DEFINED)]
    library.add_tokens([AddedToken(p.text, special=p.kind != USER_DEFINED, normalized=False) for p in whole])
    return library


def ways(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return every way to make a piece of two others, those of the highest score first."""
    return [
        (text[:i], text[i:])
        for text in sorted(scores, key=scores.__getitem__, reverse=True)
        for i in range(1, len(text))
        if text[:i] in scores and text[i:] in scores
    ]


def scores_of(content: dict[str, Any], plain: Sequence[str]) -> dict[str, float] | None:
    """Return scores of the `plain` tokens that say the merges of a tokenizer.json; None where none do."""
    merges = [(left, right) for left, right in content["model"]["merges"]]
    made = [text for text, _ in itertools.groupby(left + right for left, right in merges)]
    scores = dict.fromkeys(plain, -float(len(made))) | {text: -float(i) for i, text in enumerate(made)}
    return scores if set(ways(scores)) == set(merges) and len(set(made)) == len(made) else None


def prefix_of(content: dict[str, Any]) -> bool | None:
    """Return whether a tokenizer.json puts a blank before a text; None where it is not made as SentencePiece is."""
    model, cut, normalizer = content["model"], content["pre_tokenizer"], content["normalizer"]
    if not model.get("byte_fallback") or model["ignore_merges"] or not model["vocab"].keys() >= {*BYTES}:
        return None
    if normalizer is None and adds_no_second(content) and cut["replacement"] == BLANK and not cut["split"]:
        return bool(cut["prepend_scheme"] != "never")
    steps = (normalizer or {}).get("normalizers", [normalizer])
    return len(steps) == 2 if not cut and steps in ([ESCAPED], [PREPENDED, ESCAPED]) else None


def adds_no_second(content: dict[str, Any]) -> bool:
    """Return whether a text that begins with a blank gets no other one, as newer versions of transformers have it."""
    return (content["pre_tokenizer"] or {}).get("type") == "Metaspace"


# --- tokenizer.model: ModelProto in sentencepiece_model.proto; here are the numbers of its fields ---------

PIECES, TRAINER, NORMALIZER = 1, 2, 3
TEXT, SCORE, KIND = 1, 2, 3  # of a piece
MODEL_TYPE, AS_SUFFIX, BOS_ID, EOS_ID = 3, 24, 41, 42  # of the trainer
CHARACTERS, PREFIX, EXTRA, ESCAPE = 2, 3, 4, 5  # of the normalizer
BPE = 2  # the trainer's model_type
NUMBER, SIZED, FIXED = 0, 2, {1: 8, 5: 4}  # how a field is written; the bytes where they are always as many

Fields = dict[int, list[Any]]


def read_sentencepiece(file: Path) -> Read:
    """Read a tokenizer.model of SentencePiece, and the added_tokens.json beside it.

    Raises ModelError where it is broken, or is no BPE that takes texts as they are.
    """
    try:
        model = _fields(file.read_bytes())
        pieces = [_piece(_fields(raw)) for raw in model[PIECES]]
        trainer, normalizer = (_fields(_last(model, number, b"")) for number in (TRAINER, NORMALIZER))
        pieces += _added(file.with_name("added_tokens.json"), pieces)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"{file} cannot be read: {error!r}", hint=AGAIN) from error
    odd = {
        "is no BPE": _last(trainer, MODEL_TYPE, 1) != BPE,
        "changes characters (normalization_rule_name)": _last(normalizer, CHARACTERS, b""),
        "takes out blanks (remove_extra_whitespaces)": _last(normalizer, EXTRA, 1),
        "does not escape blanks (escape_whitespaces)": not _last(normalizer, ESCAPE, 1),
        "puts blanks behind words (treat_whitespace_as_suffix)": _last(trainer, AS_SUFFIX, 0),
    }
    if what := next((what for what, holds in odd.items() if holds), None):
        hint = "transformers writes a tokenizer.json: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        raise ModelError(f"{file} is a SentencePiece model that {what}, which is not read", hint=hint)
    library = build(file, pieces, prefixed=bool(_last(normalizer, PREFIX, 1)))
    marks = {i: piece.text for i, piece in enumerate(pieces) if piece.kind == CONTROL}
    bos, eos = marks.get(_last(trainer, BOS_ID, 1), ""), marks.get(_last(trainer, EOS_ID, 2), "")
    if bos:
        places = [(bos, library.token_to_id(bos))]
        library.post_processor = processors.TemplateProcessing(single=[bos, "$A"], special_tokens=places)
    return library, (bos, eos)


def _added(file: Path, pieces: Sequence[Piece]) -> list[Piece]:
    """Return the tokens that transformers put behind a vocabulary, all of them special."""
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    known = {piece.text for piece in pieces}
    fresh = sorted((i, text) for text, i in content.items() if text not in known)
    if [i for i, _ in fresh] != list(range(len(pieces), len(pieces) + len(fresh))):
        raise ValueError(f"the ids in {file.name} do not follow its {len(pieces)} tokens")
    return [Piece(text, 0.0, CONTROL) for _, text in fresh]


def _piece(fields: Fields) -> Piece:
    (score,) = struct.unpack("<f", _last(fields, SCORE, bytes(4)))
    return Piece(fields[TEXT][-1].decode(), score, _last(fields, KIND, NORMAL))


def _last(fields: Fields, number: int, default: Any) -> Any:
    return fields.get(number, [default])[-1]


def _fields(raw: bytes) -> Fields:
    """Return the values of a protobuf message by field: numbers, or bytes. Raises ValueError or LookupError."""
    found: Fields = {}
    stream = io.BytesIO(raw)
    while stream.tell() < len(raw):
        number, wire = divmod(_number(stream), 8)
        if wire == NUMBER:
            value: int | bytes = _number(stream)
        else:
            size = _number(stream) if wire == SIZED else FIXED[wire]
            if size > len(raw) - stream.tell():
                raise ValueError("it ends in the middle of a field")
            value = stream.read(size)
        found.setdefault(number, []).append(value)
    return found


def _number(stream: io.BytesIO) -> int:
    """Read a number of seven bits a byte, the lowest first."""
    number = 0
    for place in range(0, 70, 7):
        byte = stream.read(1)[0]
        number |= (byte & 127) << place
        if byte < 128:
            return number
    raise ValueError("a number of more than ten bytes")
