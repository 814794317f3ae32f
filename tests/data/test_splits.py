"""What is held out is never in train."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import DatasetConfig
from lovecraft.data.splits import Reading, assign, digest, divide, group_copies, hold_out, read, survey, words
from lovecraft.errors import ConfigError, DataError

NAMES = ["a.txt", "b.txt", "notes.md", "sub/c.txt"]


def options(**changes: Any) -> DatasetConfig:
    return DatasetConfig(source=Path("/nowhere"), **changes)


def names(reading: Reading) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for split, text in reading:
        found.setdefault(split, []).append(text.name)
    return found


def chosen(names: list[str], **changes: Any) -> dict[str, list[str]]:
    return {split: some for split, some in assign(names, names, options(**changes)).items() if some}


def test_what_is_held_out_is_not_in_train() -> None:
    splits = chosen(NAMES, train=("*",), validation=("sub/*",), test=("b.txt",))

    assert splits == {"train": ["a.txt", "notes.md"], "validation": ["sub/c.txt"], "test": ["b.txt"]}


def test_a_star_matches_files_in_folders_too() -> None:
    assert chosen(NAMES, train=("*.txt",)) == {"train": ["a.txt", "b.txt", "sub/c.txt"]}


def test_without_patterns_all_that_can_be_read_is_train() -> None:
    assert chosen(NAMES) == {"train": NAMES}
    assert chosen(NAMES, validation=("b.txt",)) == {
        "train": ["a.txt", "notes.md", "sub/c.txt"],
        "validation": ["b.txt"],
    }


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["test.csv", "train.csv"], {"train": ["train.csv"], "test": ["test.csv"]}),
        (
            ["dev/a.txt", "train/a.txt", "train/b.txt"],
            {"train": ["train/a.txt", "train/b.txt"], "validation": ["dev/a.txt"]},
        ),
        (
            ["train-0-of-2.parquet", "valid-0.parquet"],
            {"train": ["train-0-of-2.parquet"], "validation": ["valid-0.parquet"]},
        ),
        (["dev_0.csv", "train_0.csv"], {"train": ["train_0.csv"], "validation": ["dev_0.csv"]}),
        (["README.md", "dev.jsonl", "train.jsonl"], {"train": ["train.jsonl"], "validation": ["dev.jsonl"]}),
        (["the_sea.txt", "train.txt"], {"train": ["the_sea.txt", "train.txt"]}),  # a tale of a train
        (["test.txt", "valid.txt"], {"train": ["test.txt", "valid.txt"]}),
    ],
)
def test_the_sources_own_splits_count_where_every_name_says_one(names: list[str], splits: dict[str, list[str]]) -> None:
    assert chosen(names) == splits


def test_files_of_which_only_some_say_their_split_are_not_all_trained_on() -> None:
    with pytest.raises(DataError, match=r"dev\.csv says which split it is, but extra\.csv does not") as caught:
        chosen(["dev.csv", "extra.csv", "train.csv"])

    assert caught.value.hint == "set train, and validation or test"


def test_a_files_very_name_is_no_pattern() -> None:
    assert chosen(["a1.txt", "a[1].txt", "b.txt"], validation=("a[1].txt",)) == {
        "train": ["a1.txt", "b.txt"],
        "validation": ["a[1].txt"],
    }
    assert chosen(["a1.txt", "b.txt"], validation=("a[1].txt",)) == {"train": ["b.txt"], "validation": ["a1.txt"]}


def test_a_pattern_turns_the_sources_own_splits_off() -> None:
    assert chosen(["test.csv", "train.csv"], validation=("test.csv",)) == {
        "train": ["train.csv"],
        "validation": ["test.csv"],
    }


def test_a_readme_beside_the_splits_is_noted(texts: Callable[..., Path]) -> None:
    reading = read(DatasetConfig(source=texts({"README.md": "a", "train.csv": "text\nb\n", "test.csv": "text\nc\n"})))

    assert names(reading) == {"train": ["train.csv:1"], "test": ["test.csv:1"]}
    assert list(reading.notes) == ["in no split, for their names do not say which, or how to read them: README.md"]


def test_what_is_in_no_split_is_noted(texts: Callable[..., Path]) -> None:
    reading = read(DatasetConfig(source=texts({"a.txt": "one", "b.bin": b"\xff\0"})))

    assert names(reading) == {"train": ["a.txt"]}
    assert list(reading.notes) == ["in no split, for their names do not say which, or how to read them: b.bin"]


def test_a_source_that_cannot_be_read_at_all_says_what_to_set(texts: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"what there is cannot be read: a\.dat") as caught:
        read(DatasetConfig(source=texts({"a.dat": "one"})))

    assert "format" in str(caught.value.hint)


def test_a_pattern_that_matches_nothing_is_named_with_a_suggestion() -> None:
    with pytest.raises(DataError, match=r"validation pattern 'bb\.txt' matches no file") as caught:
        chosen(NAMES, validation=("bb.txt",))

    assert caught.value.hint == "did you mean 'b.txt'?"


def test_a_pattern_that_is_like_nothing_is_answered_with_what_there_is() -> None:
    with pytest.raises(DataError) as caught:
        chosen(NAMES, train=("*.jsonl",))

    assert caught.value.hint == "the source holds a.txt, b.txt, notes.md and 1 more"


def test_a_file_in_validation_and_test_is_refused() -> None:
    with pytest.raises(DataError, match=r"b\.txt is in validation and in test"):
        chosen(NAMES, validation=("b*",), test=("b.txt",))


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(DataError, match="nothing is left to train on"):
        chosen(NAMES, validation=("*",))


def test_a_dataset_may_be_for_evaluation_only(texts: Callable[..., Path]) -> None:
    reading = read(DatasetConfig(source=texts({"a.txt": "one", "b.txt": "two"}), train=(), test=("a.txt",)))

    assert names(reading) == {"test": ["a.txt"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_size": 64, "stride": 64}, r"stride \(64\) must be below block_size \(64\)"),
        ({"block_size": 64, "stride": 100}, r"stride \(100\) must be below"),
        ({"block_size": 64, "stride": 32, "min_length": 33}, r"min_length \(33\) is above the 32 tokens"),
        ({"validation": ("a",), "validation_fraction": 0.1}, "validation and validation_fraction are both set"),
        ({"validation_count": 3, "validation_fraction": 0.1}, "validation_fraction and validation_count are both set"),
        ({"train": ()}, "all empty"),
    ],
)
def test_options_that_cannot_work_together_are_refused_before_anything_is_read(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(options(**changes))

    assert caught.value.hint


def test_a_file_outside_the_patterns_is_never_read(texts: Callable[..., Path]) -> None:
    reading = read(DatasetConfig(source=texts({"a.txt": "one", "b.txt": b"\xff\0"}), train=("a*",)))

    assert names(reading) == {"train": ["a.txt"]}


def test_what_cannot_be_read_names_the_source_and_the_file(texts: Callable[..., Path]) -> None:
    source = texts({"a.txt": "one", "b.txt": b"\xff"})

    with pytest.raises(DataError) as caught:
        names(read(DatasetConfig(source=source)))

    assert caught.value.message == f"{source}: b.txt is not UTF-8 at byte 0"


def test_conversations_of_which_none_fits_are_no_dataset() -> None:
    with pytest.raises(DataError, match="no conversation fits into 512 tokens"):
        divide(np.empty(0, np.int8), np.empty((0, 2), np.uint64), options(messages_field="chat"), str)


# --- by content -------------------------------------------------------------------------------------

many = st.lists(st.text("abc", min_size=1), min_size=2, max_size=40)
fractions = st.floats(0.01, 0.6)


def digests(contents: list[str]) -> Any:
    return words(bytearray(b"".join(map(digest, contents))))


def held(contents: list[str], **changes: Any) -> set[int]:
    found = digests(contents)
    return {i for i, out in enumerate(hold_out(found, group_copies(found), options(**changes))) if out}


@given(many)
def test_copies_are_texts_that_differ_in_nothing_but_outer_space(contents: list[str]) -> None:
    groups = group_copies(digests([*contents, *(f"\n {text}\t" for text in contents)])).tolist()

    assert groups[: len(contents)] == groups[len(contents) :]
    assert len(set(groups)) == len(set(contents))


@given(many, fractions, st.randoms(use_true_random=False))
def test_holding_out_a_fraction_depends_on_the_texts_and_not_their_order(
    contents: list[str], fraction: float, random: Any
) -> None:
    distinct = len(set(contents))
    if max(1, round(fraction * distinct)) == distinct:
        with pytest.raises(DataError, match="leaves none"):
            held(contents, validation_fraction=fraction)
        return

    out = {contents[i] for i in held(contents, validation_fraction=fraction)}
    shuffled = random.sample(contents, len(contents))

    assert len(out) == max(1, round(fraction * distinct))
    assert {i for i, text in enumerate(contents) if text in out} == held(contents, validation_fraction=fraction)
    assert {shuffled[i] for i in held(shuffled, validation_fraction=fraction)} == out


def test_a_larger_fraction_holds_out_the_same_and_more() -> None:
    small, large = (held([str(i) for i in range(50)], validation_fraction=fraction) for fraction in (0.1, 0.3))

    assert (len(small), len(large)) == (5, 15)
    assert small < large


def test_a_count_holds_out_as_many_and_a_seed_others() -> None:
    contents = [str(i) for i in range(50)]

    assert len(held(contents, validation_count=7)) == 7
    assert held(contents, validation_count=7) == held(contents, validation_count=7, split_seed=2**64)
    assert held(contents, validation_count=7) != held(contents, validation_count=7, split_seed=1)
    with pytest.raises(DataError, match="validation_count = 50 leaves none of 50"):
        held(contents, validation_count=50)


def test_another_document_does_not_move_those_that_are_there() -> None:
    contents = [str(i) for i in range(50)]
    before, after = held(contents, validation_count=5), held([*contents, "new"], validation_count=5)

    assert len(before - after) <= 1


def test_a_fraction_makes_a_validation_split(texts: Callable[..., Path]) -> None:
    found = survey(DatasetConfig(source=texts({f"{i}.txt": f"text {i}" for i in range(8)}), validation_fraction=0.25))

    assert {split: len(numbers) for split, numbers in found.division.splits.items()} == {"train": 6, "validation": 2}


def test_a_fraction_beside_a_validation_split_of_the_source_is_refused(texts: Callable[..., Path]) -> None:
    source = texts({"train/a.txt": "one", "train/b.txt": "two", "valid/c.txt": "three"})

    with pytest.raises(DataError, match="has a validation split of its own"):
        survey(DatasetConfig(source=source, validation_fraction=0.5))


def test_the_same_text_in_two_splits_is_trouble_and_in_one_a_note() -> None:
    texts = {"a": "x", "b": "y", "c": "x ", "d": "x", "e": "z"}
    codes = np.array([0, 0, 0, 1, 2], np.int8)

    found = divide(codes, digests(list(texts.values())), options(), list(texts).__getitem__)

    assert found.notes == ["train: 1 texts are copies of others in it"]
    assert found.troubles == ["the same text is in train (a, c) and in validation (d)"]


def test_troubles_beyond_the_first_are_counted() -> None:
    texts = [str(i) for i in range(30)] * 2

    found = divide(np.repeat([0, 1], 30).astype(np.int8), digests(texts), options(), str)

    assert len(found.troubles) == 21
    assert found.troubles[-1] == "10 more texts are in more than one split"


def test_a_survey_counts_characters_and_tells_notes(texts: Callable[..., Path]) -> None:
    found = survey(DatasetConfig(source=texts({"a.txt": b"\xef\xbb\xbfone", "b.txt": "one"}), validation=("b.txt",)))

    assert found.characters.tolist() == [3, 3]
    assert found.notes == ["a.txt: byte order mark removed"]
    assert found.division.troubles == ["the same text is in train (a.txt) and in validation (b.txt)"]
