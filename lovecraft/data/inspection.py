"""Looking at blocks: their pieces as text, where a phrase is, how long they are."""

import bisect
import html
import itertools
from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from lovecraft.data.blocks import DOCUMENT, LENGTH, OFFSET, Blocks
from lovecraft.data.sources import Text
from lovecraft.tokenizer import Tokenizer


def pieces(blocks: Blocks, i: int, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Return block `i` as (kind, text) pieces in order; kinds are overlap, text and special (BOS or EOS)."""
    block = blocks[i]
    overlap = blocks.shared if block.index else 0
    special = {tokenizer.bos_id, tokenizer.eos_id}  # the tokens of a text are never these

    def kind(item: tuple[int, int]) -> str:
        return "special" if item[1] in special else "overlap" if item[0] < overlap else "text"

    runs = itertools.groupby(enumerate(block.input_ids.tolist()), kind)
    return [(name, tokenizer.decode([token for _, token in run], skip_special=False)) for name, run in runs]


@attrs.frozen
class Hit:
    """Where a phrase was found."""

    document: str
    block: int | None
    """The block of the document that supervises the phrase's first character; None where min_length dropped it."""
    character: int
    """The phrase's place in the text, from 0."""


def find(phrase: str, blocks: Blocks, texts: Sequence[Text], tokenizer: Tokenizer) -> Iterator[Hit]:
    """Yield every place of `phrase` in the texts of a split, given with its blocks."""
    for number, text in enumerate(texts):
        place = text.text.find(phrase)
        if place < 0:
            continue
        first, last = np.searchsorted(blocks.table[:, DOCUMENT], [number, number + 1])
        rows = blocks.table[first:last]

        def characters(row: np.ndarray, rows: np.ndarray = rows) -> int:
            """Return how much of the text lies before the end of a block."""
            tokens = blocks.tokens[rows[0, OFFSET] : row[OFFSET] + row[LENGTH]]
            return len(tokenizer.decode(tokens.tolist()))

        while place >= 0:
            block = bisect.bisect_right(rows, place, key=characters)
            yield Hit(text.name, block if block < len(rows) else None, place)
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
