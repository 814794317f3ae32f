"""Token blocks on disk, built once for a corpus, a tokenizer and the options that matter, then memory-mapped.

    CACHE/blocks/KEY/  index.json  train.tokens.npy  train.table.npy  validation.tokens.npy  …

The directory appears whole or not at all, so a build that was killed is never used.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.blocks import Blocks, Counts, Document, count, cut
from lovecraft.data.options import check_options, shared_length
from lovecraft.data.sources import Text, locate
from lovecraft.data.splits import read_corpus
from lovecraft.errors import DataError
from lovecraft.files import file_hashes, locked, new_directory, remove_directory
from lovecraft.tokenizer import Tokenizer

log = logging.getLogger(__name__)
INDEX_FILE = "index.json"
FORMAT = 2  # raise it when the files or the rules of reading and cutting change
CORPUS = "corpus/"  # begins the input that is the content of one file of the source
BATCH_CHARACTERS = 4_000_000  # texts are handed to the tokenizer in batches of about this size
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
    "block_size",
    "min_length",
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


@attrs.frozen(eq=False)
class Built:
    """The blocks of a dataset."""

    splits: dict[str, Blocks]
    """Only splits that have texts, in the order train, validation, test."""
    directory: Path
    report: Report


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
        raise DataError(f"the token blocks cannot be written to {final}: {why}") from error
    return _open(final)


def build_inputs(dataset: DatasetConfig, tokenizer: Tokenizer, cache: Path) -> dict[str, Any]:
    """Return all that the blocks are made from, in JSON's types: options, content hashes, the version of the blocks.

    Hashes of the source's files are remembered below `cache`. Raises DataError where one cannot be read.
    """
    inputs = {
        "version": FORMAT,
        **corpus_inputs(dataset, cache),
        "tokenizer": tokenizer.fingerprint,
        "add_bos": _adds_bos(dataset, tokenizer),
        "stride": shared_length(dataset),
        **{name: getattr(dataset, name) for name in MATTERS},
    }
    return dict(json.loads(json.dumps(inputs)))


def corpus_inputs(dataset: DatasetConfig, cache: Path) -> dict[str, str]:
    """Return the content hash of each file of the source, by `CORPUS` and its name."""
    source = locate(dataset.source)
    try:
        files = file_hashes(source, cache / "hashes.json")
    except OSError as error:
        raise DataError(f"the content of {source} cannot be hashed: {error}") from error
    return {f"{CORPUS}{name}": digest for name, digest in files.items()}


def cache_key(inputs: dict[str, Any]) -> str:
    """Return the name under which what is made from `inputs` is kept."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


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


def tokenize(texts: Sequence[Text], dataset: DatasetConfig, tokenizer: Tokenizer) -> tuple[np.ndarray, list[Document]]:
    """Return the tokens (tokens,) of all texts, one after the other with their BOS and EOS, and what each text is.

    Raises DataError for a text without tokens.
    """
    before = [tokenizer.bos_id] if _adds_bos(dataset, tokenizer) else []
    after = [tokenizer.eos_id] if dataset.add_eos else []
    kind = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    tokens: list[np.ndarray] = []
    documents: list[Document] = []
    for batch in _batches(texts):
        for text, ids in zip(batch, tokenizer.encode_batch([t.text for t in batch]), strict=True):
            if not ids:
                raise DataError(f"the tokenizer finds no token in {text.name}", hint="leave it out of the patterns")
            tokens.append(np.array([*before, *ids, *after], kind))
            # A token that ends within a character decodes to U+FFFD; the character counts as the next token's.
            first = "" if before else tokenizer.decode(ids[:1]).rstrip("\ufffd")
            sizes = len(tokens[-1]), len(text.text.encode()), len(first.encode())
            documents.append(Document(text.name, *sizes))
    return np.concatenate(tokens), documents


def _batches(texts: Sequence[Text]) -> Iterator[list[Text]]:
    batch: list[Text] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _adds_bos(dataset: DatasetConfig, tokenizer: Tokenizer) -> bool:
    return tokenizer.adds_bos if dataset.add_bos is None else dataset.add_bos


def check(dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
    """Raise ConfigError for options that contradict each other, DataError for a tokenizer that lacks a token."""
    check_options(dataset)
    if _adds_bos(dataset, tokenizer) and tokenizer.bos_id is None:
        raise DataError("add_bos is set, but the tokenizer has no BOS token", hint="set add_bos = False")
    if dataset.add_eos and tokenizer.eos_id is None:
        raise DataError("add_eos is set, but the tokenizer has no EOS token", hint="set add_eos = False")


# --- the directory --------------------------------------------------------------------------------


def _write(directory: Path, dataset: DatasetConfig, tokenizer: Tokenizer, inputs: dict[str, Any]) -> None:
    corpus = read_corpus(dataset)
    shared = shared_length(dataset)
    report = Report({}, corpus.notes, corpus.troubles)
    documents: dict[str, list[Any]] = {}
    for split, texts in corpus.splits.items():
        tokens, found = tokenize(texts, dataset, tokenizer)
        lengths = np.array([document.tokens for document in found])
        table, dropped = cut(lengths, dataset, train=split == "train")
        if not len(table):
            raise DataError(f"no {split} document has min_length = {dataset.min_length} supervised tokens")
        counts = count(table, dropped, lengths, sum(len(text.text) for text in texts), shared)
        if unused := counts.documents - counts.first_tokens:
            report.notes.append(f"{split}: {unused:,} documents are in no block, min_length dropped them")
        np.save(directory / f"{split}.tokens.npy", tokens)
        np.save(directory / f"{split}.table.npy", table)
        report.splits[split] = counts
        documents[split] = [attrs.astuple(document) for document in found]
    index = {"inputs": inputs, "shared": shared, "report": attrs.asdict(report), "documents": documents}
    (directory / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")


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
    splits = {
        split: Blocks(
            tokens=np.load(directory / f"{split}.tokens.npy", mmap_mode="r"),
            table=np.load(directory / f"{split}.table.npy", mmap_mode="r"),
            documents=[Document(*row) for row in rows],
            shared=index["shared"],
        )
        for split, rows in index["documents"].items()
    }
    for split, blocks in splits.items():
        if len(blocks) != counts[split].blocks or len(blocks.tokens) != sum(d.tokens for d in blocks.documents):
            raise ValueError(f"{split} has not the length that index.json says")
    return Built(splits, directory, Report(counts, report["notes"], report["troubles"]))
