"""What is held out is never in train."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import DatasetConfig
from lovecraft.data.sources import Text
from lovecraft.data.splits import Corpus, assign, find_copies, hold_out, read_corpus
from lovecraft.errors import ConfigError, DataError

NAMES = ["a.txt", "b.txt", "notes.md", "sub/c.txt"]


def options(**changes: Any) -> DatasetConfig:
    return DatasetConfig(source=Path("/nowhere"), **changes)


def names(corpus: Corpus) -> dict[str, list[str]]:
    return {split: [text.name for text in texts] for split, texts in corpus.splits.items()}


def test_what_is_held_out_is_not_in_train() -> None:
    chosen = assign(NAMES, options(train=("*",), validation=("sub/*",), test=("b.txt",)))

    assert chosen == {"train": ["a.txt", "notes.md"], "validation": ["sub/c.txt"], "test": ["b.txt"]}


def test_a_star_matches_files_in_folders_too() -> None:
    assert assign(NAMES, options())["train"] == ["a.txt", "b.txt", "sub/c.txt"]


def test_a_pattern_that_matches_nothing_is_named_with_a_suggestion() -> None:
    with pytest.raises(DataError, match=r"validation pattern 'bb\.txt' matches no file") as caught:
        assign(NAMES, options(validation=("bb.txt",)))

    assert caught.value.hint == "did you mean 'b.txt'?"


def test_a_pattern_that_is_like_nothing_is_answered_with_what_there_is() -> None:
    with pytest.raises(DataError) as caught:
        assign(NAMES, options(train=("*.jsonl",)))

    assert caught.value.hint == "the source holds a.txt, b.txt, notes.md and 1 more"


def test_a_file_in_validation_and_test_is_refused() -> None:
    with pytest.raises(DataError, match=r"b\.txt is in validation and in test"):
        assign(NAMES, options(validation=("b*",), test=("b.txt",)))


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(DataError, match="nothing is left to train on"):
        assign(NAMES, options(validation=("*",)))


def test_a_dataset_may_be_for_evaluation_only(texts: Callable[..., Path]) -> None:
    corpus = read_corpus(DatasetConfig(source=texts({"a.txt": "one", "b.txt": "two"}), train=(), test=("a.txt",)))

    assert names(corpus) == {"test": ["a.txt"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_size": 64, "stride": 64}, r"stride \(64\) must be below block_size \(64\)"),
        ({"block_size": 64, "stride": 100}, r"stride \(100\) must be below"),
        ({"block_size": 64, "stride": 32, "min_length": 33}, r"min_length \(33\) is above the 32 tokens"),
        ({"validation": ("a",), "validation_fraction": 0.1}, "both set"),
        ({"train": ()}, "all empty"),
    ],
)
def test_options_that_cannot_work_together_are_refused_before_anything_is_read(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_corpus(options(**changes))

    assert caught.value.hint


def test_a_file_outside_the_patterns_is_never_read(texts: Callable[..., Path]) -> None:
    corpus = read_corpus(DatasetConfig(source=texts({"a.txt": "one", "b.bin": b"\xff\0"})))

    assert names(corpus) == {"train": ["a.txt"]}


# --- a fraction -----------------------------------------------------------------------------------

many = st.lists(st.text("abc", min_size=1), min_size=2, max_size=40)
fractions = st.floats(0.01, 0.6)


@given(many, fractions, st.randoms(use_true_random=False))
def test_holding_out_a_fraction_depends_on_the_texts_and_not_their_order(
    contents: list[str], fraction: float, random: Any
) -> None:
    texts = [Text(str(i), content) for i, content in enumerate(contents)]
    shuffled = random.sample(texts, len(texts))
    distinct = len(set(contents))
    if max(1, round(fraction * distinct)) == distinct:
        with pytest.raises(DataError, match="leaves none"):
            hold_out(texts, fraction)
        return

    train, validation = hold_out(texts, fraction)

    assert sorted(train + validation, key=lambda t: int(t.name)) == texts
    assert not {t.text for t in train} & {t.text for t in validation}
    assert len({t.text for t in validation}) == max(1, round(fraction * distinct))
    assert {t.name for t in hold_out(shuffled, fraction)[1]} == {t.name for t in validation}


def test_a_larger_fraction_holds_out_the_same_and_more() -> None:
    texts = [Text(str(i), str(i)) for i in range(50)]

    small, large = ({t.name for t in hold_out(texts, fraction)[1]} for fraction in (0.1, 0.3))

    assert (len(small), len(large)) == (5, 15)
    assert small < large


def test_a_fraction_makes_a_validation_split(texts: Callable[..., Path]) -> None:
    corpus = read_corpus(
        DatasetConfig(source=texts({f"{i}.txt": f"text {i}" for i in range(8)}), validation_fraction=0.25)
    )

    assert [len(texts) for texts in corpus.splits.values()] == [6, 2]
    assert list(corpus.splits) == ["train", "validation"]


# --- copies ---------------------------------------------------------------------------------------


def test_the_same_text_in_two_splits_is_trouble_and_in_one_a_note() -> None:
    notes, troubles = find_copies(
        {
            "train": [Text("a", "one"), Text("b", "one\n"), Text("c", "two")],
            "validation": [Text("d", " one"), Text("e", "three")],
            "test": [],
        }
    )

    assert notes == ["train: 1 texts are copies of others in it"]
    assert troubles == ["the same text is in train (a, b) and in validation (d)"]


def test_copies_and_notes_reach_the_corpus(texts: Callable[..., Path]) -> None:
    source = texts({"a.txt": "one\r\n", "b.txt": "two", "c.txt": "one\n"})

    corpus = read_corpus(DatasetConfig(source=source, validation=("c.txt",)))

    assert corpus.notes == ["a.txt: CRLF line ends changed to LF"]
    assert corpus.troubles == ["the same text is in train (a.txt) and in validation (c.txt)"]
