"""Looking at blocks: their pieces as text, where a phrase is, how long they are."""

import bisect
import html
import itertools
import re
from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.blocks import DOCUMENT, IGNORED, INDEX, LENGTH, NUMBER, OFFSET, Blocks
from lovecraft.data.build import Built
from lovecraft.data.encoding import adds_bos
from lovecraft.data.splits import read
from lovecraft.tokenizer import Tokenizer


def runs(blocks: Blocks, i: int, tokenizer: Tokenizer) -> list[list[tuple[str, bool, str]]]:
    """Return the pieces of block `i`, each as (kind, special, text) in order; kinds are overlap, masked and text.

    `special` are tokens that no text spells, such as BOS and EOS; `masked` is what a conversation teaches nothing of.
    """
    found, begin = [], 0
    block = blocks[i]
    for (_, index, *_), length in zip(block.pieces.tolist(), block.lengths, strict=True):
        ids, labels = (row[begin : begin + length].tolist() for row in (block.input_ids, block.labels))
        begin += length
        special = [bool(tokenizer.special.fullmatch(tokenizer.decode([t], skip_special=False))) for t in ids]
        kinds = ["overlap" if index and place < blocks.shared else "text" for place in range(length)]
        if blocks.supervised is not None:
            kinds = ["masked" if label == IGNORED else "text" for label in labels]
        pieces, end, before = [], 0, ""
        for (kind, is_special), run in itertools.groupby(zip(kinds, special, strict=True)):
            end += len(list(run))
            text = tokenizer.decode(ids[:end], skip_special=False)  # whole: the first space of a text may be dropped
            pieces.append((kind, is_special, text[len(before) :]))
            before = text
        found.append(pieces)
    return found


@attrs.frozen
class Hit:
    """Where a phrase was found."""

    document: str
    block: int | None
    """The piece of the document that supervises the phrase's first character; None where min_length dropped it."""
    character: int
    """The phrase's place in the text, from 0."""
    number: int | None
    """The number in its split of the block that holds that piece."""


def find(phrase: str, built: Built, tokenizer: Tokenizer, dataset: DatasetConfig) -> Iterator[tuple[str, Hit]]:
    """Yield (split, place) of every place of `phrase` in the texts, which are read again."""
    known = {
        number: (split, document)
        for split, blocks in built.splits.items()
        for document, number in enumerate(blocks.documents.table[:, NUMBER].tolist())
    }
    in_order = {split: np.lexsort((b.table[:, INDEX], b.table[:, DOCUMENT])) for split, b in built.splits.items()}
    for number, (_, text) in enumerate(read(dataset)):
        places = [found.start() for found in re.finditer(f"(?={re.escape(phrase)})", text.text)]
        if not places or number not in known:
            continue
        split, document = known[number]
        blocks, order = built.splits[split], in_order[split]
        first, last = np.searchsorted(blocks.table[:, DOCUMENT], (document, document + 1), sorter=order)
        pieces = order[first:last]  # their numbers in the table
        rows = blocks.table[pieces]  # (pieces, 5)
        ends = (rows[:, OFFSET] + rows[:, LENGTH] - rows[:1, OFFSET]).tolist()  # in tokens of the document
        tokens: list[int] = []  # the end of each token in the text
        if not text.conversation:  # which is one piece, and its template moves the characters
            _, offsets = tokenizer.encode_with_offsets(text.text, template=False)
            tokens = [0] * adds_bos(dataset, tokenizer) + [end for _, end in offsets]
        for place in places:
            piece = bisect.bisect_right(ends, bisect.bisect_right(tokens, place))
            if piece == len(pieces):
                yield split, Hit(text.name, None, place, None)
            else:
                inside = int(np.searchsorted(blocks.starts, pieces[piece], side="right")) - 1
                yield split, Hit(text.name, piece, place, inside)


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
