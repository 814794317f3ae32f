"""Write a model in Hugging Face layout, whole or not at all, and read back every byte of it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from lovecraft.checkpoint import write_weights
from lovecraft.errors import ModelError
from lovecraft.files import new_directory
from lovecraft.tokenizer import load_tokenizer

# What the tokenizer must give back to the letter: case, digits, blanks, line ends, accents, other scripts, emoji.
TEXTS = (
    "In 1928 the R'lyeh text, it's said, slept.",
    " a  b\t\tc \r\n\n  ",
    "naïve Ångström, “‘quoted’” — 狂気 🐙 मुंबई",
)


@attrs.frozen(eq=False)
class Source:
    """A foreign model in Hugging Face's terms, its weights not loaded yet."""

    config: dict[str, Any]
    """The content of config.json, but for the type of the weights."""

    files: dict[str, str]
    """The other text files of the directory: name to content."""

    shapes: dict[str, tuple[int, ...]]
    """Every tensor's Hugging Face name and shape."""

    read: Callable[[str], np.ndarray]
    """Load one tensor as float32."""

    dtype: torch.dtype
    """What `auto` takes."""

    reason: str
    """Why that, as one clause."""


def size(source: Source, dtype: torch.dtype) -> int:
    """Return the bytes of all the weights in `dtype`."""
    return sum(map(math.prod, source.shapes.values())) * dtype.itemsize


def write_model(source: Source, dst: Path, dtype: torch.dtype) -> None:
    """Write `source` to the new directory `dst` and verify it; on any error there is no `dst`.

    Raises ModelError when a weight is not finite in `dtype`, or when what was written reads back differently.
    """

    def weight(name: str) -> Tensor:
        return _finite(name, torch.from_numpy(np.ascontiguousarray(source.read(name))).to(dtype))

    with new_directory(dst) as directory:
        config = {**source.config, "torch_dtype": str(dtype).removeprefix("torch.")}
        for name, content in {**source.files, "config.json": json.dumps(config, indent=2) + "\n"}.items():
            (directory / name).write_text(content, encoding="utf-8")
        places = write_weights(directory, source.shapes, weight, dtype)
        for file in dict.fromkeys(places.values()):
            _verify_weights(directory / file, {name for name in places if places[name] == file}, weight)
        _verify_tokenizer(directory)


def _finite(name: str, weight: Tensor) -> Tensor:
    if not torch.isfinite(weight).all():
        raise ModelError(
            f"{name} has weights that are not finite in {weight.dtype}",
            hint="float16 ends at 65504: try --dtype bfloat16; if that fails too, the file is damaged",
        )
    return weight


def _verify_weights(file: Path, names: set[str], weight: Callable[[str], Tensor]) -> None:
    with safe_open(file, "pt") as opened:
        found = set(opened.keys())
        wrong = [name for name in names & found if not torch.equal(opened.get_tensor(name), weight(name))]
    if wrong or found != names:
        raise ModelError(
            f"{file.name} reads back other than it was written: {wrong or found ^ names}", hint="check the disk"
        )


def _verify_tokenizer(directory: Path) -> None:
    tokenizer = load_tokenizer(directory)
    for text in TEXTS:
        if tokenizer.decode(tokenizer.encode(text)) != text:
            raise ModelError(
                f"the rebuilt tokenizer does not give back the text {text!r}", hint="please report this model"
            )
