"""Many texts to token ids, by tiktoken where it is shown to give the ids of the tokenizers library, which it outruns.

Byte-level BPE is merges within pieces of a text, and both halves are looked at. Merges: the library joins the pairs
that are listed, tiktoken any neighbours that make a token. They do the same where they do so for the bytes of each
token alone (docs/decisions/003 says why), which is checked. Pieces: two regex engines and two tables of characters cut
them, which no argument covers, so that ids are compared: on every pair of ASCII characters, on each other character in
several surroundings when it first comes, and on the texts themselves.
"""

import itertools
import json
import sys
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import tiktoken
import tokenizers
from tokenizers import models, normalizers

from lovecraft.tokenizer import HuggingFace, Tokenizer

COMPARED = 4_000_000  # characters that are compared at first, without a gap
EVERY = 50  # of so many parts of texts one is compared from then on
PART = 100_000  # characters at most: a whole text, where it is not longer

# How ByteLevel cuts; and how it does once all digits are taken out, when what follows blanks is hidden from it.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT2_DIGITS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"

PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]  # the bytes that a vocabulary spells by themselves
OTHERS = sorted({*range(256)} - {*PRINTED})
BYTES = {chr(byte): byte for byte in PRINTED} | {chr(256 + i): byte for i, byte in enumerate(OTHERS)}

ASCII = "".join(map(chr, range(128)))
SURROUNDINGS = ("", " ", "  ", "'", "a", "A", "1", ".", "\n")
NO_TOKEN = -1


class Differs(Exception):
    """tiktoken gave other ids than the tokenizers library, so that what it encoded so far may be wrong as well."""


class _Unlike(Exception):
    """Something in a tokenizer.json that tiktoken has not."""


@attrs.frozen(eq=False)
class Fast:
    """tiktoken in the place of a tokenizer.json."""

    library: tiktoken.Encoding
    ids: np.ndarray
    """(ranks,) int64: the id of each rank; NO_TOKEN of a byte that the vocabulary lacks."""
    normalizer: normalizers.Normalizer | None
    """What a text goes through that is not all ASCII."""
    added: list[str]
    """Tokens that are looked for in every text."""

    def encode(self, text: str) -> np.ndarray:
        """Return the ids (tokens,) of a text.

        Raises ValueError where it cannot: the text has a byte without a token, which the tokenizers library leaves out
        before it merges, or half a million blanks in a row, for which the regex has no room.
        """
        if self.normalizer is not None and not text.isascii():
            text = self.normalizer.normalize_str(text)
        found = self.ids[self.library.encode_to_numpy(text, allowed_special="all", disallowed_special=())]
        if found.min(initial=0) == NO_TOKEN:
            raise ValueError("a byte has no token")
        return found

    def around(self, character: str) -> str:
        """Return a text that has a character in many surroundings."""
        return "".join(character + before + character for before in (*SURROUNDINGS, *self.added))

    def ascii_pairs(self) -> str:
        """Return a text of every two ASCII characters that have tokens, one behind the other."""
        tokens = {c: self.library.encode_single_token(c.encode()) for c in ASCII}
        pairs = itertools.product((c for c, rank in tokens.items() if self.ids[rank] != NO_TOKEN), repeat=2)
        return "".join(a + b for a, b in pairs)


class BulkEncoder:
    """Encodes batches of texts, by tiktoken where it can, and counts what was compared with the tokenizers library."""

    def __init__(self, tokenizer: Tokenizer, distrust: str = "") -> None:
        """Take in `distrust` why tiktoken is not to run, where it is not."""
        self._tokenizer = tokenizer
        self._kind = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        self._fast, self._reason = (None, distrust) if distrust else _find_fast(tokenizer)
        self._probes = [] if self._fast is None else [self._fast.ascii_pairs(), self._fast.around("a")]
        self._seen = np.arange(sys.maxunicode + 1) < len(ASCII)  # (code points,)
        self._parts = self._compared = self._characters = 0

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids (tokens,) of each text, no BOS and no EOS, as uint16 where the vocabulary fits, else uint32.

        Raises Differs: all texts are then to be encoded again, by `BulkEncoder(tokenizer, str(error))`.
        """
        if self._fast is None:
            return [np.array(ids, self._kind) for ids in self._tokenizer.encode_batch(texts)]
        parts = (text[start : start + PART] for text in texts for start in range(0, len(text), PART))
        due = [part for part in parts if self._due(part, self._fast)] + self._probes
        self._probes = []
        for part, right in zip(due, self._tokenizer.encode_batch(due), strict=True):
            found = self._encode(part, self._fast).tolist()
            if found != right:
                raise Differs(f"tiktoken has other ids for {self._difference(found, right)!r}")
        return [self._encode(text, self._fast) for text in texts]

    def report(self) -> str:
        """Return which library ran, and why, or what that rests on."""
        if not isinstance(self._tokenizer.backend, HuggingFace):
            return "encoded by tiktoken, as the tokenizer's makers do"
        if self._fast is None:
            return f"encoded by the tokenizers library: {self._reason}"
        return (
            f"encoded by tiktoken, whose ids were those of the tokenizers library wherever they were compared: "
            f"{self._compared:,} of {self._parts:,} parts, {self._characters:,} characters"
        )

    def _encode(self, text: str, fast: Fast) -> np.ndarray:
        try:
            return fast.encode(text).astype(self._kind)
        except ValueError:
            return np.array(self._tokenizer.encode(text), self._kind)

    def _due(self, part: str, fast: Fast) -> bool:
        """Count a part of a text, note what new characters are to be tried, return whether it is to be compared."""
        new: list[int] = []
        if not part.isascii():
            codes = np.frombuffer(part.encode("utf-32-le"), np.uint32)
            new = np.unique(codes[~self._seen[codes]]).tolist()
            self._seen[new] = True
        self._probes += [fast.around(chr(code)) for code in new]
        self._parts += 1
        due = bool(new) or self._characters < COMPARED or self._parts % EVERY == 0
        self._compared += due
        self._characters += due * len(part)
        return due

    def _difference(self, found: Sequence[int], right: Sequence[int]) -> str:
        same = next((i for i, (a, b) in enumerate(zip(found, right, strict=False)) if a != b), 0)
        return self._tokenizer.decode(right[max(0, same - 2) : same + 3])


# --- from tokenizer.json to tiktoken --------------------------------------------------------------


def _find_fast(tokenizer: Tokenizer) -> tuple[Fast | None, str]:
    """Return tiktoken in the place of a tokenizer.json, or None and why it cannot take it."""
    if not isinstance(tokenizer.backend, HuggingFace):
        return None, ""
    try:
        return _translate(tokenizer.backend.library), ""
    except _Unlike as error:
        return None, str(error)
    except ValueError as error:
        return None, f"tiktoken does not take its regex: {error}"


def _translate(library: tokenizers.Tokenizer) -> Fast:
    content = json.loads(library.to_str())
    if content["normalizer"] not in (None, {"type": "NFC"}):
        raise _Unlike("tiktoken normalizes nothing")
    words = [token for token in content["added_tokens"] if not token["special"]]
    if any(token[key] for token in words for key in ("lstrip", "rstrip", "single_word")):
        raise _Unlike("tiktoken takes no blanks around added tokens")
    pattern = _pattern(content["pre_tokenizer"])
    order = _order(content["model"])
    vocab = content["model"]["vocab"]
    fast = tiktoken.Encoding(
        "tokenizer.json",
        pat_str=pattern,
        mergeable_ranks={bytes(BYTES[c] for c in token): rank for rank, token in enumerate(order)},
        special_tokens={token["content"]: len(order) + i for i, token in enumerate(words)},
    )
    ids = np.array([*(vocab.get(token, NO_TOKEN) for token in order), *(token["id"] for token in words)])
    return Fast(fast, ids, library.normalizer, [token["content"] for token in words])


def _pattern(splitting: Any) -> str:
    """Return the regex that cuts a text as the `pre_tokenizer` of a tokenizer.json says."""
    match splitting:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            ],
        }:
            return GPT2_DIGITS
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return regex
    raise _Unlike("tiktoken does not cut texts as it does")


def _order(model: dict[str, Any]) -> list[str]:
    """Return the tokens in the order of their merges, bytes first, if joining by that order makes the same tokens."""
    unknown = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if model["type"] != "BPE" or any(model[key] for key in unknown):
        raise _Unlike("it is not byte-level BPE")
    vocab, merges = model["vocab"], [(a, b) for a, b in model["merges"]]
    order = [*BYTES, *(token for token, _ in itertools.groupby(a + b for a, b in merges))]
    known = set(order)
    if len(known) < len(order) or not all(known.issuperset(pair) for pair in merges):
        raise _Unlike("its merges are in an order that tiktoken does not know")
    if model["ignore_merges"]:  # what is a token is not merged: also one that no merge makes
        order += [token for token in vocab if token not in known and BYTES.keys() >= {*token}]
    library = models.BPE(vocab=vocab, merges=merges)
    for token in order[len(BYTES) :]:
        parts = len(library.tokenize(token))
        if parts == 2 or (parts > 2 and not model["ignore_merges"]):
            raise _Unlike(f"its merges make no {token!r} of that token's own bytes, where tiktoken would")
    return order
