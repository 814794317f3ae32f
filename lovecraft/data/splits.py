"""Which text belongs to which split. What is held out is never in train, and copies across splits are found."""

import difflib
import fnmatch
import hashlib
from collections.abc import Sequence

import attrs

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.options import SPLITS, check_options
from lovecraft.data.sources import Text, list_files, locate, read_file
from lovecraft.errors import DataError


@attrs.frozen
class Corpus:
    """The texts of a dataset."""

    splits: dict[str, list[Text]] = attrs.field(repr=False)
    """Split → its texts in source order; only splits that have any, in the order train, validation, test."""

    notes: list[str]
    """What was put right while reading, one line each."""

    troubles: list[str]
    """What makes a measurement doubtful: texts that are the same in two splits."""


def read_corpus(dataset: DatasetConfig) -> Corpus:
    """Read the source and assign its texts.

    Raises ConfigError for options that contradict each other, DataError for a source that cannot be read, a pattern
    that matches nothing, a file in both validation and test, and a train split of which nothing is left.
    """
    check_options(dataset)
    source = locate(dataset.source)
    files = {file.name: file for file in list_files(source)}
    notes: list[str] = []
    splits: dict[str, list[Text]] = {}
    for split, names in assign(list(files), dataset).items():
        try:
            readings = [read_file(files[name], dataset) for name in names]
        except DataError as error:  # names the file; say where it lies
            raise DataError(f"{source}: {error.message}", hint=error.hint) from None
        notes += [note for reading in readings for note in reading.notes]
        splits[split] = [text for reading in readings for text in reading.texts]
    if dataset.validation_fraction:
        splits["train"], splits["validation"] = hold_out(splits["train"], dataset.validation_fraction)
    copies, troubles = find_copies(splits)
    return Corpus({split: splits[split] for split in SPLITS if splits[split]}, notes + copies, troubles)


def assign(names: Sequence[str], dataset: DatasetConfig) -> dict[str, list[str]]:
    """Return split → the names its patterns match, in order; train is without what the others match.

    Patterns are matched against the whole name as `fnmatch` does, so that `*` also matches `/`.
    """
    validation, test = (_matching(names, split, getattr(dataset, split)) for split in ("validation", "test"))
    if both := sorted(validation & test):
        raise DataError(f"{both[0]} is in validation and in test", hint="change one of the two patterns")
    train = _matching(names, "train", dataset.train) - validation - test
    if dataset.train and not train:
        raise DataError("nothing is left to train on: validation and test hold out every file that train matches")
    chosen = {"train": train, "validation": validation, "test": test}
    return {split: [name for name in names if name in chosen[split]] for split in SPLITS}


def _matching(names: Sequence[str], split: str, patterns: Sequence[str]) -> set[str]:
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
        if not found:
            near = difflib.get_close_matches(pattern, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the source holds {_some(names)}"
            raise DataError(f"the {split} pattern {pattern!r} matches no file", hint=hint)
        matched |= found
    return matched


def hold_out(texts: Sequence[Text], fraction: float) -> tuple[list[Text], list[Text]]:
    """Split texts into (train, validation), `fraction` of the distinct ones in validation, but at least one.

    Which ones depends on their hashes alone, not on their order or names; copies of a text stay together.
    Raises DataError when nothing would be left to train on.
    """
    rank = {text.text: hashlib.sha256(text.text.encode()).digest() for text in texts}
    held = set(sorted(rank, key=rank.__getitem__)[: max(1, round(fraction * len(rank)))])
    train = [text for text in texts if text.text not in held]
    if not train:
        raise DataError(
            f"validation_fraction = {fraction} leaves none of {len(texts)} texts to train on",
            hint="lower it, or split the texts more finely with sample_by",
        )
    return train, [text for text in texts if text.text in held]


def find_copies(splits: dict[str, list[Text]]) -> tuple[list[str], list[str]]:
    """Return (notes, troubles): texts that are the same in one split, and in different ones, but for outer space."""
    places: dict[str, dict[str, list[str]]] = {}
    for split, texts in splits.items():
        for text in texts:
            places.setdefault(text.text.strip(), {}).setdefault(split, []).append(text.name)
    extra = {
        split: sum(len(where.get(split, ())) - 1 for where in places.values() if split in where) for split in splits
    }
    notes = [f"{split}: {count:,} texts are copies of others in it" for split, count in extra.items() if count]
    across = [where for where in places.values() if len(where) > 1]
    troubles = [
        "the same text is in " + " and in ".join(f"{split} ({_some(names)})" for split, names in where.items())
        for where in across
    ]
    return notes, troubles


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
