"""Tokenizers given as ranks: Llama 3's tokenizer.model and Mistral's tekken.json, run by tiktoken as their makers do.

A rank is a byte string's turn: of all neighbours in a piece of text those are joined first that make the lowest rank.
"""

import base64
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import tiktoken

from lovecraft.errors import ModelError

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPECIALS = 256  # follow the ranks; most are only reserved
LLAMA3_NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}
LLAMA3_ENDS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")  # of a text, a message, a turn

# Where a tekken.json names no special tokens, the first of them are these.
TEKKEN_NAMED = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)


@attrs.frozen(eq=False)
class Ranks:
    """Ranks and special tokens. Its ids are those of its makers' own tokenizers, which run the same library."""

    library: tiktoken.Encoding = attrs.field(repr=False)
    special: Mapping[str, int] = attrs.field(repr=False)
    vocab_size: int
    named: Mapping[str, int]
    """The ids of bos and eos."""
    ends: tuple[int, ...]
    """Ids that end a generation."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, in which nothing is special."""
        try:
            return self.library.encode(text, disallowed_special=())
        except ValueError:  # the regex has no room for a run of half a million blanks
            half = len(text) // 2
            return self.encode(text[:half]) + self.encode(text[half:])

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, as `encode` does."""
        return [self.encode(text) for text in texts]

    def encode_template(self, text: str) -> list[int]:
        """Return the ids of `text`, in which special tokens are themselves."""
        return self.library.encode(text, allowed_special="all")

    def encode_with_offsets(self, text: str, template: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids of `text`, and the first character and the one behind the last that each stands for."""
        ids = self.encode_template(text) if template else self.encode(text)
        number = list(itertools.accumulate(byte & 0xC0 != 0x80 for byte in text.encode()))  # of the character, from 1
        ends = list(itertools.accumulate(map(len, self.library.decode_tokens_bytes(ids))))
        starts = [0, *ends][: len(ids)]
        return ids, [(number[start] - 1, number[end - 1]) for start, end in zip(starts, ends, strict=True)]

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """Return the text of `ids`."""
        return self.library.decode([i for i in ids if not (skip_special and i in self._special_ids)])

    def id_of(self, token: str) -> int | None:
        """Return the id of a special token."""
        return self.special.get(token)

    def special_texts(self, ends: Sequence[int]) -> list[str]:
        """Return how the special tokens are spelled; `ends` are among them."""
        return list(self.special)

    @property
    def begins(self) -> int | None:
        """The token that it puts before a text: both makers put BOS."""
        return self.named.get("bos")

    @functools.cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.special.values())


def read_llama3(file: Path) -> Ranks:
    """Read a tokenizer.model of lines `base64 rank`. Raises ModelError for other content, such as SentencePiece's."""
    ranks: dict[bytes, int] = {}
    data = file.read_bytes()
    if data.startswith(b"\n"):  # the tag of the first field of its protobuf
        raise ModelError(
            f"{file} is a SentencePiece model, which is not read, and there is no tokenizer.json beside it",
            hint="transformers writes one: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
        )
    for number, line in enumerate(data.splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise _broken(file, f"line {number} is not a token in base64 and its rank") from error
    reserved = iter(range(LLAMA3_SPECIALS))
    names = [LLAMA3_NAMED.get(i) or f"<|reserved_special_token_{next(reserved)}|>" for i in range(LLAMA3_SPECIALS)]
    special = {name: len(ranks) + i for i, name in enumerate(names)}
    return _ranks(file, LLAMA3_PATTERN, ranks, special, "<|begin_of_text|>", LLAMA3_ENDS)


def read_tekken(file: Path) -> Ranks:
    """Read a tekken.json. Raises ModelError where it is broken."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        config = content["config"]
        count, size, pattern = (config[key] for key in ("default_num_special_tokens", "default_vocab_size", "pattern"))
        tokens = [(row["rank"], base64.b64decode(row["token_bytes"])) for row in content["vocab"][: size - count]]
        ranks = {token: count + rank for rank, token in tokens}
        named = {row["rank"]: row["token_str"] for row in content.get("special_tokens") or ()}
        named = named or dict(enumerate(TEKKEN_NAMED))
        special = {named.get(i, f"<SPECIAL_{i}>"): i for i in range(count)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(file, repr(error)) from error
    if len(ranks) != size - count or len(special) != count:
        raise _broken(file, f"it does not hold {count} special tokens and {size - count} others")
    return _ranks(file, pattern, ranks, special, "<s>", ("</s>",))


def _ranks(
    file: Path, pattern: str, ranks: dict[bytes, int], special: dict[str, int], bos: str, ends: Sequence[str]
) -> Ranks:
    size = len(ranks) + len(special)
    if sorted([*ranks.values(), *special.values()]) != list(range(size)):
        raise _broken(file, "its ranks are not 0, 1, 2, … without a gap")
    if not all(bytes([byte]) in ranks for byte in range(256)):
        raise _broken(file, "it lacks tokens of single bytes")
    try:
        library = tiktoken.Encoding(file.name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    except ValueError as error:
        raise _broken(file, str(error)) from error
    named = {kind: special[token] for kind, token in (("bos", bos), ("eos", ends[0])) if token in special}
    return Ranks(library, special, size, named, tuple(special[end] for end in ends if end in special))


def _broken(file: Path, what: str) -> ModelError:
    return ModelError(f"{file} cannot be read: {what}", hint="copy it again from where the model comes from")
