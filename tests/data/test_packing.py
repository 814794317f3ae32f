"""The laws of packing: it changes which blocks hold a document's pieces, and nothing of what is learnt from them."""

from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import DatasetConfig
from lovecraft.data.blocks import Blocks, count
from lovecraft.data.packing import pack
from tests.data.test_blocks import lengths_of_documents, make, rules, supervised

KINDS = ("none", "greedy", "best_fit")
kinds = st.sampled_from(KINDS[1:])


def packed(rule: DatasetConfig, packing: str, **changes: Any) -> DatasetConfig:
    return DatasetConfig(**{**attrs.asdict(rule), "packing": packing, **changes})


def pieces(blocks: Blocks) -> list[tuple[int, list[int], list[int]]]:
    """Return (document, input_ids, labels) of every piece, in the order of the blocks."""
    found = []
    for block in blocks:
        begin = 0
        for (document, *_), length in zip(block.pieces.tolist(), block.lengths, strict=True):
            some = slice(begin, begin + length)
            found.append((document, block.input_ids[some].tolist(), block.labels[some].tolist()))
            begin += length
        assert begin == len(block.input_ids)
    return found


@given(lengths_of_documents, rules(min_length=1, train_on_overlap=False), st.sampled_from(KINDS))
def test_every_token_but_a_documents_first_is_supervised_exactly_once(
    lengths: list[int], rule: DatasetConfig, packing: str
) -> None:
    firsts = {sum(lengths[:i]) for i in range(len(lengths))}
    blocks, dropped = make(lengths, packed(rule, packing), train=True)

    assert sorted(supervised(blocks)) == [t for t in range(sum(lengths)) if t not in firsts]
    assert dropped == lengths.count(1), "a document of one token has nothing to learn"


@given(lengths_of_documents, rules(), kinds)
def test_a_token_is_supervised_iff_its_predecessor_is_in_the_piece_and_it_is_not_overlap(
    lengths: list[int], rule: DatasetConfig, packing: str
) -> None:
    shared = max(1, rule.stride)
    seen: dict[int, int] = {}
    for document, ids, labels in pieces(make(lengths, packed(rule, packing), train=True)[0]):
        last = seen.get(document)
        overlap = 0 if last is None else sum(token <= last for token in ids)
        if packing == "greedy":  # best fit may place a later piece first
            assert overlap == (0 if last is None else shared)
        assert ids == list(range(ids[0], ids[0] + len(ids))), "a piece is a run of its document"
        context = 1 if rule.train_on_overlap or ids[0] == sum(lengths[:document]) else shared
        assert labels == [-100] * context + ids[context:]
        seen[document] = max(ids[-1], last or 0)


@given(lengths_of_documents, rules(), kinds)
def test_no_block_is_too_long_and_no_piece_teaches_too_little(
    lengths: list[int], rule: DatasetConfig, packing: str
) -> None:
    blocks, _ = make(lengths, packed(rule, packing), train=True)

    assert all(len(block.input_ids) <= rule.block_size for block in blocks)
    assert blocks.lengths.tolist() == [len(block.input_ids) for block in blocks]
    assert all(sum(label != -100 for label in labels) >= rule.min_length for _, _, labels in pieces(blocks))


@given(lengths_of_documents, rules(), st.sampled_from(KINDS))
def test_the_identities_hold(lengths: list[int], rule: DatasetConfig, packing: str) -> None:
    blocks, dropped = make(lengths, packed(rule, packing), train=True)
    held = [token for block in blocks for token in block.input_ids.tolist()]

    counts = count(blocks.documents.table, blocks.table, len(blocks), dropped, blocks.shared, None)

    assert counts.block_tokens == len(held)
    assert counts.shared_tokens == len(held) - len(set(held))
    assert counts.dropped_tokens == sum(lengths) - len(set(held))
    assert counts.supervised_tokens == len(supervised(blocks))


@given(lengths_of_documents, rules())
def test_best_fit_holds_the_pieces_of_no_packing(lengths: list[int], rule: DatasetConfig) -> None:
    plain, fitted = (make(lengths, packed(rule, packing), train=True)[0] for packing in ("none", "best_fit"))

    assert sorted(pieces(plain)) == sorted(pieces(fitted))
    assert len(fitted) <= len(plain)


@given(lengths_of_documents, rules(min_length=1))
def test_greedy_fills_all_but_the_last_block_and_keeps_the_order(lengths: list[int], rule: DatasetConfig) -> None:
    blocks, _ = make(lengths, packed(rule, "greedy"), train=True)

    # What may stay empty is less than a piece that would teach anything: the context and one token.
    assert all(n >= rule.block_size - max(1, rule.stride) for n in blocks.lengths[:-1])
    assert blocks.table[:, :2].tolist() == sorted(blocks.table[:, :2].tolist())


@given(lengths_of_documents, rules())
def test_best_fit_leaves_no_two_blocks_that_would_fit_into_one(lengths: list[int], rule: DatasetConfig) -> None:
    blocks, _ = make(lengths, packed(rule, "best_fit"), train=True)

    assert sum(sorted(blocks.lengths.tolist())[:2]) > rule.block_size or len(blocks) < 2


def test_best_fit_puts_a_piece_where_it_leaves_least() -> None:
    rule = DatasetConfig(source=Path("/nowhere"), block_size=10, stride=0, packing="best_fit")
    blocks, _ = make([6, 7, 3, 4, 2], rule, train=True)

    assert [block.lengths for block in blocks] == [[6, 4], [7, 3], [2]]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), rules(train_on_overlap=False), kinds)
def test_whole_documents_are_never_cut(lengths: list[int], rule: DatasetConfig, packing: str) -> None:
    rule = packed(rule, packing, block_size=40)
    blocks, _ = make(lengths, rule, train=True, whole=True)

    assert all(len(ids) == lengths[document] for document, ids, _ in pieces(blocks))
    assert max(Counter(document for document, _, _ in pieces(blocks)).values(), default=1) == 1


def test_many_short_documents_leave_next_to_nothing_empty() -> None:
    lengths = np.random.default_rng(0).integers(2, 512, 100_000)
    rule = DatasetConfig(source=Path("/nowhere"), block_size=4096, stride=0, packing="best_fit")

    table, starts, _ = pack(lengths, np.cumsum(lengths) - lengths, rule, whole=False)

    assert len(table) == 100_000
    assert np.add.reduceat(table[:, 3], starts[:-1]).mean() > 4090


@pytest.mark.parametrize("packing", KINDS)
def test_nothing_to_pack_is_no_block(packing: str) -> None:
    rule = DatasetConfig(source=Path("/nowhere"), block_size=8, stride=0, packing=packing)

    blocks, dropped = make([1, 1], rule, train=True)

    assert (len(blocks), dropped) == (0, 2)
