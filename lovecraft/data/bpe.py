"""A byte-level BPE tokenizer trained on a dataset's train texts, once, and kept.

    CACHE/tokenizers/KEY/  tokenizer.json  tokenizer_config.json  index.json

The key is of all that can change it: the corpus, the options that choose the texts, the tokenizers library.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, processors, trainers
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.build import INDEX_FILE, cache_key, corpus_inputs
from lovecraft.data.options import check_options
from lovecraft.data.splits import read, survey
from lovecraft.errors import DataError
from lovecraft.files import locked, new_directory

KEPT = "tokenizers"  # below the cache
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
PART = 100_000  # characters handed to the trainer at once; a word that is cut there is one of very many
FORMAT = 2  # raise it when other files come of the same inputs
# Of a dataset's options, those that decide what the train texts are.
MATTERS = (
    *("format", "sample_by", "text_field", "messages_field", "prompt_field", "response_field"),
    *("train", "validation", "test", "validation_fraction", "validation_count", "split_seed"),
)


def build_tokenizer(dataset: DatasetConfig, cache: Path) -> Path:
    """Return the directory of the tokenizer that `dataset.bpe` describes, trained now if it is not there yet.

    Raises DataError for a corpus that cannot be read or has no train texts, or a cache that cannot be written.
    """
    check_options(dataset)
    if dataset.train == ():
        raise DataError("there are no train texts to train a tokenizer on", hint='set train = ("*.txt",)')
    inputs = tokenizer_inputs(dataset, cache)
    final = cache / KEPT / cache_key(inputs)
    try:
        if not final.exists():
            with locked(final, "tokenizer"):
                if not final.exists():  # the process that was waited for may have made it
                    with new_directory(final) as directory:
                        train_bpe(_texts(dataset), directory, inputs["bpe.vocab_size"], inputs["bpe.min_frequency"])
                        if tokenizer_inputs(dataset, cache) != inputs:
                            raise DataError(f"{dataset.source} changed while it was read", hint="run the command again")
                        (directory / INDEX_FILE).write_text(json.dumps({"inputs": inputs}), encoding="utf-8")
    except OSError as error:
        raise DataError(f"the tokenizer cannot be written to {final}: {error.strerror or error}") from error
    return final


def tokenizer_inputs(dataset: DatasetConfig, cache: Path) -> dict[str, Any]:
    """Return all that the tokenizer is made from, in JSON's types. Raises DataError where the source cannot be read."""
    assert dataset.bpe is not None
    inputs = {
        "version": FORMAT,
        "tokenizers": tokenizers.__version__,
        **{name: getattr(dataset, name) for name in MATTERS},
        "bpe.vocab_size": dataset.bpe.vocab_size,
        "bpe.min_frequency": dataset.bpe.min_frequency,
    }
    return {**json.loads(json.dumps(inputs)), **corpus_inputs(dataset, cache)}


def train_bpe(texts: Iterable[str], directory: Path, vocab_size: int, min_frequency: int) -> None:
    """Train a byte-level BPE and write its files: the same bytes for the same texts in the same order.

    Digits stand alone, as SmolLM2 has them, and BOS is put before a text. What it encodes it decodes to the letter.
    """
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    library.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, library.token_to_id(BOS))]
    )
    (directory / "tokenizer.json").write_text(library.to_str(pretty=True), encoding="utf-8")
    config = {"bos_token": BOS, "eos_token": EOS, "tokenizer_class": "PreTrainedTokenizerFast"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _texts(dataset: DatasetConfig) -> Iterator[str]:
    train = set(survey(dataset).division.splits["train"].tolist())
    for text in (text for number, (_, text) in enumerate(read(dataset)) if number in train):
        for start in range(0, len(text.text), PART):
            yield text.text[start : start + PART]
