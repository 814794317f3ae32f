"""Looking at blocks: their pieces as text, where a phrase is, how long they are."""

import bisect
import html
import itertools
from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.blocks import DOCUMENT, IGNORED, INDEX, LENGTH, NUMBER, OFFSET, Blocks
from lovecraft.data.build import Built
from lovecraft.data.splits import read
from lovecraft.tokenizer import Tokenizer


def runs(blocks: Blocks, i: int, tokenizer: Tokenizer) -> list[list[tuple[str, str]]]:
    """Return the pieces of block `i`, each as (kind, text) in order; kinds are overlap, masked, special and text.

    `special` are tokens that no text spells, such as BOS and EOS; `masked` is what a conversation teaches nothing of.
    """
    found, begin = [], 0
    block = blocks[i]
    for (_, index, *_), length in zip(block.pieces.tolist(), block.lengths, strict=True):
        ids, labels = (row[begin : begin + length].tolist() for row in (block.input_ids, block.labels))
        begin += length
        texts = [tokenizer.decode([token], skip_special=False) for token in ids]
        kinds = ["special" if tokenizer.special.fullmatch(text) else "text" for text in texts]
        if index:
            kinds[: blocks.shared] = ["overlap" if kind == "text" else kind for kind in kinds[: blocks.shared]]
        if blocks.supervised is not None:
            kinds = ["masked" if (k, label) == ("text", IGNORED) else k for k, label in zip(kinds, labels, strict=True)]
        grouped = itertools.groupby(zip(kinds, ids, strict=True), lambda pair: pair[0])
        found.append([(kind, tokenizer.decode([t for _, t in run], skip_special=False)) for kind, run in grouped])
    return found


@attrs.frozen
class Hit:
    """Where a phrase was found."""

    document: str
    block: int | None
    """The piece of the document that supervises the phrase's first character; None where min_length dropped it."""
    character: int
    """The phrase's place in the text, from 0."""


def find(phrase: str, built: Built, tokenizer: Tokenizer, dataset: DatasetConfig) -> Iterator[tuple[str, Hit]]:
    """Yield (split, place) of every place of `phrase` in the texts, which are read again."""
    places = {
        int(number): (split, document)
        for split, blocks in built.splits.items()
        for document, number in enumerate(blocks.documents.table[:, NUMBER])
    }
    for number, (_, text) in enumerate(read(dataset)):
        place = text.text.find(phrase)
        if place < 0 or number not in places:
            continue
        split, document = places[number]
        blocks = built.splits[split]
        rows = blocks.table[blocks.table[:, DOCUMENT] == document]  # (pieces, 5)
        rows = rows[np.argsort(rows[:, INDEX])]

        def characters(row: np.ndarray, rows: np.ndarray = rows, blocks: Blocks = blocks) -> int:
            """Return how much of the text lies before the end of a piece."""
            tokens = blocks.tokens[rows[0, OFFSET] : row[OFFSET] + row[LENGTH]]
            return len(tokenizer.decode(tokens.tolist()))

        while place >= 0:
            # A conversation is one piece, and its template moves the characters.
            piece = 0 if text.conversation else bisect.bisect_right(rows, place, key=characters)
            yield split, Hit(text.name, int(rows[piece, INDEX]) if piece < len(rows) else None, place)
            place = text.text.find(phrase, place + 1)


def describe(lengths: np.ndarray) -> dict[str, float]:
    """Return count, min, max, mean, median and standard deviation of lengths in tokens."""
    return {
        "count": len(lengths),
        "min": int(lengths.min()),
        "max": int(lengths.max()),
        "mean": round(float(lengths.mean()), 1),
        "median": float(np.median(lengths)),
        "std": round(float(lengths.std()), 1),
    }


def histogram(lengths: np.ndarray, most: int = 20) -> list[tuple[int, int, int]]:
    """Return at most `most` bars (first length, last length, how many) of equal width, from shortest to longest."""
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // most)
    counts = np.bincount((lengths - low) // width)
    return [(low + i * width, min(high, low + (i + 1) * width - 1), int(n)) for i, n in enumerate(counts)]


def histogram_svg(bars: Sequence[tuple[int, int, int]], title: str) -> str:
    """Draw a histogram as an SVG of 720 by 360 that any browser opens; pointing at a bar shows its numbers."""
    left, right, top, bottom = 60, 700, 50, 310
    highest = max(count for _, _, count in bars)
    step = (right - left) / len(bars)
    drawn = []
    for i, (first, last, count) in enumerate(bars):
        height = (bottom - top) * count / highest
        drawn.append(
            f'<rect x="{left + i * step + 1:.1f}" y="{bottom - height:.1f}" width="{step - 2:.1f}" '
            f'height="{height:.1f}" fill="#4269d0"><title>{first:,} to {last:,} tokens: {count:,}</title></rect>'
        )
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 360" font-family="sans-serif" font-size="13">',
            '<rect width="720" height="360" fill="white"/>',
            f'<text x="{left}" y="28" font-size="16">{html.escape(title)}</text>',
            *drawn,
            f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="black"/>',
            f'<text x="{left - 8}" y="{top + 10}" text-anchor="end">{highest:,}</text>',
            f'<text x="{left - 8}" y="{bottom}" text-anchor="end">0</text>',
            f'<text x="{left}" y="{bottom + 20}">{bars[0][0]:,}</text>',
            f'<text x="{right}" y="{bottom + 20}" text-anchor="end">{bars[-1][1]:,}</text>',
            f'<text x="{(left + right) / 2}" y="{bottom + 38}" text-anchor="middle">tokens</text>',
            "</svg>\n",
        ]
    )
