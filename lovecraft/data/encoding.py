"""From the documents of a source to one file of tokens: while one batch is encoded, others are read and written.

tokens.bin        every document's tokens, one after the other, BOS and EOS included, whatever its split
supervised.bin    of conversations only: one byte a token, whether it may be supervised
"""

import functools
import itertools
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from lovecraft.config.schema import DatasetConfig
from lovecraft.data import chat
from lovecraft.data.bulk import BulkEncoder, unspelled_bytes
from lovecraft.data.options import SPLITS, has_conversations
from lovecraft.data.splits import Reading, digest, some_of, words
from lovecraft.data.texts import Text
from lovecraft.errors import DataError
from lovecraft.tokenizer import Tokenizer

TOKENS_FILE, SUPERVISED_FILE = "tokens.bin", "supervised.bin"
BATCH_CHARACTERS = 2_000_000  # texts are encoded in batches of about this size


@attrs.frozen(eq=False)
class Corpus:
    """What was encoded: a row for each document, in source order."""

    files: list[str]
    documents: np.ndarray
    """(documents, 8) int64, see `blocks.Documents`."""
    splits: np.ndarray
    """(documents,) int8: the number in SPLITS of each one's split."""
    digests: np.ndarray
    """(documents, 2) uint64: equal rows are equal texts."""
    notes: list[str]
    troubles: list[str]
    encoding: str
    """What encoded them."""


@attrs.frozen(eq=False)
class Encoded:
    """One document's tokens."""

    ids: np.ndarray
    """(tokens,) unsigned, BOS and EOS included."""
    bytes: int
    """In UTF-8, of what may be supervised."""
    first_token_bytes: int = 0
    supervised: np.ndarray | None = None
    """(tokens,) bool; None is all."""


def adds_bos(dataset: DatasetConfig, tokenizer: Tokenizer) -> bool:
    """Return whether BOS stands before a document."""
    return tokenizer.adds_bos if dataset.add_bos is None else dataset.add_bos


def token_type(tokenizer: Tokenizer) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds the tokenizer's ids."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)


def encode(reading: Reading, tokenizer: Tokenizer, directory: Path, distrust: str = "") -> Corpus:
    """Read all documents of a source and write their tokens into `directory`.

    Raises DataError for what cannot be read, and for a text without tokens; Differs as `BulkEncoder` does, which
    `distrust` is for.
    """
    work = (_Conversations if has_conversations(reading.dataset) else _Texts)(reading.dataset, tokenizer, distrust)
    files = [file.name for some in reading.files.values() for file in some]
    numbers = {name: number for number, name in enumerate(files)}
    rows = array("q")  # eight numbers a document: a tuple each would take four times the memory
    splits, digests = bytearray(), bytearray()
    with (directory / TOKENS_FILE).open("wb") as tokens, (directory / SUPERVISED_FILE).open("wb") as supervised:
        for number, (split, text, document) in enumerate(_encoded(work, reading)):
            if document is None:
                continue
            sizes = len(document.ids), len(text.text), document.bytes, document.first_token_bytes
            rows.extend((numbers[text.file], text.row, text.part, *sizes, number))
            splits.append(SPLITS.index(split))
            digests += digest(text.text)
            tokens.write(document.ids.data)
            if document.supervised is not None:
                supervised.write(document.supervised.data)
    if not os.path.getsize(directory / SUPERVISED_FILE):
        (directory / SUPERVISED_FILE).unlink()
    return Corpus(
        files,
        np.frombuffer(rows, np.int64).reshape(-1, 8),
        np.frombuffer(splits, np.int8),
        words(digests),
        [*reading.notes, *work.notes()],
        work.troubles(),
        work.encoding(),
    )


def _encoded(work: "_Texts | _Conversations", reading: Reading) -> Iterator[tuple[str, Text, Encoded | None]]:
    """Yield (split, document, its tokens) in source order; while a batch is encoded, the one before is written."""
    with ThreadPoolExecutor(1) as thread:
        ahead: list[tuple[list[tuple[str, Text]], Future[list[Encoded | None]]]] = []
        for batch in itertools.chain(_batches(reading), [[]]):
            ahead.append((batch, thread.submit(work.encode, [text for _, text in batch])))
            if len(ahead) > 1:
                texts, future = ahead.pop(0)
                try:
                    documents = future.result()
                except DataError as error:  # names the document; say where it lies
                    raise DataError(f"{reading.dataset.source}: {error.message}", hint=error.hint) from None
                for (split, text), document in zip(texts, documents, strict=True):
                    yield split, text, document


def _batches(documents: Iterable[tuple[str, Text]]) -> Iterator[list[tuple[str, Text]]]:
    """Yield the documents in batches of about BATCH_CHARACTERS."""
    batch: list[tuple[str, Text]] = []
    size = 0
    for split, text in documents:
        batch.append((split, text))
        size += len(text.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _ends(dataset: DatasetConfig, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return what stands before and behind a document: BOS and EOS, or nothing."""
    before = tokenizer.bos_id if adds_bos(dataset, tokenizer) else None
    after = tokenizer.eos_id if dataset.add_eos else None
    return ([] if before is None else [before]), ([] if after is None else [after])


class _Texts:
    """Encodes texts as BOS, tokens, EOS."""

    def __init__(self, dataset: DatasetConfig, tokenizer: Tokenizer, distrust: str) -> None:
        self._bulk = BulkEncoder(tokenizer, distrust)
        self._before, self._after = _ends(dataset, tokenizer)
        # A token that ends within a character decodes to U+FFFD; the character counts as the next token's.
        self._bytes = functools.cache(lambda token: len(tokenizer.decode([token]).rstrip("\ufffd").encode()))
        self._unspelled = unspelled_bytes(tokenizer)
        self._lossy: list[str] = []

    def encode(self, texts: Sequence[Text]) -> list[Encoded | None]:
        """Return the tokens of each text; raise DataError for one without."""
        found: list[Encoded | None] = []
        for text, ids in zip(texts, self._bulk.encode([text.text for text in texts]), strict=True):
            if not len(ids):
                raise DataError(f"the tokenizer finds no token in {text.name}", hint="leave it out of the patterns")
            first = 0 if self._before else self._bytes(int(ids[0]))
            ids = np.concatenate([self._before, ids, self._after], dtype=ids.dtype, casting="unsafe")
            data = text.text.encode()
            if len(data.translate(None, self._unspelled)) < len(data):
                self._lossy.append(text.name)
            found.append(Encoded(ids, len(data), first))
        return found

    def encoding(self) -> str:
        """Return which library ran, and why it can be believed."""
        return self._bulk.report()

    def notes(self) -> list[str]:
        """Return nothing: no text is changed."""
        return []

    def troubles(self) -> list[str]:
        """Return which texts hold bytes that the tokenizer drops without a word."""
        found = f"the tokenizer has no token for the bytes {self._unspelled.hex(' ')}, which are lost"
        return [f"{found} in {len(self._lossy):,} documents ({some_of(self._lossy)})"] if self._lossy else []


class _Conversations:
    """Encodes conversations by their chat template, and counts what was too long."""

    def __init__(self, dataset: DatasetConfig, tokenizer: Tokenizer, distrust: str) -> None:
        self._tokenizer, self._most = tokenizer, dataset.block_size
        self._template = chat.template_of(dataset, tokenizer)
        self._before, self._after = _ends(dataset, tokenizer)
        self._type = token_type(tokenizer)
        self._shortened = self._messages = 0
        self._left_out: list[str] = []

    def encode(self, texts: Sequence[Text]) -> list[Encoded | None]:
        """Return the tokens of each conversation; None where not even its first exchange fits into a block."""
        return [self._one(text) for text in texts]

    def _one(self, text: Text) -> Encoded | None:
        said, tokenizer = text.conversation, self._tokenizer
        assert said is not None
        if self._template is None:
            found = chat.encode_pair(said, tokenizer, self._most, self._before, self._after)
        else:
            found = chat.encode(said, tokenizer, self._template, self._most)
        if found is None:
            self._left_out.append(text.name)
            return None
        self._shortened += found.dropped > 0
        self._messages += found.dropped
        return Encoded(np.array(found.ids, self._type), found.bytes, 0, found.supervised)

    def encoding(self) -> str:
        """Return whether there is a template."""
        if self._template is None:
            return "encoded as prompt and response, joined as they are: the tokenizer has no chat template"
        return "encoded as the tokenizer's chat template writes conversations"

    def notes(self) -> list[str]:
        """Return how many conversations lost messages."""
        found = f"conversations shortened to whole turns: {self._shortened:,}, by {self._messages:,} messages in all"
        return [found] if self._shortened else []

    def troubles(self) -> list[str]:
        """Return which conversations were left out."""
        found = f"conversations left out, longer than a block of {self._most} tokens: {len(self._left_out):,}"
        return [f"{found} ({some_of(self._left_out)})"] if self._left_out else []
