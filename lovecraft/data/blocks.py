"""Documents cut into overlapping pieces, and blocks of pieces, as rows that point into one array of tokens.

Pieces of a document start every `block_size - shared` tokens, so consecutive ones share `shared >= 1` tokens and the
last always has a token of its own. Without packing a block is one piece. Labels are unshifted: `labels[i]` belongs to
`input_ids[i]` and is predicted from what precedes it in its piece. The first `context` tokens of a piece have the label
-100: the document's first token, which nothing precedes, or the shared ones, which the piece before supervises.
"""

import attrs
import numpy as np

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.options import context_length, shared_length
from lovecraft.data.texts import name_of

IGNORED = -100  # the label that a cross-entropy leaves out
DOCUMENT, INDEX, OFFSET, LENGTH, CONTEXT = range(5)  # columns of a table of pieces
FILE, ROW, PART, TOKENS, CHARACTERS, BYTES, FIRST_TOKEN_BYTES, NUMBER = range(8)  # columns of a table of documents


@attrs.frozen
class Document:
    """One document of a split."""

    name: str
    tokens: int
    """Its tokens, BOS and EOS included."""
    bytes: int
    """Its text in UTF-8."""
    first_token_bytes: int
    """How many of them the first token holds, which is never supervised; 0 where that is BOS."""


@attrs.frozen(eq=False)
class Documents:
    """The documents of a split, in source order."""

    files: list[str] = attrs.field(repr=False)
    """The names of the source's files."""

    table: np.ndarray = attrs.field(repr=False)
    """(documents, 8) int64: file, row, part, tokens, characters, bytes, of the first token, number in the corpus."""

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> Document:
        file, row, part, tokens, _, size, first, _ = self.table[i].tolist()
        return Document(name_of(self.files[file], row, part), tokens, size, first)


@attrs.frozen(eq=False)
class Block:
    """One block. Arrays have shape (length,) and type int64."""

    input_ids: np.ndarray
    labels: np.ndarray
    pieces: np.ndarray
    """(pieces, 5) int64: their rows of the table, see `Blocks`."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each piece, in the order in which they stand in the block."""
        return self.pieces[:, LENGTH].tolist()

    @property
    def document(self) -> int:
        """The document of its first piece."""
        return int(self.pieces[0, DOCUMENT])

    @property
    def index(self) -> int:
        """The first piece's number within its document, from 0."""
        return int(self.pieces[0, INDEX])


@attrs.frozen(eq=False)
class Blocks:
    """The blocks of one split, as rows of a table over the tokens of the corpus."""

    tokens: np.ndarray = attrs.field(repr=False)
    """(tokens,) unsigned: every document's tokens, one after the other, each stored once, whatever its split."""

    table: np.ndarray = attrs.field(repr=False)
    """(pieces, 5) int64: document, index in it, offset in `tokens`, length, context; in the order of the blocks."""

    documents: Documents = attrs.field(repr=False)

    shared: int
    """Tokens that consecutive pieces of a document share."""

    starts: np.ndarray = attrs.field(repr=False)
    """(blocks + 1,) int64: block i is the pieces starts[i] up to starts[i + 1]; by default each is one."""

    supervised: np.ndarray | None = attrs.field(default=None, repr=False)
    """(tokens,) bool: which tokens may be supervised; None is all of them."""

    @starts.default
    def _one_piece_each(self) -> np.ndarray:
        return np.arange(len(self.table) + 1)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> Block:
        i = range(len(self))[i]
        pieces = self.table[self.starts[i] : self.starts[i + 1]]
        ids = np.concatenate([self.tokens[start : start + n] for start, n in pieces[:, OFFSET:CONTEXT].tolist()])
        labels = np.concatenate([self._labels(*row) for row in pieces[:, OFFSET:].tolist()])
        return Block(ids.astype(np.int64), labels, np.array(pieces))

    def _labels(self, offset: int, length: int, context: int) -> np.ndarray:
        labels = self.tokens[offset : offset + length].astype(np.int64)
        labels[:context] = IGNORED
        if self.supervised is not None:
            labels[~self.supervised[offset : offset + length]] = IGNORED
        return labels

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each block: (blocks,) int64."""
        return np.add.reduceat(self.table[:, LENGTH], self.starts[:-1])


@attrs.frozen
class Counts:
    """What became of the tokens of a split. Making one checks that none was lost or doubled."""

    documents: int
    characters: int
    tokens: int
    """Of the documents, BOS and EOS included, each counted once."""
    blocks: int
    block_tokens: int
    supervised_tokens: int
    repeated_tokens: int
    """Supervised a second time as overlap; 0 without train_on_overlap."""
    first_tokens: int
    """First tokens of documents that are in a block: nothing precedes them, so they are never supervised."""
    masked_tokens: int
    """Not learnt from: what others than the assistant say in a conversation."""
    dropped_tokens: int
    """In no block, because their piece had fewer supervised tokens than min_length."""
    shared_tokens: int
    """In two pieces."""

    def __attrs_post_init__(self) -> None:
        once = self.supervised_tokens - self.repeated_tokens
        assert self.tokens == once + self.first_tokens + self.masked_tokens + self.dropped_tokens, self
        assert self.block_tokens == self.tokens - self.dropped_tokens + self.shared_tokens, self


def cut(lengths: np.ndarray, offsets: np.ndarray, dataset: DatasetConfig, *, train: bool) -> tuple[np.ndarray, int]:
    """Cut documents of `lengths` (documents,) tokens, each at least one, that begin at `offsets` (documents,).

    Returns the table of their pieces (pieces, 5), see `Blocks`, and how many tokens min_length dropped. Only in train
    are pieces dropped and shared tokens supervised again (train_on_overlap).
    """
    shared = shared_length(dataset)
    step = dataset.block_size - shared
    # A further piece needs a token beyond the shared ones: ceil((tokens - shared) / step) pieces, at least one.
    counts = np.maximum(1, -((shared - lengths) // step))
    document = np.repeat(np.arange(len(lengths)), counts)  # (pieces,)
    index = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = index * step
    length = np.minimum(dataset.block_size, lengths[document] - start)
    context = np.where(index == 0, 1, context_length(dataset) if train else shared)
    table = np.stack([document, index, offsets[document] + start, length, context], axis=1)  # (pieces, 5)
    keep = length - context >= dataset.min_length if train else np.full(len(table), True)
    own = length - np.where(index == 0, 0, shared)
    return table[keep], int(own[~keep].sum())


def count(
    documents: np.ndarray, table: np.ndarray, blocks: int, dropped: int, shared: int, supervised: np.ndarray | None
) -> Counts:
    """Count what became of the `documents` (documents, 8) of a split in the pieces `table` (pieces, 5) of its blocks.

    Raises AssertionError if a token was lost or doubled.
    """
    later = table[:, INDEX] > 0
    able = int((table[:, LENGTH] - table[:, CONTEXT]).sum())
    masked = 0 if supervised is None else able - _true_between(supervised, table)
    return Counts(
        documents=len(documents),
        characters=int(documents[:, CHARACTERS].sum()),
        tokens=int(documents[:, TOKENS].sum()),
        blocks=blocks,
        block_tokens=int(table[:, LENGTH].sum()),
        supervised_tokens=able - masked,
        repeated_tokens=int((shared - table[later, CONTEXT]).sum()),
        first_tokens=int((~later).sum()),
        masked_tokens=masked,
        dropped_tokens=dropped,
        shared_tokens=shared * int(later.sum()),
    )


def _true_between(supervised: np.ndarray, table: np.ndarray) -> int:
    """Return how many of the tokens behind the context of each piece are supervised, added up."""
    spans = (table[:, OFFSET] + table[:, CONTEXT], table[:, OFFSET] + table[:, LENGTH])
    return sum(int(np.count_nonzero(supervised[a:b])) for a, b in zip(*(s.tolist() for s in spans), strict=True))


def order(blocks: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """Return the order (blocks,) int64 in which an epoch visits the blocks: a pure function of its arguments.

    Shuffled, block i comes at the rank of the i-th raw 64-bit output of NumPy's Philox under
    `SeedSequence(seed mod 2**64, spawn_key=(epoch,))`. Both are stable across NumPy's versions, which
    `Generator.permutation` is not.
    """
    if not shuffle:
        return np.arange(blocks)
    source = np.random.Philox(np.random.SeedSequence(seed % 2**64, spawn_key=(epoch,)))
    return np.argsort(source.random_raw(blocks), kind="stable")
