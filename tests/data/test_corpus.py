"""The real stories, through the real tokenizer: every document token but each document's first is learnt once."""

import os
from pathlib import Path

import numpy as np
import pytest

from lovecraft import DatasetConfig
from lovecraft.data.blocks import INDEX, OFFSET, TOKENS
from lovecraft.data.build import build
from lovecraft.tokenizer import load_tokenizer

MODEL = Path(__file__).parents[2] / "models" / "smollm2_135m"


@pytest.mark.corpus
@pytest.mark.skipif("LOVECRAFT_CORPUS" not in os.environ, reason="LOVECRAFT_CORPUS is not set")
@pytest.mark.skipif(not (MODEL / "tokenizer.json").exists(), reason="`make model` fetches the tokenizer")
@pytest.mark.parametrize("packing", ["none", "greedy", "best_fit"])
def test_every_token_but_each_documents_first_is_supervised_once(packing: str, tmp_path: Path) -> None:
    dataset = DatasetConfig(
        source=Path(os.environ["LOVECRAFT_CORPUS"]).absolute(),
        validation=("the_call_of_cthulhu.txt",),
        test=("at_the_mountains_of_madness.txt",),
        block_size=4096,
        stride=512,
        packing=packing,
    )
    built = build(dataset, load_tokenizer(MODEL), tmp_path)

    times = np.zeros(len(built.splits["train"].tokens), np.int64)  # that each token of the corpus is supervised
    firsts: list[int] = []
    for split, blocks in built.splits.items():
        for block in blocks:
            places = np.concatenate([np.arange(start, start + n) for start, n in block.pieces[:, 2:4].tolist()])
            assert len(places) <= 4096
            assert (block.input_ids == blocks.tokens[places]).all()
            np.add.at(times, places[block.labels != -100], 1)
        begun = blocks.table[blocks.table[:, INDEX] == 0, OFFSET].tolist()
        firsts += begun
        counts, tokens = built.report.splits[split], int(blocks.documents.table[:, TOKENS].sum())
        identity = f"{tokens:,} document tokens = {counts.supervised_tokens:,} supervised + {len(begun)} first"
        print(f"{packing}: {split}: {identity}, in {len(blocks)} blocks")
        assert tokens == counts.tokens == counts.supervised_tokens + len(begun)

    assert len(times) == 588_803 + 63  # an EOS each
    assert times.max() == 1
    assert np.flatnonzero(times == 0).tolist() == sorted(firsts)
    assert len(firsts) == 63
