"""A tokenizer as a GGUF says it, both ways: vocabulary, merges, and the name of how a text is cut."""

import json
import logging
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, processors
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split

from lovecraft import pieces
from lovecraft.convert.gguf import BROKEN, GGUF, Value
from lovecraft.errors import ModelError
from lovecraft.pieces import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Piece
from lovecraft.tokenizer import Tokenizer

log = logging.getLogger(__name__)

SENTENCEPIECE = "llama"  # llama.cpp's name of the kind; a byte-level BPE is "gpt2"
NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
ENDS = ("eos", "eot", "eom")  # of a text, a turn, a message: each ends a generation

BYTES = ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = ByteLevel(add_prefix_space=False, use_regex=True)
DIGITS = Digits(individual_digits=True)
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = Split(Regex(WORDS + r"|\p{N}{1,3}" + REST), "isolated")
QWEN2 = Split(Regex(WORDS + r"|\p{N}" + REST), "isolated")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
TEKKEN = Split(
    Regex(CASED + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "isolated",
)
# What llama.cpp does where the writer of the file did not know the splitting.
UNNAMED = (
    Split(Regex(r"[\p{P}\$\+<=>\^~\|]+"), "isolated"),
    Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"), "isolated"),
    Split(Regex(r"\p{N}+"), "isolated"),
    Split(Regex(r"[0-9][0-9][0-9]"), "isolated"),
)


@attrs.frozen
class Splitting:
    """How a text is cut before the merges, and what llama.cpp ties to that name besides."""

    steps: tuple[PreTokenizer, ...]

    ignore_merges: bool = False
    """A piece that is in the vocabulary is that token, whatever the merges say."""

    normalizes: bool = False
    """Characters are composed first (NFC), which llama.cpp leaves out."""

    adds_bos: bool = False
    """Whether BOS is put before a text, where the file does not say."""


# tokenizer.ggml.pre. The meaning of each name is that of llama.cpp's llama-vocab.cpp.
SPLITTINGS = {
    "default": Splitting((*UNNAMED, BYTES)),
    "gpt-2": Splitting((GPT2,)),
    "llama-bpe": Splitting((LLAMA3, BYTES), ignore_merges=True, adds_bos=True),
    "smollm": Splitting((DIGITS, GPT2)),
    "qwen2": Splitting((QWEN2, BYTES), normalizes=True),
    "tekken": Splitting((TEKKEN, BYTES), ignore_merges=True, adds_bos=True),
}


def tokenizer_files(gguf: GGUF, max_length: int) -> dict[str, str]:
    """Return tokenizer.json, tokenizer_config.json and generation_config.json.

    Raises ModelError for a kind of tokenizer that cannot be rebuilt, or whose parts do not fit together.
    """
    ids = special_ids(gguf)
    named = {name: gguf.value("tokenizer.ggml.tokens", list)[ids[key]] for name, key in NAMED.items() if key in ids}
    if gguf.value("tokenizer.ggml.model", str) == SENTENCEPIECE:
        prefixed, habit = gguf.value("tokenizer.ggml.add_space_prefix", bool, True), True
        backend = _sentencepiece(gguf, prefixed)
    else:
        splitting = _splitting(gguf)
        prefixed, habit = False, splitting.adds_bos
        backend = _byte_level_bpe(gguf, splitting)
    adds_bos = gguf.value("tokenizer.ggml.add_bos_token", bool, habit) and "bos" in ids
    adds_eos = gguf.value("tokenizer.ggml.add_eos_token", bool, False) and "eos" in ids
    if adds_bos or adds_eos:
        template = [named["bos_token"]] * adds_bos + ["$A"] + [named["eos_token"]] * adds_eos
        backend.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(token, backend.token_to_id(token)) for token in template if token != "$A"]
        )
    config = {
        **named,
        "add_bos_token": adds_bos,
        "add_eos_token": adds_eos,
        "add_prefix_space": prefixed,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if "tokenizer.chat_template" in gguf.metadata:
        config["chat_template"] = gguf.value("tokenizer.chat_template", str)
    ends = {"bos_token_id": ids.get("bos"), "eos_token_id": end_ids(ids), "pad_token_id": ids.get("padding")}
    return {
        "tokenizer.json": backend.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        "generation_config.json": json.dumps({k: v for k, v in ends.items() if v is not None}, indent=2) + "\n",
    }


def special_ids(gguf: GGUF) -> dict[str, int]:
    """Return the ids of the special tokens that the file names, by llama.cpp's words for them."""
    size, ids = len(gguf.value("tokenizer.ggml.tokens", list)), {}
    for name in dict.fromkeys([*NAMED.values(), *ENDS]):
        key = f"tokenizer.ggml.{name}_token_id"
        if key in gguf.metadata:
            ids[name] = gguf.value(key, int)
            if not 0 <= ids[name] < size:
                raise ModelError(f"{key} in {gguf.path} is {ids[name]}, there are {size} tokens", hint=BROKEN)
    return ids


def end_ids(ids: dict[str, int]) -> int | list[int] | None:
    """Return what ends a generation as Hugging Face's configs spell it: an id, a list of several, or null."""
    ends = list(dict.fromkeys(ids[name] for name in ENDS if name in ids))
    return ends if len(ends) > 1 else next(iter(ends), None)


def _splitting(gguf: GGUF) -> Splitting:
    kind, name = gguf.value("tokenizer.ggml.model", str), gguf.value("tokenizer.ggml.pre", str, "")
    if kind == "gpt2" and name in SPLITTINGS:
        return SPLITTINGS[name]
    raise ModelError(
        f"{gguf.path} has a tokenizer of the kind {kind!r}, split by {name!r}, which cannot be rebuilt",
        hint=f"'llama' can be, and 'gpt2' split by {', '.join(SPLITTINGS)}; others come in Hugging Face layout",
    )


def _tokens(gguf: GGUF) -> tuple[list[str], list[int]]:
    """Return the vocabulary and the kind of each token."""
    tokens = gguf.value("tokenizer.ggml.tokens", list)
    kinds = gguf.value("tokenizer.ggml.token_type", np.ndarray, np.ones(len(tokens), np.int32)).tolist()
    used = [token for token, kind in zip(tokens, kinds, strict=False) if kind != UNUSED]
    if len(kinds) != len(tokens) or len(set(used)) < len(used):
        raise ModelError(f"the vocabulary of {gguf.path} names a token twice or leaves a type out", hint=BROKEN)
    return tokens, kinds


def _sentencepiece(gguf: GGUF, prefixed: bool) -> tokenizers.Tokenizer:
    tokens, kinds = _tokens(gguf)
    scores = gguf.value("tokenizer.ggml.scores", np.ndarray).tolist()
    if len(scores) != len(tokens):
        raise ModelError(f"{gguf.path} has {len(scores)} scores for {len(tokens)} tokens", hint=BROKEN)
    drops = gguf.value("tokenizer.ggml.remove_extra_whitespaces", bool, False)
    if drops or "tokenizer.ggml.precompiled_charsmap" in gguf.metadata:
        what = f"the tokenizer of {gguf.path} changes texts first (blanks, characters), which cannot be rebuilt"
        raise ModelError(what, hint="such a model comes in Hugging Face layout")
    rows = [Piece(*row) for row in zip(tokens, scores, kinds, strict=True)]
    return pieces.build(gguf.path, rows, prefixed=prefixed)


def _byte_level_bpe(gguf: GGUF, splitting: Splitting) -> tokenizers.Tokenizer:
    tokens, types = _tokens(gguf)
    vocabulary = {token: i for i, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind != UNUSED}
    merges = [tuple(merge.split(" ")) for merge in gguf.value("tokenizer.ggml.merges", list)]
    try:
        model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=splitting.ignore_merges)
    except Exception as error:  # the library raises it bare
        raise ModelError(f"the merges of {gguf.path} do not fit its vocabulary: {error}", hint=BROKEN) from error
    backend = tokenizers.Tokenizer(model)
    if splitting.normalizes:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = Sequence(list(splitting.steps))
    backend.decoder = decoders.ByteLevel()
    whole = [(token, kind) for token, kind in zip(tokens, types, strict=True) if kind in (CONTROL, USER_DEFINED)]
    backend.add_tokens([AddedToken(token, special=kind == CONTROL, normalized=False) for token, kind in whole])
    return backend


# --- out --------------------------------------------------------------------------------------------


def tokenizer_metadata(tokenizer: Tokenizer, files: Mapping[str, bytes], rows: int) -> dict[str, Value]:
    """Return what a GGUF says of a tokenizer with the given files, whose model has an embedding of so many rows.

    Raises ModelError for a kind that cannot be said.
    """
    library, content = tokenizer.library, json.loads(tokenizer.library.to_str())
    tokens, types = [f"[PAD{i}]" for i in range(rows)], [UNUSED] * rows  # llama.cpp wants a token for each row
    for token, i in library.get_vocab().items():
        tokens[i], types[i] = token, NORMAL
    for i, added in library.get_added_tokens_decoder().items():
        types[i] = CONTROL if added.special else USER_DEFINED
    config = {"unk_token": content["model"]["unk_token"]} | json.loads(files.get("tokenizer_config.json", b"{}"))
    ids = {key: _token_id(library, config.get(name)) for name, key in NAMED.items()}
    ids |= {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
    ids |= dict(zip(ENDS[1:], [i for i in tokenizer.stop_ids if i != tokenizer.eos_id], strict=False))
    said: dict[str, Value | None] = {
        **_cut(tokenizer, content, tokens, types),
        "ggml.tokens": tokens,
        "ggml.token_type": np.array(types, "<i4"),
        **{f"ggml.{key}_token_id": i for key, i in ids.items()},
        "ggml.add_bos_token": tokenizer.adds_bos,
        "ggml.add_eos_token": config.get("add_eos_token") is True,
        "chat_template": _template(files, config),
    }
    return {f"tokenizer.{key}": value for key, value in said.items() if value is not None}


def _cut(tokenizer: Tokenizer, content: dict[str, Any], tokens: list[str], types: list[int]) -> dict[str, Value]:
    """Return what says how texts become tokens; in SentencePiece's kind, bytes get a type of their own."""
    prefixed = pieces.prefix_of(content)
    if prefixed is None:
        merges = [" ".join(merge) for merge in content["model"]["merges"]]
        return {"ggml.model": "gpt2", "ggml.pre": _name_of(tokenizer, content), "ggml.merges": merges}
    own = dict.fromkeys(pieces.BYTES, BYTE) | {content["model"]["unk_token"]: UNKNOWN}
    types[:] = [own.get(token, kind) for token, kind in zip(tokens, types, strict=True)]
    plain = [token for token, kind in zip(tokens, types, strict=True) if kind == NORMAL]
    scores = pieces.scores_of(content, plain)
    if scores is None:
        what = f"the merges of {tokenizer.path} are not every way to make its tokens, in an order of the tokens"
        raise ModelError(f"{what}, so that no scores say them", hint="llama.cpp has no other form of such a tokenizer")
    if prefixed and pieces.adds_no_second(content):
        log.warning(
            "llama.cpp puts a blank before every text and behind special tokens; this tokenizer does not where a blank "
            "is already, and only at the beginning"
        )
    ordered = np.array([scores.get(token, 0.0) for token in tokens], "<f4")
    return {
        "ggml.model": SENTENCEPIECE,
        "ggml.pre": "default",
        "ggml.scores": ordered,
        "ggml.add_space_prefix": prefixed,
    }


def _name_of(tokenizer: Tokenizer, content: dict[str, Any]) -> str:
    """Return the name of the splitting that a tokenizer.json describes."""
    model, normalizer, backend = content["model"], content["normalizer"], tokenizers.Tokenizer(models.BPE())
    plain = {"type": "BPE", "byte_fallback": False, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    if {key: model.get(key) or value for key, value in plain.items()} == plain:
        for name, splitting in SPLITTINGS.items():
            backend.pre_tokenizer = Sequence(list(splitting.steps))
            same = _steps(json.loads(backend.to_str())["pre_tokenizer"]) == _steps(content["pre_tokenizer"])
            composes = {"type": "NFC"} if splitting.normalizes else None
            if same and normalizer == composes and model["ignore_merges"] is splitting.ignore_merges:
                return name
    raise ModelError(
        f"the tokenizer of {tokenizer.path} cuts texts in a way that no GGUF name stands for",
        hint=f"SentencePiece's BPE can be written, and a byte-level one cut as {', '.join(SPLITTINGS)}",
    )


def _steps(described: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the steps of a pre-tokenizer in tokenizer.json, without what has no influence on the ids."""
    steps = (described or {}).get("pretokenizers") or [described or {}]
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]


def _token_id(library: tokenizers.Tokenizer, token: object) -> int | None:
    """Return the id of a token spelled as a string or as {"content": string}."""
    text = token.get("content") if isinstance(token, dict) else token
    return library.token_to_id(text) if isinstance(text, str) else None


def _template(files: Mapping[str, bytes], config: dict[str, Any]) -> str | None:
    """Return the chat template: the file's, or that of tokenizer_config.json, of several the default one."""
    if "chat_template.jinja" in files:
        return files["chat_template.jinja"].decode()
    given = config.get("chat_template")
    if isinstance(given, list):
        given = next((row["template"] for row in given if row.get("name") == "default"), None)
    return given
