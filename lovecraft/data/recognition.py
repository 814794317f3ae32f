"""What a config has to say of texts that are there: which files to read, which fields of them, what to hold out."""

import glob
import os
from collections import Counter
from pathlib import Path
from typing import Any

from lovecraft.config.schema import DatasetConfig
from lovecraft.data.sources import FORMATS, File, list_files
from lovecraft.data.splits import choose, some_of
from lovecraft.data.texts import numbered_rows
from lovecraft.errors import DataError

MESSAGES = ("messages", "conversations", "conversation")
PAIRS = (("prompt", "response"), ("prompt", "completion"), ("instruction", "output"), ("question", "answer"))
TEXTS = ("text", "content", "story", "body")
HELD_OUT = 0.05  # of the rows


def recognise(source: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the options (name → value) that fit a directory, a file or an archive, and what is to be said of it.

    Splits of its own are taken as they are; else the files of the ending that most bytes have are read.
    Raises DataError where nothing can be read, or no field that holds texts or conversations is known.
    """
    dataset, found, sizes = DatasetConfig(source=source), list_files(source), Counter[str]()
    for file in found:
        sizes[_ending(file)] += _size(file)
    if not (ending := next((ending for ending, _ in sizes.most_common() if ending.lower() in FORMATS), "")):
        raise DataError(f"{source} holds no {', '.join(FORMATS)} file", hint="give --texts the place of your texts")
    options: dict[str, Any] = {}
    splits = {split: files for split, files in choose(dataset).files.items() if files}
    if len(splits) > 1:
        chosen = [file for files in splits.values() for file in files]
        said = "the splits that its names say: " + ", ".join(f"{len(f):,} in {split}" for split, f in splits.items())
    else:
        chosen = [file for file in found if _ending(file) == ending]
        options["train"], many = (f"*{ending}",), "s"[: len(chosen) > 1]
        if FORMATS[ending.lower()] != "text":
            options["validation_fraction"] = HELD_OUT
            said = f"{len(chosen):,} file{many} of rows; {HELD_OUT:.0%} of them are held out of train"
        elif many:
            options["validation"] = (glob.escape(chosen[-1].name),)
            said = f"{len(chosen):,} texts; {chosen[-1].name} is held out of train"
        else:
            said = "1 text, none held out"
    fields, unused = _fields(chosen[0], dataset)
    left = sorted({file.name for file in found}.difference(file.name for file in chosen))
    notes = {f"not read: {some_of(left)}": left, f"fields not read: {', '.join(unused)}": unused}
    return fields | options, [said, *(note for note, what in notes.items() if what)]


def _ending(file: File) -> str:
    return os.path.splitext(file.name)[1]


def _size(file: File) -> int:
    with file.open() as stream:
        return stream.seek(0, os.SEEK_END)


def _fields(file: File, dataset: DatasetConfig) -> tuple[dict[str, str], list[str]]:
    """Return the options that name the fields of a file's rows, by its first row, and the fields that are not read."""
    if (kind := FORMATS[_ending(file).lower()]) == "text":
        return {}, []
    row = next((row for _, row in numbered_rows(kind, file, dataset, {})), None)
    if not isinstance(row, dict):
        raise DataError(f"the first row of {file.name} is {row!r:.40}, not an object with fields")
    texts = {name for name, value in row.items() if isinstance(value, str)}
    options: dict[str, str] = {}
    if field := next((name for name in MESSAGES if isinstance(row.get(name), list)), None):
        options = {"messages_field": field}
    elif pair := next((pair for pair in PAIRS if texts.issuperset(pair)), None):
        options = {"prompt_field": pair[0], "response_field": pair[1]}
    elif field := next((name for name in TEXTS if name in texts), None):
        options = {"text_field": field}
    else:
        known = "a text, a conversation's messages or a prompt and its response"
        hint = "write the config by hand: text_field, messages_field, or prompt_field and response_field name them"
        raise DataError(f"{file.name} has the fields {', '.join(row)}: which hold {known}?", hint=hint)
    unused = [name for name in row if name not in options.values()]
    return {name: field for name, field in options.items() if (name, field) != ("text_field", "text")}, unused
