"""Several pieces of documents in one block: as they come (greedy), or so that little is left empty (best fit).

A piece keeps its context, its positions begin at 0 and it sees no other piece, so packing changes nothing but how many
tokens a block holds.
"""

from array import array

import numpy as np

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.blocks import LENGTH, cut
from lovecraft.data.options import context_length, shared_length


def pack(
    lengths: np.ndarray, offsets: np.ndarray, dataset: DatasetConfig, *, whole: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    """Cut train documents of `lengths` (documents,) tokens, beginning at `offsets` (documents,), and fill blocks.

    `whole` documents, which no block is too small for, are not cut.

    Returns the pieces (pieces, 5) in the order of the blocks, the blocks' starts (blocks + 1,), both as `Blocks` has
    them, and how many tokens min_length dropped.
    """
    if dataset.packing == "greedy":
        return _greedy(lengths, offsets, dataset, whole)
    table, dropped = cut(lengths, offsets, dataset, train=True)
    if dataset.packing == "none":
        return table, np.arange(len(table) + 1), dropped
    block = _best_fit(table[:, LENGTH], dataset.block_size)
    order = np.argsort(block, kind="stable")
    return table[order], np.append(0, np.cumsum(np.bincount(block))), dropped


def _greedy(
    lengths: np.ndarray, offsets: np.ndarray, dataset: DatasetConfig, whole: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    """Fill blocks in the order of the documents; a document that does not fit goes on in the next block."""
    shared, later = shared_length(dataset), context_length(dataset)
    rows = array("q")  # five numbers a piece: a tuple each would take five times the memory
    starts, dropped, room = [0], 0, dataset.block_size
    for document, (tokens, offset) in enumerate(zip(lengths.tolist(), offsets.tolist(), strict=True)):
        begin, index, context = 0, 0, 1
        while True:
            length = min(room, tokens - begin)
            ends = begin + length == tokens
            enough = length - context >= dataset.min_length and (ends or not whole)
            if ends and not enough:
                dropped += length - (shared if index else 0)
            elif enough:
                rows.extend((document, index, offset + begin, length, context))
                room -= length
            if ends:
                break
            if enough:
                begin, index, context = begin + length - shared, index + 1, later
            starts.append(len(rows) // 5)  # what is left of the block is too small for the next piece
            room = dataset.block_size
    if starts[-1] < len(rows) // 5:
        starts.append(len(rows) // 5)
    return np.frombuffer(rows, np.int64).reshape(-1, 5), np.array(starts), dropped


def _best_fit(lengths: np.ndarray, room: int) -> np.ndarray:
    """Return the block (pieces,) of each piece of `lengths`, at most `room` each.

    Best fit decreasing (Johnson, 1974): the longest piece first, each into the fullest block that has room for it.
    Blocks are numbered by their first piece, so that they come in source order.
    """
    blocks = np.empty(len(lengths), np.int64)
    waiting: dict[int, list[int]] = {}  # room left → the blocks that have it
    rooms = 0  # bit r is set where `waiting` has blocks with room r
    opened = 0
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        fitting = rooms >> length
        if fitting:
            left = length + (fitting & -fitting).bit_length() - 1
            block = waiting[left].pop()
            if not waiting[left]:
                rooms ^= 1 << left
        else:
            left, block, opened = room, opened, opened + 1
        blocks[piece] = block
        left -= length
        if left:
            waiting.setdefault(left, []).append(block)
            rooms |= 1 << left
    first = np.full(opened, len(lengths))
    np.minimum.at(first, blocks, np.arange(len(lengths)))
    rank = np.empty(opened, np.int64)
    rank[np.argsort(first)] = np.arange(opened)
    return rank[blocks]
