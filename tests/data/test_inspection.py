"""What people see of blocks is what is in them."""

import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import DatasetConfig
from lovecraft.data.blocks import Blocks, cut
from lovecraft.data.build import tokenize
from lovecraft.data.inspection import Hit, describe, find, histogram, histogram_svg, pieces
from lovecraft.data.sources import Text
from lovecraft.tokenizer import Tokenizer
from tests.tiny import TEXT

TEXTS = [Text("a", TEXT), Text("b", "café — " + TEXT[::-1]), Text("c", "sea")]
some_lengths = st.lists(st.integers(1, 5000), min_size=1, max_size=50).map(np.array)


def make(tokenizer: Tokenizer, *, train: bool = False, min_length: int = 1) -> Blocks:
    dataset = DatasetConfig(source=Path("/nowhere"), block_size=32, stride=8, min_length=min_length)
    tokens, documents = tokenize(TEXTS, dataset, tokenizer)
    table, _ = cut(np.array([d.tokens for d in documents]), dataset, train=train)
    return Blocks(tokens, table, documents, 8)


def test_pieces_show_overlap_and_special_tokens(tokenizer: Tokenizer) -> None:
    blocks = make(tokenizer)
    last = max(i for i in range(len(blocks)) if blocks[i].document == 0)

    assert [kind for kind, _ in pieces(blocks, 0, tokenizer)] == ["special", "text"]
    assert [kind for kind, _ in pieces(blocks, 1, tokenizer)] == ["overlap", "text"]
    assert [kind for kind, _ in pieces(blocks, last, tokenizer)] == ["overlap", "text", "special"]
    assert pieces(blocks, 0, tokenizer)[0] == ("special", "<s>")
    assert pieces(blocks, 0, tokenizer)[1][1].endswith(pieces(blocks, 1, tokenizer)[0][1])


def test_pieces_without_overlap_are_the_text(tokenizer: Tokenizer) -> None:
    blocks = make(tokenizer)
    own = [piece for i in range(len(blocks)) if blocks[i].document == 0 for piece in pieces(blocks, i, tokenizer)]

    assert "".join(text for kind, text in own if kind == "text") == TEXT


def test_find_names_the_block_that_supervises_the_place(tokenizer: Tokenizer) -> None:
    blocks = make(tokenizer)
    hits = list(find("night", blocks, TEXTS, tokenizer))

    assert [(h.document, TEXT[h.character :][:5]) for h in hits] == [("a", "night")] * TEXT.count("night")
    for hit in hits:
        [row] = [i for i in range(len(blocks)) if (blocks[i].document, blocks[i].index) == (0, hit.block)]
        own = tokenizer.decode(blocks[row].input_ids[8:].tolist())
        begin = len(tokenizer.decode(blocks.tokens[: 24 * row + 8].tolist()))
        assert begin <= hit.character < begin + len(own), hit


@given(st.integers(0, len(TEXT) - 1))
def test_every_place_of_a_text_is_found_in_a_block_that_has_it(tokenizer: Tokenizer, place: int) -> None:
    blocks = make(tokenizer)
    [hit] = [h for h in find(TEXT[place:], blocks, TEXTS[:1], tokenizer) if h.character == place]

    assert hit.block is not None
    assert TEXT[place] in tokenizer.decode(blocks[hit.block].input_ids.tolist())


def test_find_says_where_nothing_supervises_the_place(tokenizer: Tokenizer) -> None:
    blocks = make(tokenizer, train=True, min_length=20)

    assert Hit("c", None, 0) in list(find("sea", blocks, TEXTS, tokenizer))


def test_find_yields_nothing_for_what_is_not_there(tokenizer: Tokenizer) -> None:
    assert list(find("Cthulhu", make(tokenizer), TEXTS, tokenizer)) == []


def test_describe_gives_the_usual_numbers() -> None:
    assert describe(np.array([1, 2, 3, 10])) == {
        "count": 4,
        "min": 1,
        "max": 10,
        "mean": 4.0,
        "median": 2.5,
        "std": 3.5,
    }


@given(some_lengths, st.integers(1, 30))
def test_a_histogram_counts_every_length_once(lengths: np.ndarray, most: int) -> None:
    bars = histogram(lengths, most)

    assert len(bars) <= most
    assert (bars[0][0], bars[-1][1]) == (lengths.min(), lengths.max())
    for (_, end, _), (begin, _, _) in itertools.pairwise(bars):
        assert begin == end + 1
    for first, last, number in bars:
        assert number == ((lengths >= first) & (lengths <= last)).sum()


@pytest.mark.parametrize("lengths", [[5], [5, 5, 5], list(range(1, 513))])
def test_the_svg_is_well_formed_and_has_a_bar_for_each(lengths: list[int]) -> None:
    bars = histogram(np.array(lengths))
    root = ElementTree.fromstring(histogram_svg(bars, "train & <more>"))
    drawn = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if len(r)]

    assert len(drawn) == len(bars)
    assert all(float(r.get("x", "")) + float(r.get("width", "")) <= 720 for r in drawn)
    assert all(float(r.get("y", "")) + float(r.get("height", "")) == pytest.approx(310, abs=0.2) for r in drawn)
    assert "train & <more>" in [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
