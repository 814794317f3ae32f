"""Token blocks on disk, built once for a corpus, a tokenizer and the options that matter, then memory-mapped.

    CACHE/blocks/KEY/  index.json                     inputs, report, names of the files
                       tokens.bin  [supervised.bin]   of all documents, see encoding.py
                       train.documents.npy  train.table.npy  train.starts.npy  validation.documents.npy  …

The directory appears whole or not at all, so a build that was killed is never used.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from lovecraft.chat_template import find_template
from lovecraft.config.schema import DatasetConfig
from lovecraft.data import chat
from lovecraft.data.blocks import TOKENS, Blocks, Counts, Documents, count, cut
from lovecraft.data.bulk import Differs
from lovecraft.data.encoding import SUPERVISED_FILE, TOKENS_FILE, adds_bos, encode, token_type
from lovecraft.data.options import check_options, has_conversations, shared_length
from lovecraft.data.packing import pack
from lovecraft.data.sources import content_hashes
from lovecraft.data.splits import choose, divide, read
from lovecraft.errors import DataError
from lovecraft.files import locked, new_directory, remove_directory
from lovecraft.tokenizer import Tokenizer

log = logging.getLogger(__name__)
INDEX_FILE = "index.json"
FORMAT = 4  # raise it when the files or the rules of reading and cutting change
CORPUS = "corpus/"  # begins the input that is the content of one file of the source
# What makes other blocks; the order of drawing and the paths of the source and the tokenizer do not.
MATTERS = (
    "format",
    "sample_by",
    "text_field",
    "messages_field",
    "prompt_field",
    "response_field",
    "train",
    "validation",
    "test",
    "validation_fraction",
    "validation_count",
    "split_seed",
    "block_size",
    "min_length",
    "packing",
    "add_eos",
    "train_on_overlap",
)


@attrs.frozen
class Report:
    """What building found; the same whenever it is asked for."""

    splits: dict[str, Counts]
    notes: list[str]
    """What was put right while reading, one line each."""
    troubles: list[str]
    """What makes a measurement doubtful, one line each."""
    encoding: str
    """What encoded the documents, and what shows that it is right."""


@attrs.frozen(eq=False)
class Built:
    """The blocks of a dataset."""

    splits: dict[str, Blocks]
    """Only splits that have texts, in the order train, validation, test."""
    directory: Path
    report: Report

    def train_blocks(self) -> Blocks:
        """Return the blocks to train on. Raises DataError where there are none."""
        if "train" not in self.splits:
            hint = "set train; `lc data --check` says what was left out"
            raise DataError("there is nothing to train on: the train split is empty", hint=hint)
        return self.splits["train"]


def build(dataset: DatasetConfig, tokenizer: Tokenizer, cache: Path) -> Built:
    """Bring the blocks of `dataset` up to date below `cache` and open them; instant when nothing changed.

    Raises ConfigError for options that contradict each other, DataError for a corpus that cannot be read, a tokenizer
    without a token that the options ask for, or a cache that cannot be written.
    """
    check(dataset, tokenizer)
    inputs = build_inputs(dataset, tokenizer, cache)
    final = cache / "blocks" / cache_key(inputs)
    if found := find(final):
        return found
    try:
        with locked(final, "token blocks"):
            if found := find(final):  # by the process that was waited for
                return found
            if final.exists():
                log.warning("the token blocks in %s are damaged: they are built again", final)
                remove_directory(final)
            with new_directory(final) as directory:
                _write(directory, dataset, tokenizer, inputs)
                if build_inputs(dataset, tokenizer, cache) != inputs:
                    raise DataError(f"{dataset.source} changed while it was read", hint="run the command again")
    except OSError as error:
        why = error.strerror or f"{error}; is the disk full?"  # so numpy puts it
        hint = f"make room, or take the right to write there; all that is in {cache} may be deleted"
        raise DataError(f"the token blocks cannot be written to {final}: {why}", hint=hint) from error
    return _open(final)


def build_inputs(dataset: DatasetConfig, tokenizer: Tokenizer, cache: Path) -> dict[str, Any]:
    """Return all that the blocks are made from, in JSON's types: options, content hashes, the version of the blocks.

    Hashes of the source's files are remembered below `cache`. Raises DataError where one cannot be read.
    """
    template = find_template(tokenizer.path) if has_conversations(dataset) else None
    inputs = {
        "version": FORMAT,
        "tokenizer": tokenizer.fingerprint,
        "chat_template": template and template.fingerprint,
        "add_bos": adds_bos(dataset, tokenizer),
        "stride": shared_length(dataset),
        **{name: getattr(dataset, name) for name in MATTERS},
    }
    return {**json.loads(json.dumps(inputs)), **corpus_inputs(dataset, cache)}  # which may be very many


def corpus_inputs(dataset: DatasetConfig, cache: Path) -> dict[str, str]:
    """Return the source, and the content hash of each file that is read, by `CORPUS` and its name; an archive is one.

    Raises as `content_hashes` and `choose` do.
    """
    source, names = dataset.source, list[str]()
    if isinstance(source, Path) and source.is_dir():
        names = [file.name for files in choose(dataset).files.values() for file in files]
    hashes = content_hashes(source, cache, names)
    return {"source": str(source), **{f"{CORPUS}{name}": digest for name, digest in hashes.items()}}


def identity(dataset: DatasetConfig, tokenizer: Tokenizer, cache: Path) -> dict[str, str]:
    """Return what a run records of its data, hashes of corpus and tokenizer. Raises as `corpus_inputs`."""
    return {"corpus": cache_key(corpus_inputs(dataset, cache)), "tokenizer": tokenizer.fingerprint}


def cache_key(inputs: dict[str, Any]) -> str:
    """Return the name under which what is made from `inputs` is kept: of the source its content counts alone."""
    counted = {name: value for name, value in inputs.items() if name != "source"}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:32]


def closest_inputs(inputs: dict[str, Any], kept: Path) -> dict[str, Any] | None:
    """Return the inputs of what is in `kept`, such as blocks, that differ least from `inputs`, the newest of several.

    None where nothing there was built of any file of the corpus.
    """
    corpus = {name for name in inputs if name.startswith(CORPUS)}
    found: list[tuple[int, int, dict[str, Any]]] = []
    for file in kept.glob(f"[!.]*/{INDEX_FILE}"):
        try:
            other, age = json.loads(file.read_text(encoding="utf-8"))["inputs"], -file.stat().st_mtime_ns
        except (OSError, ValueError, KeyError, TypeError):  # being removed, or damaged: nothing to compare with
            continue
        if corpus & other.keys():
            found.append((len(differing(other, inputs)), age, other))
    return min(found, key=lambda one: one[:2])[2] if found else None


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the names of the inputs that differ."""
    return [name for name in now | before if before.get(name) != now.get(name)]


def check(dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
    """Raise ConfigError for options that contradict each other, DataError for a tokenizer that lacks a token."""
    check_options(dataset)
    if has_conversations(dataset):
        chat.template_of(dataset, tokenizer)
    if adds_bos(dataset, tokenizer) and tokenizer.bos_id is None:
        raise DataError("add_bos is set, but the tokenizer has no BOS token", hint="set add_bos = False")
    if dataset.add_eos and tokenizer.eos_id is None:
        raise DataError("add_eos is set, but the tokenizer has no EOS token", hint="set add_eos = False")


# --- the directory --------------------------------------------------------------------------------


def _write(directory: Path, dataset: DatasetConfig, tokenizer: Tokenizer, inputs: dict[str, Any]) -> None:
    try:
        corpus = encode(read(dataset), tokenizer, directory)
    except Differs as error:
        log.warning("%s: the texts are encoded again by the tokenizers library", error)
        corpus = encode(read(dataset), tokenizer, directory, distrust=str(error))
    documents = Documents(corpus.files, corpus.documents)
    division = divide(corpus.splits, corpus.digests, dataset, lambda number: documents[number].name)
    report = Report({}, [*corpus.notes, *division.notes], [*corpus.troubles, *division.troubles], corpus.encoding)
    offsets = np.cumsum(corpus.documents[:, TOKENS]) - corpus.documents[:, TOKENS]  # (documents,)
    supervised = _supervised(directory)
    for split, numbers in division.splits.items():
        rows = corpus.documents[numbers]
        pieces = rows[:, TOKENS], offsets[numbers], dataset
        if split == "train":
            table, starts, dropped = pack(*pieces, whole=supervised is not None)
        else:
            table, dropped = cut(*pieces, train=False)
            starts = np.arange(len(table) + 1)
        if not len(table):
            hint = "lower min_length" if dataset.min_length > 1 else "are they one token each? set add_eos"
            raise DataError(f"no {split} document has min_length = {dataset.min_length} supervised tokens", hint=hint)
        counts = count(rows, table, len(starts) - 1, dropped, shared_length(dataset), supervised)
        if unused := counts.documents - counts.first_tokens:
            report.notes.append(f"{split}: {unused:,} documents are in no block, min_length dropped them")
        for name, array in (("documents", rows), ("table", table), ("starts", starts)):
            np.save(directory / f"{split}.{name}.npy", array)
        report.splits[split] = counts
    index = {
        "inputs": inputs,
        "shared": shared_length(dataset),
        "type": token_type(tokenizer).name,
        "tokens": int(corpus.documents[:, TOKENS].sum()),
        "files": corpus.files,
        "report": attrs.asdict(report),
    }
    (directory / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")


def _supervised(directory: Path) -> np.ndarray | None:
    file = directory / SUPERVISED_FILE
    return np.memmap(file, bool, "r") if file.exists() else None


def find(directory: Path) -> Built | None:
    """Open the blocks in a directory of the cache; None where there are none, or damaged ones."""
    try:
        return _open(directory)
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, AssertionError):  # half a file
        return None


def _open(directory: Path) -> Built:
    index = json.loads((directory / INDEX_FILE).read_text(encoding="utf-8"))
    report = index["report"]
    counts = {split: Counts(**row) for split, row in report["splits"].items()}
    tokens, supervised = np.memmap(directory / TOKENS_FILE, index["type"], "r"), _supervised(directory)

    def load(split: str, name: str) -> np.ndarray:
        return np.load(directory / f"{split}.{name}.npy", mmap_mode="r")

    splits = {
        split: Blocks(
            tokens=tokens,
            table=load(split, "table"),
            documents=Documents(index["files"], load(split, "documents")),
            shared=index["shared"],
            starts=load(split, "starts"),
            supervised=supervised,
        )
        for split in counts
    }
    for split, blocks in splits.items():
        found = len(blocks), len(blocks.documents), len(blocks.table)
        if found != (counts[split].blocks, counts[split].documents, blocks.starts[-1]):
            raise ValueError(f"{split} has not the length that index.json says")
    if len(tokens) != index["tokens"] or (supervised is not None and len(supervised) != len(tokens)):
        raise ValueError("the files of tokens have not the length that index.json says")
    return Built(splits, directory, Report(counts, report["notes"], report["troubles"], report["encoding"]))
