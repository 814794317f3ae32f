"""Text to token ids and back, from the tokenizer's files of a model directory.

Who adds BOS and EOS is decided by the caller (a dataset, a server), so `encode` never adds anything: it gives the
tokens of the text. `bos_id`, `eos_id` and `adds_bos` say what the tokenizer would have done.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import tokenizers

from lovecraft.errors import ModelError
from lovecraft.files import hash_file
from lovecraft.pieces import read_sentencepiece
from lovecraft.ranks import Read, read_llama3, read_tekken

# What a model directory carries besides its weights and config.json, so that a copy tokenizes and stops alike.
TOKENIZER_FILES: tuple[str, ...] = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "tekken.json",
    "chat_template.jinja",
    "generation_config.json",
)

SAME = "the files of the directory must be of the same model"
AGAIN = "copy it again from where the model comes from"


@attrs.frozen(eq=False)
class Tokenizer:
    """A loaded tokenizer; make one with `load_tokenizer`. Threads may share it; pickling it loads it again."""

    path: Path
    """The directory it was loaded from."""

    bos_id: int | None
    eos_id: int | None

    stop_ids: tuple[int, ...]
    """Ids that end a generation: `eos_id` and what generation_config.json or config.json names besides."""

    adds_bos: bool
    """Its habit: whether it puts BOS before a text."""

    vocab_size: int
    """One more than the largest id; a model's embedding may have more rows."""

    special: re.Pattern[str] = attrs.field(repr=False)
    """Matches the text of a special token, or of one that ends a generation."""

    fingerprint: str
    """Hash of what makes ids: the tokenizer's file, BOS, EOS and the habit."""

    library: tokenizers.Tokenizer = attrs.field(repr=False)
    """What does the work. Shared by threads, so that nothing may set its switches."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; text that spells a special token is encoded as ordinary text."""
        return self.library.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, as `encode` does, on all the cores there are; `data.bulk` may be faster."""
        return [row.ids for row in self.library.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_template(self, text: str) -> list[int]:
        """Return the ids of a rendered chat template: text that spells a special token *is* that token.

        Whatever a user wrote must not reach this unless it is wanted that a user can write special tokens.
        """
        return self._with_special.encode(text, add_special_tokens=False).ids

    def encode_with_offsets(self, text: str, *, template: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids of `text`, and the first character and the one behind the last that each stands for.

        As `encode_template` with `template`, else as `encode`. A character of several tokens is of each of them.
        """
        row = (self._with_special if template else self.library).encode(text, add_special_tokens=False)
        return row.ids, row.offsets

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return self.library.decode(list(ids), skip_special_tokens=skip_special)

    @functools.cached_property
    def _with_special(self) -> tokenizers.Tokenizer:
        # A second copy, because the switch is a state of the library's object.
        return tokenizers.Tokenizer.from_str(self.library.to_str())

    def __reduce__(self) -> tuple[object, ...]:
        # The library's own pickle forgets `encode_special_tokens`.
        return load_tokenizer, (self.path,)


def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer of a model directory: tokenizer.json, else tekken.json, else tokenizer.model.

    The habit is what the post-processor in tokenizer.json does, as in transformers 5; `add_bos_token` in
    tokenizer_config.json is not read. Truncation and padding that tokenizer.json asks for are switched off.
    Raises ModelError when a file is missing or broken, or names a special token that the vocabulary lacks.
    """
    file = next((path / name for name in READERS if (path / name).is_file()), None)
    if file is None:
        hint = "a model directory in Hugging Face layout has one; lc convert makes such a directory from a GGUF"
        raise ModelError(f"there is no tokenizer.json in {path}", hint=hint)
    library, marks = READERS[file.name](file)
    begins = library.encode("").ids[:1]
    library.no_truncation()
    library.no_padding()
    library.post_processor = None  # it would take white space off the offsets
    library.encode_special_tokens = True  # "encode them as text", not "look for them in the text"
    bos, eos = (_special_id(path, library, kind, mark) for kind, mark in zip(("bos", "eos"), marks, strict=False))
    ends = [eos, *_config_ids(path, "eos"), *map(library.token_to_id, filter(None, marks[1:]))]
    stop_ids = tuple(dict.fromkeys(token for token in ends if token is not None))
    added = library.get_added_tokens_decoder().items()
    special = sorted((t.content for i, t in added if t.special or i in stop_ids), key=len, reverse=True)
    adds_bos = begins == [bos]
    return Tokenizer(
        path=path,
        bos_id=bos,
        eos_id=eos,
        stop_ids=stop_ids,
        adds_bos=adds_bos,
        vocab_size=1 + max(library.get_vocab().values()),
        special=re.compile("|".join(map(re.escape, special)) or "(?!)"),  # which matches nothing
        fingerprint=hashlib.sha256(json.dumps([hash_file(file), bos, eos, adds_bos]).encode()).hexdigest(),
        library=library,
    )


def _read_huggingface(file: Path) -> Read:
    try:
        library = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises it bare
        raise ModelError(f"{file} cannot be read: {error}", hint=AGAIN) from error
    if library.get_vocab_size() == 0:
        raise ModelError(f"{file} has an empty vocabulary", hint=AGAIN)
    return library, ("", "")


def _read_model(file: Path) -> Read:
    with file.open("rb") as opened:
        return (read_sentencepiece if opened.read(1) == b"\n" else read_llama3)(file)  # which is how a protobuf begins


READERS: dict[str, Callable[[Path], Read]] = {
    "tokenizer.json": _read_huggingface,
    "tekken.json": read_tekken,
    "tokenizer.model": _read_model,
}
"""The files that make a tokenizer; the first that a directory has does."""


def _read_json(file: Path) -> dict[str, Any]:
    """Return the object in `file`, empty where there is no such file."""
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}", hint=AGAIN) from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} does not hold a JSON object", hint=AGAIN)
    return content


def _special_id(path: Path, library: tokenizers.Tokenizer, kind: str, own: str) -> int | None:
    """Return the id of `kind` (bos or eos): by its text in the tokenizer's files, else by the model's configs.

    Where none of them names it, it is what the makers of a file of ranks use, their `own`.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        tokens = _read_json(path / name)
        if f"{kind}_token" in tokens:
            return _id_of(path, library, tokens[f"{kind}_token"], kind)
    ids = _config_ids(path, kind)
    if ids and library.id_to_token(ids[0]) is None:
        raise ModelError(f"the {kind}_token_id {ids[0]} of {path} is not in its tokenizer", hint=SAME)
    return ids[0] if ids else library.token_to_id(own) if own else None


def _id_of(path: Path, library: tokenizers.Tokenizer, token: object, kind: str) -> int | None:
    """Return the id of a token spelled as a string or as {"content": string}; None of null."""
    text = token.get("content") if isinstance(token, dict) else token
    if text is None:
        return None
    found = library.token_to_id(text) if isinstance(text, str) else None
    if found is None:
        raise ModelError(f"the {kind}_token {text!r} of {path} is not in its tokenizer", hint=SAME)
    return found


def _config_ids(path: Path, kind: str) -> list[int]:
    """Return the ids that generation_config.json, else config.json, gives for `kind`: a number, a list or null."""
    for name in ("generation_config.json", "config.json"):
        ids = _read_json(path / name).get(f"{kind}_token_id")
        if ids is None:
            continue
        ids = ids if isinstance(ids, list) else [ids]
        if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
            raise ModelError(f"{kind}_token_id in {path / name} is {ids}, not a token id or a list of them")
        return ids
    return []
