"""What people see of blocks is what is in them."""

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import DatasetConfig
from lovecraft.data.blocks import Blocks
from lovecraft.data.build import Built, build
from lovecraft.data.inspection import Hit, describe, find, histogram, histogram_svg, runs
from lovecraft.tokenizer import Tokenizer
from tests.tiny import TEXT

FILES = {"a.txt": TEXT, "b.txt": "café — " + TEXT[::-1], "c.txt": "sea"}
some_lengths = st.lists(st.integers(1, 5000), min_size=1, max_size=50).map(np.array)


@pytest.fixture
def make(
    texts: Callable[..., Path], tokenizer: Tokenizer, tmp_path: Path
) -> Callable[..., tuple[DatasetConfig, Built]]:
    """Return a function that builds the blocks of FILES."""

    def build_files(**options: Any) -> tuple[DatasetConfig, Built]:
        dataset = DatasetConfig(**{"source": texts(FILES), "block_size": 32, "stride": 8, **options})
        return dataset, build(dataset, tokenizer, tmp_path / "cache")

    return build_files


Make = Callable[..., tuple[DatasetConfig, Built]]


def of_document(blocks: Blocks, document: int) -> list[int]:
    return [i for i in range(len(blocks)) if blocks[i].document == document]


def test_runs_show_overlap_and_special_tokens(make: Make, tokenizer: Tokenizer) -> None:
    blocks = make()[1].splits["train"]
    (first,), (second,), *_, (last,) = (runs(blocks, i, tokenizer) for i in of_document(blocks, 0))

    assert [run[:2] for run in first] == [("text", True), ("text", False)]
    assert [run[:2] for run in second] == [("overlap", False), ("text", False)]
    assert [run[:2] for run in last] == [("overlap", False), ("text", False), ("text", True)]
    assert first[0][2] == "<s>"
    assert first[1][2].endswith(second[0][2])


def test_runs_without_overlap_are_the_text(make: Make, tokenizer: Tokenizer) -> None:
    blocks = make()[1].splits["train"]
    own = [run for i in of_document(blocks, 0) for piece in runs(blocks, i, tokenizer) for run in piece]

    assert "".join(text for kind, special, text in own if kind == "text" and not special) == TEXT


def test_a_packed_block_shows_each_piece(make: Make, tokenizer: Tokenizer) -> None:
    blocks = make(block_size=512, packing="best_fit")[1].splits["train"]
    [both] = [runs(blocks, i, tokenizer) for i in range(len(blocks)) if len(blocks[i].pieces) > 1][:1]

    assert all(piece[0] == ("text", True, "<s>") for piece in both)


def test_what_a_conversation_does_not_teach_is_masked(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"q": "Who? ", "a": "I."}\n')
    dataset = DatasetConfig(source=tmp_path / "pairs.jsonl", prompt_field="q", response_field="a")
    blocks = build(dataset, tokenizer, tmp_path / "cache").splits["train"]

    [piece] = runs(blocks, 0, tokenizer)

    assert piece == [
        ("masked", True, "<s>"),
        ("masked", False, "Who?"),
        ("text", False, " I."),
        ("text", True, "</s>"),
    ]


def test_text_that_spells_a_special_token_is_none(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("<s></s>")
    blocks = build(DatasetConfig(source=tmp_path / "a.txt"), tokenizer, tmp_path / "cache").splits["train"]

    assert runs(blocks, 0, tokenizer) == [[("text", True, "<s>"), ("text", False, "<s></s>"), ("text", True, "</s>")]]


@pytest.mark.parametrize("packing", ["none", "greedy", "best_fit"])
def test_find_names_the_piece_that_supervises_the_place(packing: str, make: Make, tokenizer: Tokenizer) -> None:
    dataset, built = make(packing=packing, validation=("b.txt",))
    blocks = built.splits["train"]
    hits = list(find("night", built, tokenizer, dataset))

    assert [(s, h.document, TEXT[h.character :][:5]) for s, h in hits] == [("train", "a.txt", "night")] * TEXT.count(
        "night"
    )
    offsets = {int(index): int(offset) for document, index, offset, *_ in blocks.table if document == 0}
    lengths = {int(index): int(length) for document, index, _, length, _ in blocks.table if document == 0}
    for _, hit in hits:
        assert [0, hit.block] in blocks[hit.number].pieces[:, :2].tolist()
        begin = offsets[hit.block] + (8 if hit.block else 0)
        end = offsets[hit.block] + lengths[hit.block]
        known, own = (tokenizer.decode(blocks.tokens[a:b].tolist()) for a, b in ((offsets[0], begin), (begin, end)))
        assert len(known) <= hit.character < len(known + own), hit


def test_every_place_of_a_text_is_found_in_a_piece_that_has_it(make: Make, tokenizer: Tokenizer) -> None:
    dataset, built = make()
    for place in range(0, len(TEXT), 97):
        phrase = TEXT[place : place + 25]
        hits = [hit for _, hit in find(phrase, built, tokenizer, dataset) if hit.document == "a.txt"]
        assert place in [hit.character for hit in hits]
        assert all(hit.block is not None for hit in hits)


def test_find_says_where_nothing_supervises_the_place(make: Make, tokenizer: Tokenizer) -> None:
    dataset, built = make(min_length=20)

    assert list(find("sea", built, tokenizer, dataset))[-1][1] == Hit("c.txt", None, 0, None)


def test_places_that_overlap_are_each_found(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ha ha ha (ha ha)")
    dataset = DatasetConfig(source=tmp_path / "a.txt", block_size=4, stride=0)
    built = build(dataset, tokenizer, tmp_path / "cache")

    assert [hit.character for _, hit in find("ha ha", built, tokenizer, dataset)] == [0, 3, 10]
    assert [hit.character for _, hit in find("(ha", built, tokenizer, dataset)] == [9]


def test_a_character_of_several_tokens_belongs_to_the_first(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("𝕊" * 9)  # four bytes, four tokens each
    dataset = DatasetConfig(source=tmp_path / "a.txt", block_size=7, stride=0)
    built = build(dataset, tokenizer, tmp_path / "cache")
    hits = [hit for _, hit in find("𝕊", built, tokenizer, dataset)]

    assert [hit.character for hit in hits] == list(range(9))
    # BOS, then six tokens that are a block's own in each: the first token of character n is the 4n + 1st of the text.
    assert [hit.block for hit in hits] == [(4 * n) // 6 for n in range(9)]


def test_find_yields_nothing_for_what_is_not_there(make: Make, tokenizer: Tokenizer) -> None:
    dataset, built = make()

    assert list(find("no such words", built, tokenizer, dataset)) == []


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
