"""Which document belongs to which split. What is held out is never in train, and copies across splits are found."""

import difflib
import fnmatch
import hashlib
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import attrs
import numpy as np

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.options import SPLITS, check_options
from lovecraft.data.sources import File, list_files, locate
from lovecraft.data.texts import Notes, Text, read_file
from lovecraft.errors import DataError

OWN = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}
"""The names of files, folders and hub splits that say which split they are."""
MOST = 20  # troubles of one kind that are told one by one


@attrs.frozen
class Reading:
    """A source about to be read, one document after the other."""

    dataset: DatasetConfig
    files: dict[str, list[File]]
    """Split → the files that its patterns match, in order."""
    notes: Notes = attrs.field(factory=dict)
    """What had to be put right so far."""

    def __iter__(self) -> Iterator[tuple[str, Text]]:
        """Yield (split, document), in source order within each split; a fraction is still to be held out of train.

        Raises DataError with the place for what cannot be read.
        """
        for split, files in self.files.items():
            for file in files:
                try:
                    for text in read_file(file, self.dataset, self.notes):
                        yield split, text
                except DataError as error:  # names the file; say where it lies
                    raise DataError(f"{self.dataset.source}: {error.message}", hint=error.hint) from None


def read(dataset: DatasetConfig) -> Reading:
    """Return `choose(dataset)`; raise ConfigError for options that contradict each other, too."""
    check_options(dataset)
    return choose(dataset)


def choose(dataset: DatasetConfig) -> Reading:
    """Find the files of a dataset and assign them to splits.

    Raises DataError for a source that cannot be read, a pattern that matches nothing, a file in both validation and
    test, and a train split of which nothing is left.
    """
    files = {file.name: file for file in list_files(locate(dataset.source))}
    readable = [name for name, file in files.items() if file.format(dataset) is not None]
    chosen = assign(list(files), readable, dataset)
    reading = Reading(dataset, {split: [files[name] for name in names] for split, names in chosen.items()})
    if dataset.train is None and (left := sorted(set(files).difference(*chosen.values()))):
        reading.notes[f"in no split, for their names do not say which, or how to read them: {some_of(left)}"] = None
    return reading


def assign(names: Sequence[str], readable: Sequence[str], dataset: DatasetConfig) -> dict[str, list[str]]:
    """Return split → the names that are its, in order; train is without what the others match.

    Patterns are matched against the whole name as `fnmatch` does, so that `*` also matches `/`. Where no pattern is
    given, the source's own splits count if train is one, and every name with an ending like theirs says one, or it is
    a dataset of the hub; else all that is `readable` is train.
    """
    patterns = {split: getattr(dataset, split) for split in SPLITS}
    own = {name: _own_split(name) for name in readable} if set(patterns.values()) == {None} else {}
    if "train" in own.values():
        endings = {PurePosixPath(name).suffix for name in readable if own[name]}
        loose = [name for name in readable if not own[name] and PurePosixPath(name).suffix in endings]
        if not loose or isinstance(dataset.source, str):
            return {split: [name for name in readable if own[name] == split] for split in SPLITS}
        if held := [name for name in readable if own[name] not in (None, "train")]:
            hint = "set train, and validation or test"
            raise DataError(f"{held[0]} says which split it is, but {some_of(loose)} does not", hint=hint)
    validation, test = (_matching(names, split, patterns[split] or ()) for split in ("validation", "test"))
    if both := sorted(validation & test):
        raise DataError(f"{both[0]} is in validation and in test", hint="change one of the two patterns")
    train = set(readable) if dataset.train is None else _matching(names, "train", dataset.train)
    train -= validation | test
    if dataset.train != () and not train:
        held = "validation and test hold out every file that train matches"
        why = held if validation | test else f"what there is cannot be read: {some_of(names)}"
        raise DataError(f"nothing is left to train on: {why}", hint="change train, validation and test, or set format")
    chosen = {"train": train, "validation": validation, "test": test}
    return {split: [name for name in names if name in chosen[split]] for split in SPLITS}


def _own_split(name: str) -> str | None:
    """Return the split that a name says by a folder, or by the file up to its ending and number: `train-00001.csv`."""
    *folders, last = name.lower().split("/")
    return next((OWN[word] for word in (*folders, re.split(r"[.-]|_\d", last)[0]) if word in OWN), None)


def _matching(names: Sequence[str], split: str, patterns: Sequence[str]) -> set[str]:
    matched: set[str] = set()
    for pattern in patterns:
        # A file's very name stands for that file, also with brackets.
        found = {pattern} if pattern in names else set(fnmatch.filter(names, pattern))
        if not found:
            near = difflib.get_close_matches(pattern, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the source holds {some_of(names)}"
            raise DataError(f"the {split} pattern {pattern!r} matches no file", hint=hint)
        matched |= found
    return matched


@attrs.frozen(eq=False)
class Division:
    """Which document is of which split."""

    splits: dict[str, np.ndarray]
    """Split → the numbers of its documents, in source order; only splits that have any."""
    notes: list[str]
    troubles: list[str]
    """What makes a measurement doubtful: texts that are the same in two splits."""


def divide(codes: np.ndarray, digests: np.ndarray, dataset: DatasetConfig, name: Callable[[int], str]) -> Division:
    """Hold out of train what is to be held out, and look for copies.

    `codes` (documents,) are the numbers in SPLITS by file, `digests` (documents, 2) uint64 those of the texts, `name`
    returns the name of a document by its number. Raises DataError when nothing would be left to train on.
    """
    if not len(codes):
        raise DataError(f"no conversation fits into {dataset.block_size} tokens", hint="raise block_size")
    splits = {split: np.flatnonzero(codes == number) for number, split in enumerate(SPLITS)}
    groups = group_copies(digests)
    if dataset.validation_fraction or dataset.validation_count:
        if len(splits["validation"]):
            hint = "set train to the files to hold out of, or hold out nothing more"
            raise DataError(f"{dataset.source} has a validation split of its own", hint=hint)
        train = splits["train"]
        held = hold_out(digests[train], groups[train], dataset)
        splits["train"], splits["validation"] = train[~held], train[held]
    splits = {split: numbers for split, numbers in splits.items() if len(numbers)}
    return Division(splits, *find_copies(groups, splits, name))


@attrs.frozen(eq=False)
class Survey:
    """What reading the texts alone tells."""

    division: Division
    characters: np.ndarray
    """(documents,) int64."""
    notes: list[str]


def survey(dataset: DatasetConfig) -> Survey:
    """Read every document once, without tokens; raise as `read` and its documents do."""
    reading = read(dataset)
    codes, characters, digests, names = bytearray(), array("q"), bytearray(), list[str]()
    for split, text in reading:
        codes.append(SPLITS.index(split))
        characters.append(len(text.text))
        digests += digest(text.text)
        names.append(text.name)
    division = divide(np.frombuffer(codes, np.int8), words(digests), dataset, names.__getitem__)
    return Survey(division, np.frombuffer(characters, np.int64), [*reading.notes, *division.notes])


# --- by content -------------------------------------------------------------------------------------


def digest(text: str) -> bytes:
    """Return what tells texts apart that differ in more than outer white space: 16 bytes."""
    return hashlib.blake2b(text.strip().encode(), digest_size=16).digest()


def words(digests: bytearray) -> np.ndarray:
    """Return digests one behind the other as rows (documents, 2) uint64."""
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def group_copies(digests: np.ndarray) -> np.ndarray:
    """Return the group (documents,) of each document by its digest (documents, 2) uint64: copies share a number."""
    order = np.lexsort(digests.T)
    new = (np.diff(digests[order], axis=0) != 0).any(axis=1)
    groups = np.empty(len(order), np.int64)
    groups[order] = np.append(0, np.cumsum(new))
    return groups


def hold_out(digests: np.ndarray, groups: np.ndarray, dataset: DatasetConfig) -> np.ndarray:
    """Return which of the train documents (documents,) bool go to validation, by `validation_fraction` or `_count`.

    Which ones depends on their texts and `split_seed` alone, not on their order, names or companions; copies stay
    together. Raises DataError when nothing would be left to train on.
    """
    _, first = np.unique(groups, return_index=True)
    many = dataset.validation_count or max(1, round(dataset.validation_fraction * len(first)))
    if many >= len(first):
        option = "validation_count" if dataset.validation_count else "validation_fraction"
        raise DataError(
            f"{option} = {getattr(dataset, option)} leaves none of {len(first)} texts to train on",
            hint="lower it, or split the texts more finely with sample_by",
        )
    rank = _mix(digests[first, 0] ^ np.uint64(dataset.split_seed % 2**64))
    held = groups[first[np.argsort(rank, kind="stable")[:many]]]
    return np.isin(groups, held)


def _mix(x: np.ndarray) -> np.ndarray:
    """Return the words of `x` (uint64) well mixed: the finaliser of SplitMix64 (Steele et al., 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def find_copies(
    groups: np.ndarray, splits: Mapping[str, np.ndarray], name: Callable[[int], str]
) -> tuple[list[str], list[str]]:
    """Return (notes, troubles): documents that are the same in one split, and in different ones.

    `splits` gives the numbers of each split's documents, `name(number)` a document's name.
    """
    size = int(groups.max(initial=-1)) + 1
    counts = np.stack([np.bincount(groups[numbers], minlength=size) for numbers in splits.values()])  # (splits, groups)
    extra = (counts - (counts > 0)).sum(axis=1)
    notes = [f"{split}: {n:,} texts are copies of others in it" for split, n in zip(splits, extra, strict=True) if n]
    across = np.flatnonzero((counts > 0).sum(axis=0) > 1)
    troubles = []
    for group in across[:MOST]:
        where = {split: numbers[groups[numbers] == group] for split, numbers in splits.items()}
        told = [f"{s} ({some_of([name(n) for n in numbers])})" for s, numbers in where.items() if len(numbers)]
        troubles.append("the same text is in " + " and in ".join(told))
    if len(across) > MOST:
        troubles.append(f"{len(across) - MOST:,} more texts are in more than one split")
    return notes, troubles


def some_of(names: Sequence[str], most: int = 3) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
