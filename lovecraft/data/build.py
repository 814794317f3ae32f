"""Token blocks on disk, built once for a corpus, a tokenizer and the options that matter, then memory-mapped.

    CACHE/blocks/KEY/  index.json  train.tokens.npy  train.table.npy  validation.tokens.npy  …

The directory appears whole or not at all, so a build that was killed is never used.
"""

import hashlib
import json
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
from lovecraft.files import built_once, content_hash
from lovecraft.tokenizer import Tokenizer

INDEX_FILE = "index.json"
FORMAT = 1  # raise it when the files or the rules of cutting change
BATCH_CHARACTERS = 4_000_000  # texts are handed to the tokenizer in batches of about this size
# What makes other blocks; the order of drawing and the paths of the source and the tokenizer do not.
MATTERS = (
    "format",
    "sample_by",
    "text_field",
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
    check_options(dataset)
    _check_special(dataset, tokenizer)
    corpus = corpus_hash(dataset, cache)
    inputs = build_inputs(dataset, tokenizer, corpus)
    final = cache / "blocks" / cache_key(inputs)
    try:
        with built_once(final) as directory:
            if directory is not None:
                _write(directory, dataset, tokenizer, inputs)
                if corpus_hash(dataset, cache) != corpus:
                    raise DataError(f"{dataset.source} changed while it was read", hint="run the command again")
    except OSError as error:
        raise DataError(f"the token blocks cannot be written to {final}: {error.strerror}") from error
    return _open(final)


def corpus_hash(dataset: DatasetConfig, cache: Path) -> str:
    """Return the content hash of the source, remembered below `cache`; raise DataError where it cannot be read."""
    source = locate(dataset.source)
    try:
        return content_hash(source, cache / "hashes.json")
    except OSError as error:
        raise DataError(f"the content of {source} cannot be hashed: {error}") from error


def build_inputs(dataset: DatasetConfig, tokenizer: Tokenizer, corpus: str) -> dict[str, Any]:
    """Return all that the blocks are made from, in JSON's types."""
    source = locate(dataset.source)
    inputs = {
        "version": FORMAT,
        "corpus": corpus,
        "file": source.name if source.is_file() else "",  # its documents are called by it
        "tokenizer": tokenizer.fingerprint,
        "add_bos": _adds_bos(dataset, tokenizer),
        "shared": shared_length(dataset),
        **{name: getattr(dataset, name) for name in MATTERS},
    }
    return dict(json.loads(json.dumps(inputs)))


def cache_key(inputs: dict[str, Any]) -> str:
    """Return the name under which the blocks made from `inputs` are kept."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def closest_build(inputs: dict[str, Any], cache: Path) -> dict[str, Any] | None:
    """Return the inputs of the built blocks below `cache` that differ least from `inputs`; None if there are none."""
    found: list[dict[str, Any]] = []
    for file in (cache / "blocks").glob(f"*/{INDEX_FILE}"):
        try:
            found.append(json.loads(file.read_text(encoding="utf-8"))["inputs"])
        except (OSError, ValueError):  # being removed, or damaged: nothing to compare with
            continue
    return min(found, key=lambda other: sum(other.get(k) != v for k, v in inputs.items()), default=None)


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


def _check_special(dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
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


def _open(directory: Path) -> Built:
    try:
        index = json.loads((directory / INDEX_FILE).read_text(encoding="utf-8"))
        splits = {
            split: Blocks(
                tokens=np.load(directory / f"{split}.tokens.npy", mmap_mode="r"),
                table=np.load(directory / f"{split}.table.npy", mmap_mode="r"),
                documents=[Document(*row) for row in rows],
                shared=index["shared"],
            )
            for split, rows in index["documents"].items()
        }
    except (OSError, ValueError) as error:
        raise DataError(f"the token blocks in {directory} are damaged: {error}", hint="delete that directory") from None
    report = index["report"]
    counts = {split: Counts(**row) for split, row in report["splits"].items()}
    return Built(splits, directory, Report(counts, report["notes"], report["troubles"]))
