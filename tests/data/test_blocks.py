"""The laws of blocks: no token lost, doubled, or predicted from nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import DatasetConfig
from lovecraft.data.blocks import Block, Blocks, Documents, count, cut, order
from lovecraft.data.options import shared_length
from lovecraft.data.packing import pack

lengths_of_documents = st.lists(st.integers(1, 90), min_size=1, max_size=8)


@st.composite
def rules(draw: st.DrawFn, **fixed: Any) -> DatasetConfig:
    """Draw options that are allowed together."""
    size = draw(st.integers(2, 40))
    stride = draw(st.integers(0, size - 1))
    again = draw(st.booleans()) if "train_on_overlap" not in fixed else fixed["train_on_overlap"]
    most = size - (1 if again else max(1, stride))
    least = draw(st.integers(1, most)) if "min_length" not in fixed else fixed["min_length"]
    return DatasetConfig(
        source=Path("/nowhere"), block_size=size, stride=stride, min_length=least, train_on_overlap=again
    )


def documents(lengths: list[int]) -> Documents:
    """Describe documents of ASCII characters, one a token, in a file each."""
    rows = [(i, 0, 0, length, length, length, 0, i) for i, length in enumerate(lengths)]
    return Documents([str(i) for i in range(len(lengths))], np.array(rows))


def make(lengths: list[int], rule: DatasetConfig, *, train: bool, whole: bool = False) -> tuple[Blocks, int]:
    """Cut documents whose tokens are all different: 0, 1, 2, …"""
    tokens = np.array(lengths), np.cumsum(lengths) - np.array(lengths)
    if train:
        table, starts, dropped = pack(*tokens, rule, whole=whole)
    else:
        table, dropped = cut(*tokens, rule, train=False)
        starts = np.arange(len(table) + 1)
    all_tokens = np.arange(sum(lengths), dtype=np.uint16)
    return Blocks(all_tokens, table, documents(lengths), shared_length(rule), starts), dropped


def supervised(blocks: Blocks) -> list[int]:
    return [label for block in blocks for label in block.labels.tolist() if label != -100]


def one_by_one(lengths: list[int], rule: DatasetConfig, *, train: bool) -> list[tuple[int, int, list[int], list[int]]]:
    """Cut blocks the slow and obvious way: (document, index, input_ids, labels)."""
    shared, found, begin = max(1, rule.stride), [], 0
    for document, length in enumerate(lengths):
        tokens, start, index = list(range(begin, begin + length)), 0, 0
        begin += length
        while True:
            ids = tokens[start : start + rule.block_size]
            context = 1 if index == 0 or (train and rule.train_on_overlap) else shared
            labels = [-100] * context + ids[context:]
            if not train or len(ids) - context >= rule.min_length:
                found.append((document, index, ids, labels))
            if start + rule.block_size >= length:
                break
            start, index = start + rule.block_size - shared, index + 1
    return found


@given(lengths_of_documents, rules(), st.booleans())
def test_cutting_is_what_the_obvious_loop_does(lengths: list[int], rule: DatasetConfig, train: bool) -> None:
    blocks, _ = make(lengths, rule, train=train)

    assert [(b.document, b.index, b.input_ids.tolist(), b.labels.tolist()) for b in blocks] == one_by_one(
        lengths, rule, train=train
    )


@given(lengths_of_documents, rules(min_length=1, train_on_overlap=False), st.booleans())
def test_every_token_but_a_documents_first_is_supervised_exactly_once(
    lengths: list[int], rule: DatasetConfig, train: bool
) -> None:
    firsts = {sum(lengths[:i]) for i in range(len(lengths))}

    assert supervised(make(lengths, rule, train=train)[0]) == [t for t in range(sum(lengths)) if t not in firsts]


@given(lengths_of_documents, rules())
def test_evaluation_ignores_min_length_and_train_on_overlap(lengths: list[int], rule: DatasetConfig) -> None:
    plain = DatasetConfig(source=rule.source, block_size=rule.block_size, stride=rule.stride)

    tables = [make(lengths, each, train=False)[0].table for each in (rule, plain)]
    assert np.array_equal(*tables)


@given(lengths_of_documents, rules(min_length=1), st.booleans())
def test_the_union_of_a_documents_blocks_is_the_document(lengths: list[int], rule: DatasetConfig, train: bool) -> None:
    pieces: dict[int, list[int]] = {}
    for block in make(lengths, rule, train=train)[0]:
        ids, known = block.input_ids.tolist(), pieces.setdefault(block.document, [])
        shared = shared_length(rule) if block.index else 0
        assert ids[:shared] == known[len(known) - shared :]
        assert len(ids) > shared, "a block must have a token of its own"
        known += ids[shared:]

    ends = np.cumsum(lengths).tolist()
    whole = {i: list(range(end - n, end)) for i, (n, end) in enumerate(zip(lengths, ends, strict=True))}
    assert pieces == {i: tokens for i, tokens in whole.items() if len(tokens) > 1 or not train}


@given(lengths_of_documents, rules(), st.booleans())
def test_labels_stand_under_their_tokens_and_never_first(lengths: list[int], rule: DatasetConfig, train: bool) -> None:
    for block in make(lengths, rule, train=train)[0]:
        assert block.labels[0] == -100
        assert len(block.input_ids) == len(block.labels) <= rule.block_size
        assert ((block.labels == -100) | (block.labels == block.input_ids)).all()
        context = (block.labels == -100).sum()
        assert (block.labels[:context] == -100).all(), "context only stands at the start"


@given(lengths_of_documents, rules(min_length=1, train_on_overlap=True))
def test_train_on_overlap_supervises_all_that_has_a_predecessor(lengths: list[int], rule: DatasetConfig) -> None:
    for block in make(lengths, rule, train=True)[0]:
        assert (block.labels[1:] == block.input_ids[1:]).all()


@given(lengths_of_documents, rules())
def test_min_length_drops_short_blocks_of_train_and_counts_them(lengths: list[int], rule: DatasetConfig) -> None:
    blocks, dropped = make(lengths, rule, train=True)
    held = {token for block in blocks for token in block.input_ids.tolist()}

    assert all((block.labels != -100).sum() >= rule.min_length for block in blocks)
    assert dropped == sum(lengths) - len(held)


@given(lengths_of_documents, rules(), st.booleans())
def test_the_counts_are_those_of_the_blocks_themselves(lengths: list[int], rule: DatasetConfig, train: bool) -> None:
    blocks, dropped = make(lengths, rule, train=train)
    held = [token for block in blocks for token in block.input_ids.tolist()]
    labels = supervised(blocks)

    counts = count(blocks.documents.table, blocks.table, len(blocks), dropped, blocks.shared, None)

    assert counts.tokens == counts.characters == sum(lengths)
    assert (counts.documents, counts.blocks) == (len(lengths), len(blocks))
    assert counts.block_tokens == len(held)
    assert counts.shared_tokens == len(held) - len(set(held))
    assert counts.supervised_tokens == len(labels)
    assert counts.repeated_tokens == len(labels) - len(set(labels))
    assert counts.dropped_tokens == sum(lengths) - len(set(held))
    assert counts.first_tokens == len({block.document for block in blocks})


def test_counts_that_lose_or_double_a_token_cannot_be_made() -> None:
    rule = DatasetConfig(source=Path("/nowhere"), block_size=8, stride=2)
    blocks, dropped = make([20], rule, train=True)
    table = blocks.table

    for wrong in (table[:-1], np.concatenate([table, table[-1:]])):
        with pytest.raises(AssertionError):
            count(blocks.documents.table, wrong, len(wrong), dropped, 2, None)


@pytest.mark.parametrize(
    ("tokens", "size", "stride", "expected"),
    [
        (5, 5, 2, [5]),  # an exact fit has no overlap-only tail
        (6, 5, 2, [5, 3]),
        (14, 8, 2, [8, 8]),
        (20, 8, 0, [8, 8, 6]),  # stride 0 still shares one token
        (1, 8, 2, [1]),
        (4, 2, 1, [2, 2, 2]),
    ],
)
def test_known_cuts(tokens: int, size: int, stride: int, expected: list[int]) -> None:
    rule = DatasetConfig(source=Path("/nowhere"), block_size=size, stride=stride)

    assert [len(block.input_ids) for block in make([tokens], rule, train=False)[0]] == expected


def test_a_block_is_plain_int64_and_free_to_change() -> None:
    rule = DatasetConfig(source=Path("/nowhere"), block_size=8, stride=2)
    blocks, _ = make([20], rule, train=True)
    block: Block = blocks[1]
    block.input_ids[:] = 0

    assert block.input_ids.dtype == block.labels.dtype == np.int64
    assert type(block.input_ids) is np.ndarray
    assert blocks[1].input_ids.tolist() == [6, 7, 8, 9, 10, 11, 12, 13]
    with pytest.raises(IndexError):
        blocks[3]


# --- order ----------------------------------------------------------------------------------------


@given(st.integers(0, 200), st.integers(-(2**70), 2**70), st.integers(0, 2**31))
def test_an_order_visits_every_block_once(blocks: int, seed: int, epoch: int) -> None:
    assert sorted(order(blocks, seed, epoch, True).tolist()) == list(range(blocks))


def test_an_order_is_a_pure_function_of_seed_and_epoch() -> None:
    orders = {
        (seed, epoch): order(100, seed, epoch, True).tolist() for seed in (0, 1, 2**32 + 1) for epoch in (0, 1, 2)
    }

    assert len({tuple(found) for found in orders.values()}) == len(orders)
    assert order(100, 1, 2, True).tolist() == orders[1, 2]


def test_the_order_of_a_seed_never_changes() -> None:
    assert order(8, 42, 0, True).tolist() == [2, 0, 6, 5, 4, 3, 1, 7]


def test_without_shuffle_blocks_come_in_source_order() -> None:
    assert order(5, 42, 3, False).tolist() == [0, 1, 2, 3, 4]
