"""Turn a foreign model file into a model directory in Hugging Face layout.

A reader (`gguf_llama`) gives a `Source`: Hugging Face's names and shapes, and a way to load one tensor. The writer
(`hf`) writes any source. A new format is one more reader.
"""

import time
from pathlib import Path

import attrs
import torch
from safetensors import SafetensorError

from lovecraft.convert.gguf_llama import read_gguf
from lovecraft.convert.hf import Source, size, write_model
from lovecraft.errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@attrs.frozen
class Conversion:
    """What was converted, or would be."""

    tensors: int
    bytes: int
    dtype: str

    reason: str
    """Why this dtype; empty where it was asked for."""

    seconds: float


def convert(src: Path, dst: Path, *, dtype: str = "auto", dry_run: bool = False) -> Conversion:
    """Convert the file `src` to the new model directory `dst`; with `dry_run`, check the file and write nothing.

    `dtype` is float32, bfloat16, float16, or auto: what the file stores, float32 where that is quantised.
    Raises ModelError when `src` cannot be converted or `dst` exists.
    """
    start = time.perf_counter()
    if dst.exists():
        raise ModelError(f"{dst} exists already", hint="name another destination, or remove it first")
    try:
        source = _open(src)
        kept = source.dtype if dtype == "auto" else DTYPES[dtype]
        if not dry_run:
            write_model(source, dst, kept)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{src} was not converted: {error}", hint="check the disk's free space and rights") from error
    return Conversion(
        tensors=len(source.shapes),
        bytes=size(source, kept),
        dtype=str(kept).removeprefix("torch."),
        reason=source.reason if dtype == "auto" else "",
        seconds=time.perf_counter() - start,
    )


def _open(src: Path) -> Source:
    if src.is_dir():
        raise ModelError(f"{src} is a directory; lc convert reads GGUF files")
    return read_gguf(src)
