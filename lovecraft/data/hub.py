"""Datasets of the Hugging Face hub, fetched once by the `datasets` library and read from its cache.

Nothing of a dataset is ever run: the library refuses those that are scripts.
"""

import functools
import logging
import re
import sys
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub.errors import HTTPError

from lovecraft.errors import DataError

log = logging.getLogger(__name__)
NAME = re.compile(r"hf:([\w.-]+/([\w.-]+))(?::(.+))?")
SECONDS = 10  # that the hub has for its first answer
ROWS = 256  # that are Python objects at once
ACCESS = (
    "check the name at https://huggingface.co/datasets; accept its terms there if it has any, and log in with "
    "`hf auth login`, or set HF_TOKEN"
)
OFFLINE = "go online and run the command again; a dataset fetched before is read from the cache in HF_HOME"
OTHER = "one of its configurations is named as hf:org/name:configuration"


def split_names(source: str) -> list[str]:
    """Return the splits of `hf:org/name`, or of one of its configurations, `hf:org/name:configuration`.

    Raises DataError for what is no such name, and for a dataset that can be neither fetched nor found in the cache.
    """
    return list(_load(source))


def rows(source: str, split: str, fields: Collection[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, row) of a split: with the `fields` alone if it has them all, else with all it has."""
    chosen = _load(source)[split]
    if fields and set(fields) <= set(chosen.column_names):
        chosen = chosen.select_columns(list(fields))
    batches = chosen.with_format("arrow").iter(ROWS)  # as stored: nothing is decoded, images are not opened
    yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)


def cached_files(source: str) -> list[Path]:
    """Return the files that the rows of all splits are read from; raise DataError as `split_names` does."""
    return [Path(file["filename"]) for split in _load(source).values() for file in split.cache_files]


@functools.lru_cache(maxsize=8)
def _load(source: str) -> dict[str, Any]:
    if not (named := NAME.fullmatch(source)):
        raise DataError(f"{source!r} names no dataset", hint="write hf:org/name, or hf:org/name:configuration")
    for library in (datasets, huggingface_hub.utils):
        library.logging.set_verbosity_error()
        if not sys.stderr.isatty():
            library.disable_progress_bars()
    try:
        builder = _builder(source, *named.groups())
        builder.download_and_prepare()
        return {str(split): rows for split, rows in builder.as_dataset(in_memory=False).items()}
    except Exception as error:  # the library lets through what its readers raise, such as TypeError or yaml's own
        why, hint = _why(error)
        raise DataError(f"{source} cannot be read: {why}", hint=hint) from error


def _builder(source: str, name: str, last: str, configuration: str | None) -> Any:
    """Return what reads the newest commit of a dataset or, where the hub does not tell which that is, the last copy.

    The library takes the copy by itself when the hub tells it but gives no files; either is told.
    """
    commit, why = None, "the hub does not give its newest commit"
    try:
        commit = huggingface_hub.HfApi().dataset_info(name, timeout=SECONDS).sha
    except (OSError, HTTPError) as error:
        why, _ = _why(error)
        try:
            builder = Cache(repo_id=name, dataset_name=last, config_name=configuration, version="auto", hash="auto")
        except (OSError, ValueError):
            raise error from None
    else:  # "hf://": a folder of the same name is not meant
        builder = datasets.load_dataset_builder(f"hf://datasets/{name}", configuration, revision=commit)
    if builder.hash != commit:
        copy = f"the cached copy of commit {str(builder.hash)[:8]}, configuration {builder.config.name}, is read"
        log.warning("%s: %s; %s", source, why, copy)
    return builder


def _why(error: Exception) -> tuple[str, str]:
    """Return (what is wrong, what to do about it)."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, datasets.exceptions.DatasetNotFoundError) or status in (401, 403, 404):
        return "it is not on the hub, or gated or private", ACCESS
    said = textwrap.shorten(str(error.__cause__ or error) or type(error).__name__, 300)
    if isinstance(error, (ConnectionError, HTTPError)):
        return f"the hub cannot be reached ({said})", OFFLINE
    return said, OTHER
