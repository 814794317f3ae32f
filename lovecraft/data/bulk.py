"""Many texts to token ids, by tiktoken where it is shown to give the ids of the tokenizers library, which it outruns.

Byte-level BPE is merges within pieces of a text, and both halves are looked at. Merges: the library joins the pairs
that are listed, tiktoken any neighbours that make a token. They do the same where they do so for the bytes of each
token alone (docs/decisions/003 says why), which is checked. Pieces: two regex engines and two tables of characters cut
them, which no argument covers, so that ids are compared: each character in several surroundings when it first comes,
and the texts themselves.
"""

import itertools
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tiktoken
import tokenizers
from tokenizers import models

from lovecraft.ranks import BYTES
from lovecraft.tokenizer import Tokenizer

COMPARED = 4_000_000  # characters that are compared at first, without a gap
EVERY = 50  # of so many parts of texts one is compared from then on
PART = 100_000  # characters at most: a whole text, where it is not longer
SURROUNDINGS = ("", " ", "  ", "'", "'s", "a", "A", "1", ".", "\n", "\r\n", "\t")
NO_TOKEN, AN_END = -1, -2

# How ByteLevel cuts, the most frequent first; and how it does once all digits are taken out, when what follows blanks
# is hidden from it.
GPT2 = r" ?\p{L}+|'(?:[sdmt]|ll|ve|re)| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT2_DIGITS = r" ?\p{L}+|'(?:[sdmt]|ll|ve|re)|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
# A special token behind each text, for one call encodes many: threads wait less for each other. No end of a text and no
# part of it make another one.
END = "\0end"
# What decides of the steps of a `pre_tokenizer`.
DECIDES = ("type", "add_prefix_space", "use_regex", "individual_digits", "behavior", "invert")
BY_GPT2 = ("ByteLevel", False, True, None, None, None)
DIGITS = ("Digits", None, None, True, None, None)
SPLIT = ("Split", None, None, None, "Isolated", False)
BYTES_ONLY = ("ByteLevel", False, False, None, None, None)


class Differs(Exception):
    """tiktoken gave other ids than the tokenizers library, so that what it encoded so far may be wrong as well."""


def unspelled_bytes(tokenizer: Tokenizer) -> bytes:
    """Return the bytes that a byte-level vocabulary has no token for: what they spell, the library leaves out."""
    if "ByteLevel" not in str(tokenizer.library.pre_tokenizer):
        return b""
    return bytes(byte for character, byte in BYTES.items() if tokenizer.library.token_to_id(character) is None)


class BulkEncoder:
    """Encodes batches of texts, by tiktoken where it can, and counts what was compared with the tokenizers library."""

    def __init__(self, tokenizer: Tokenizer, distrust: str = "") -> None:
        """Take in `distrust` why tiktoken is not to run, where it is not."""
        self._tokenizer = tokenizer
        self._kind = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        self._seen = np.zeros(sys.maxunicode + 1, bool)  # (code points,)
        self._parts = self._compared = self._characters = 0
        self._why_not = distrust
        self._fast: tiktoken.Encoding | None = None
        if not distrust:
            try:
                self._fast, self._ids = _translate(tokenizer.library)
            except ValueError as error:
                self._why_not = str(error)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids (tokens,) of each text, no BOS and no EOS, as uint16 where the vocabulary fits, else uint32.

        Raises Differs: all texts are then to be encoded again, by `BulkEncoder(tokenizer, str(error))`.
        """
        if self._fast is not None:
            self._compare(texts, self._fast)
        found: list[Any] = [None] * len(texts)
        workers = os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:  # both libraries let go of the interpreter's lock
            shares = pool.map(self._encode, (texts[first::workers] for first in range(workers)))
            for first, share in enumerate(shares):
                found[first::workers] = share
        return found

    def report(self) -> str:
        """Return which library ran, and why, or what that rests on."""
        if self._fast is None:
            return f"encoded by the tokenizers library: {self._why_not}"
        return (
            f"encoded by tiktoken, whose ids were those of the tokenizers library wherever they were compared: "
            f"{self._compared:,} of {self._parts:,} parts, {self._characters:,} characters"
        )

    def _compare(self, texts: Sequence[str], fast: tiktoken.Encoding) -> None:
        due = self._due(texts)
        for text, ids, right in zip(due, self._by_tiktoken(due, fast), self._by_library(due), strict=True):
            if not np.array_equal(ids, right):
                raise Differs(f"tiktoken has other ids somewhere in {text[:40]!r}")

    def _encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self._by_library(texts) if self._fast is None else self._by_tiktoken(texts, self._fast)

    def _by_library(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(ids, self._kind) for ids in self._tokenizer.encode_batch(texts)]

    def _by_tiktoken(self, texts: Sequence[str], fast: tiktoken.Encoding) -> list[np.ndarray]:
        """Return the ids of each text: of the tokenizers library where it has half a million blanks, or lacks a token.

        The regex has no room for the first. A byte without a token is left out by that library before it merges.
        """
        try:
            found = fast.encode_to_numpy(END.join([*texts, ""]), allowed_special={END}, disallowed_special=())
            ids = self._ids[found]
        except ValueError:
            ids = np.array([NO_TOKEN])
        ends = np.flatnonzero(ids == AN_END)
        if NO_TOKEN in ids or len(ends) != len(texts):  # or spells END
            if len(texts) == 1:
                return self._by_library(texts)
            return [self._by_tiktoken([text], fast)[0] for text in texts]
        return [row[:-1] for row in np.split(ids.astype(self._kind), ends + 1)[:-1]]

    def _due(self, texts: Sequence[str]) -> list[str]:
        """Count the parts of texts, and return what is to be compared: new characters in surroundings, some parts."""
        new: set[str] = set()
        for some in _parts("".join(texts)):  # not one text after the other: many are short
            codes = np.frombuffer(some.encode("utf-32-le"), np.uint32)
            new.update(map(chr, np.unique(codes[~self._seen[codes]])))
        self._seen[[ord(c) for c in new]] = True
        due = ["".join(c + around + c for around in SURROUNDINGS) for c in sorted(new)]
        for part in itertools.chain.from_iterable(map(_parts, texts)):
            self._parts += 1
            first = bool(new) and not new.isdisjoint(part)
            if first:
                new.difference_update(part)
            if first or self._characters < COMPARED or self._parts % EVERY == 0:
                self._compared += 1
                self._characters += len(part)
                due.append(part)
        return due


def _parts(text: str) -> list[str]:
    return [text[start : start + PART] for start in range(0, len(text), PART)]


def _translate(library: tokenizers.Tokenizer) -> tuple[tiktoken.Encoding, np.ndarray]:
    """Return tiktoken in the place of a byte-level BPE, and the id (ranks + 1,) of each rank, or NO_TOKEN, and AN_END.

    Raises ValueError, with the reason, where it cannot stand there.
    """
    content = json.loads(library.to_str())
    if content["normalizer"] or not all(token["special"] for token in content["added_tokens"]):
        raise ValueError("it normalizes texts or looks for words in them")
    pattern = _pattern(content["pre_tokenizer"])
    order = _order(content["model"], {token["content"] for token in content["added_tokens"]})
    ranks = {bytes(BYTES[c] for c in token): rank for rank, token in enumerate(order)}
    fast = tiktoken.Encoding("bulk", pat_str=pattern, mergeable_ranks=ranks, special_tokens={END: len(ranks)})
    return fast, np.array([*(content["model"]["vocab"].get(token, NO_TOKEN) for token in order), AN_END])


def _pattern(splitting: dict[str, Any] | None) -> str:
    """Return the regex that cuts a text as a `pre_tokenizer` does."""
    steps = (splitting or {}).get("pretokenizers", [splitting or {}])
    shape = [tuple(step.get(key) for key in DECIDES) for step in steps]
    if shape == [SPLIT, BYTES_ONLY] and "Regex" in steps[0]["pattern"]:
        return str(steps[0]["pattern"]["Regex"])
    if shape not in ([BY_GPT2], [DIGITS, BY_GPT2]):
        raise ValueError("it cuts texts in a way that tiktoken is not known to have")
    return GPT2 if shape == [BY_GPT2] else GPT2_DIGITS


def _order(model: dict[str, Any], added: set[str]) -> list[str]:
    """Return the tokens in the order of their merges, bytes first, if joining by that order makes the same tokens."""
    unknown = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if model["type"] != "BPE" or any(model[key] for key in unknown):
        raise ValueError("it is not byte-level BPE")
    vocab, merges = model["vocab"], [(a, b) for a, b in model["merges"]]
    order = [*BYTES, *(token for token, _ in itertools.groupby(a + b for a, b in merges))]
    known = set(order)
    if len(known) < len(order) or not all(known.issuperset(pair) for pair in merges):
        raise ValueError("its merges are in an order that tiktoken does not know")
    if model["ignore_merges"]:  # what is a token is not merged: also one that no merge makes
        order += [token for token in vocab.keys() - known - added if BYTES.keys() >= {*token}]
    library = models.BPE(vocab=vocab, merges=merges)
    for token in order[len(BYTES) :]:
        parts = len(library.tokenize(token))
        if parts == 2 or (parts > 2 and not model["ignore_merges"]):
            raise ValueError(f"its merges make no {token!r} of that token's own bytes, where tiktoken would")
    return order
