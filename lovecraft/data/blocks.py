"""Documents cut into overlapping blocks, as rows that point into one array of tokens.

Blocks of a document start every `block_size - shared` tokens, so consecutive ones share `shared >= 1` tokens and the
last always has a token of its own. Labels are unshifted: `labels[i]` belongs to `input_ids[i]` and is predicted from
what precedes it in the block. The first `context` tokens of a block have the label -100: the document's first token,
which nothing precedes, or the shared ones, which the block before supervises.
"""

import attrs
import numpy as np

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.options import context_length, shared_length

IGNORED = -100  # the label that a cross-entropy leaves out
DOCUMENT, INDEX, OFFSET, LENGTH, CONTEXT = range(5)  # columns of a table of blocks


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
class Block:
    """One block. Arrays of tokens have shape (length,) and type int64."""

    input_ids: np.ndarray
    labels: np.ndarray
    pieces: np.ndarray
    """(pieces, 5) int64: its rows of the table, in the order in which they stand in it."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each piece."""
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
    """The blocks of one split, in source order, as rows of a table over the split's tokens."""

    tokens: np.ndarray = attrs.field(repr=False)
    """(tokens,) unsigned: every document's tokens, one after the other, each stored once."""

    table: np.ndarray = attrs.field(repr=False)
    """(pieces, 5) int64: document, index in it, offset in `tokens`, length, context."""

    documents: list[Document] = attrs.field(repr=False)

    shared: int
    """Tokens that consecutive blocks of a document share."""

    starts: np.ndarray = attrs.field(repr=False)
    """(blocks + 1,) int64: block i is the pieces table[starts[i] : starts[i + 1]]; by default each is one."""

    @starts.default
    def _one_piece_each(self) -> np.ndarray:
        return np.arange(len(self.table) + 1)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> Block:
        i = range(len(self))[i]
        pieces = self.table[self.starts[i] : self.starts[i + 1]]
        runs = pieces[:, [OFFSET, LENGTH]].tolist()
        ids = np.concatenate([self.tokens[offset : offset + length] for offset, length in runs], dtype=np.int64)
        labels = ids.copy()
        begins = np.cumsum(pieces[:, LENGTH]) - pieces[:, LENGTH]
        for begin, context in zip(begins, pieces[:, CONTEXT], strict=True):
            labels[begin : begin + context] = IGNORED
        return Block(ids, labels, pieces)

    @property
    def lengths(self) -> np.ndarray:
        """(blocks,) int64: the tokens of each block."""
        return np.add.reduceat(self.table[:, LENGTH], self.starts[:-1])

    @property
    def supervised_tokens(self) -> int:
        """Labels other than -100 in all blocks."""
        return int((self.table[:, LENGTH] - self.table[:, CONTEXT]).sum())


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
    """First tokens of documents that have a block: nothing precedes them, so they are never supervised."""
    dropped_tokens: int
    """In no block, because their block had fewer supervised tokens than min_length."""
    shared_tokens: int
    """In two blocks."""

    def __attrs_post_init__(self) -> None:
        once = self.supervised_tokens - self.repeated_tokens
        assert self.tokens == once + self.first_tokens + self.dropped_tokens, self
        assert self.block_tokens == self.tokens - self.dropped_tokens + self.shared_tokens, self


def cut(lengths: np.ndarray, dataset: DatasetConfig, *, train: bool) -> tuple[np.ndarray, int]:
    """Cut documents of `lengths` (documents,) tokens, each at least one, into blocks.

    Returns their table (blocks, 5), see `Blocks`, and how many tokens min_length dropped. Only in train are blocks
    dropped and shared tokens supervised again (train_on_overlap).
    """
    shared = shared_length(dataset)
    step = dataset.block_size - shared
    # A further block needs a token beyond the shared ones: ceil((tokens - shared) / step) blocks, at least one.
    counts = np.maximum(1, -((shared - lengths) // step))
    document = np.repeat(np.arange(len(lengths)), counts)  # (blocks,)
    index = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = index * step
    length = np.minimum(dataset.block_size, lengths[document] - start)
    context = np.where(index == 0, 1, context_length(dataset) if train else shared)
    offset = (np.cumsum(lengths) - lengths)[document] + start
    table = np.stack([document, index, offset, length, context], axis=1)  # (blocks, 5)
    keep = length - context >= dataset.min_length if train else np.full(len(table), True)
    own = length - np.where(index == 0, 0, shared)
    return table[keep], int(own[~keep].sum())


def count(table: np.ndarray, dropped: int, lengths: np.ndarray, characters: int, shared: int) -> Counts:
    """Count what `cut` made of documents of `lengths` tokens; raise AssertionError if a token was lost or doubled."""
    later = table[:, INDEX] > 0
    return Counts(
        documents=len(lengths),
        characters=characters,
        tokens=int(lengths.sum()),
        blocks=len(table),
        block_tokens=int(table[:, LENGTH].sum()),
        supervised_tokens=int((table[:, LENGTH] - table[:, CONTEXT]).sum()),
        repeated_tokens=int((shared - table[later, CONTEXT]).sum()),
        first_tokens=int((~later).sum()),
        dropped_tokens=dropped,
        shared_tokens=shared * int(later.sum()),
    )


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
