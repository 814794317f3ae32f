"""Tokenizers given as ranks, Llama 3's tokenizer.model and Mistral's tekken.json, as merges of the tokenizers library.

A rank is a byte string's turn: of all neighbours in a piece of text those are joined first that make the lowest rank.
Listing every way to make each token of two others, in the order of the ranks, says the same (docs/decisions/003).
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, processors

from lovecraft.errors import ModelError

PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]  # the bytes that a vocabulary spells by themselves
OTHERS = sorted({*range(256)} - {*PRINTED})
BYTES = {chr(byte): byte for byte in PRINTED} | {chr(256 + i): byte for i, byte in enumerate(OTHERS)}
SPELLED = {byte: character for character, byte in BYTES.items()}

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPECIALS = 256  # follow the ranks; those without a name are reserved
LLAMA3_NAMED = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 6: "start_header_id"}
LLAMA3_NAMED |= {7: "end_header_id", 8: "eom_id", 9: "eot_id", 10: "python_tag"}
LLAMA3_MARKS = ("<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")

# Where a tekken.json names no special tokens, the first of them are these.
TEKKEN_NAMED = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
TEKKEN_MARKS = ("<s>", "</s>")

Read = tuple[tokenizers.Tokenizer, Sequence[str]]
"""A tokenizer that puts BOS before a text, and its tokens BOS, EOS, and others that end a generation."""


def read_llama3(file: Path) -> Read:
    """Read a tokenizer.model of lines `base64 rank`. Raises ModelError for other content."""
    tokens: list[bytes] = []
    for number, line in enumerate(file.read_bytes().splitlines()):
        try:
            token, rank = line.split()
            tokens.append(base64.b64decode(token, validate=True))
            if int(rank) != number:
                raise ValueError(f"the rank is {int(rank)}")
        except ValueError as error:
            raise _broken(file, f"line {number + 1} is not a token in base64 and rank {number}") from error
    reserved = iter(range(LLAMA3_SPECIALS))
    names = (LLAMA3_NAMED.get(i) or f"reserved_special_token_{next(reserved)}" for i in range(LLAMA3_SPECIALS))
    special = {f"<|{name}|>": len(tokens) + i for i, name in enumerate(names)}
    return _library(file, LLAMA3_PATTERN, tokens, 0, special, LLAMA3_MARKS[0]), LLAMA3_MARKS


def read_tekken(file: Path) -> Read:
    """Read a tekken.json. Raises ModelError where it is broken."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        count, size = (content["config"][f"default_{what}"] for what in ("num_special_tokens", "vocab_size"))
        rows = content["vocab"][: size - count]
        tokens = [base64.b64decode(row["token_bytes"]) for row in rows]
        named = {row["rank"]: row["token_str"] for row in content.get("special_tokens") or ()}
        named = named or dict(enumerate(TEKKEN_NAMED))
        special = {named.get(i, f"<SPECIAL_{i}>"): i for i in range(count)}
        pattern, sound = content["config"]["pattern"], [row["rank"] for row in rows] == list(range(size - count))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(file, repr(error)) from error
    if not sound or len(special) != count or not special.keys() >= {*TEKKEN_MARKS}:
        raise _broken(file, f"it does not hold {count} special tokens and {size - count} others")
    return _library(file, pattern, tokens, count, special, TEKKEN_MARKS[0]), TEKKEN_MARKS


def _library(
    file: Path, pattern: str, tokens: list[bytes], first: int, special: dict[str, int], bos: str
) -> tokenizers.Tokenizer:
    """Return the tokenizer whose tokens, in the order of their ranks, have the ids from `first` on."""
    spelled = ["".join(map(SPELLED.__getitem__, token)) for token in tokens]
    vocab = {token: first + rank for rank, token in enumerate(spelled)}
    if len(special | vocab) < len(special) + len(tokens) or not BYTES.keys() <= vocab.keys():
        raise _broken(file, "it has a token twice, or not every byte")
    merges = [(t[:i], t[i:]) for t in spelled for i in range(1, len(t)) if t[:i] in vocab and t[i:] in vocab]
    library = tokenizers.Tokenizer(models.BPE(vocab=special | vocab, merges=merges, ignore_merges=True))
    try:
        cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    except Exception as error:  # the library raises it bare
        raise _broken(file, str(error)) from error
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([cut, bytes_only])
    library.decoder = decoders.ByteLevel()
    library.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, special[bos])])
    library.add_special_tokens(list(special))
    return library


def _broken(file: Path, what: str) -> ModelError:
    return ModelError(f"{file} cannot be read: {what}", hint="copy it again from where the model comes from")
