"""Write a model: a directory in Hugging Face layout, or a GGUF file. Memory holds one tensor."""

import itertools
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lovecraft.checkpoint import INDEX, index_of, plan_files, write_file
from lovecraft.convert.gguf import ARRAY, BLOCKS, FLOAT32, STRING, TYPES, Value, dequantise, quantise
from lovecraft.convert.gguf_model import ROPE_FACTORS, kind_of, reorder, rope_factors, theirs
from lovecraft.convert.source import Source
from lovecraft.errors import ModelError

ALIGNMENT = 32
CHUNK = 1 << 24  # weights to quantise at once
BOOL, UINT32, INT32 = 7, 4, 5  # GGUF's numbers of the types that are written

Tell = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and out of how much."""


def files_of(source: Source, shard_bytes: int) -> dict[str, list[str]]:
    """Return the weight files of a directory, each with the names of its tensors."""
    return plan_files({name: tensor.nbytes for name, tensor in source.tensors.items()}, shard_bytes)


def write_directory(source: Source, directory: Path, files: Mapping[str, list[str]], tell: Tell) -> None:
    """Write `source` to the empty `directory`, its weights to `files`.

    Raises ModelError when a weight is not finite in its type.
    """
    texts, kept, counter = dict(source.files), source.files.get("config.json", b"null"), itertools.count(1)
    if json.loads(kept) != source.config:
        texts["config.json"] = (json.dumps(source.config, indent=2) + "\n").encode()
    if len(files) > 1:
        total = sum(tensor.nbytes for tensor in source.tensors.values())
        texts[INDEX] = index_of(files, total).encode()
    for name, content in texts.items():
        (directory / name).write_bytes(content)

    def read(name: str) -> Tensor:
        tell("writing", next(counter), len(source.tensors))
        return rounded(source, name)

    for file, names in files.items():
        write_file(directory / file, {name: source.tensors[name] for name in names}, read)


def rounded(source: Source, name: str) -> Tensor:
    """Return a tensor in the type to write it in. Raises ModelError when a weight is not finite in that."""
    weight = source.read(name).to(source.tensors[name].dtype).contiguous()
    if not torch.isfinite(weight).all():
        raise _not_finite(name, str(weight.dtype).removeprefix("torch."))
    return weight


def write_gguf(source: Source, file: Path, pairs: Mapping[str, Value], kind: str, tell: Tell) -> None:
    """Write `source` to `file` with the metadata `pairs`, its matrices in the type `kind`.

    Raises ModelError when a weight is not finite in its type.
    """
    header, extra = gguf_header(source, pairs, kind)
    with file.open("wb") as out:
        out.write(header)
        for number, name in enumerate(source.tensors, 1):
            tell("writing", number, len(source.tensors))
            weight = reorder(source.read(name), name, source.architecture)
            written = sum(out.write(raw.data) for raw, _ in _encoded(name, weight, kind_of(weight, kind)))
            out.write(bytes(-written % ALIGNMENT))
        out.write(extra)


def quantised(source: Source, name: str, kind: str) -> Tensor:
    """Return a tensor as a reader of the GGUF of the type `kind` finds it, float32."""
    weight = source.read(name)
    found = torch.empty(weight.shape)
    for part, (_, values) in zip(
        found.view(-1).split(CHUNK), _encoded(name, weight, kind_of(weight, kind)), strict=True
    ):
        part.copy_(torch.from_numpy(values))
    return found


def gguf_header(source: Source, pairs: Mapping[str, Value], kind: str) -> tuple[bytes, bytes]:
    """Return what stands before the tensors in a GGUF, and behind them, where Llama 3's RoPE needs a tensor more."""
    shapes = {theirs(n): (kind_of(tensor, kind), tuple(tensor.shape)) for n, tensor in source.tensors.items()}
    extra = b""
    if source.architecture.rope_parameters.rope_type == "llama3":
        factors = rope_factors(source.architecture)
        shapes[ROPE_FACTORS], extra = ("F32", tuple(factors.shape)), _padded(quantise("F32", factors).tobytes())
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(shapes), len(pairs))
    header += b"".join(_string(key) + _value(value) for key, value in pairs.items())
    numbers, offset = {name: number for number, name in TYPES.items()}, 0
    for name, (stored, shape) in shapes.items():
        place = struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), numbers[stored], offset)
        header += _string(name) + place
        offset += _room(stored, shape)
    return _padded(header), extra


def gguf_size(source: Source, pairs: Mapping[str, Value], kind: str) -> int:
    """Return the bytes of the GGUF that `write_gguf` makes."""
    tensors = sum(_room(kind_of(tensor, kind), tuple(tensor.shape)) for tensor in source.tensors.values())
    return tensors + sum(map(len, gguf_header(source, pairs, kind)))


def _room(kind: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor in a GGUF and of the gap behind it."""
    weights, size = BLOCKS[kind]
    return -(-(math.prod(shape) // weights * size) // ALIGNMENT) * ALIGNMENT


def _encoded(name: str, weight: Tensor, kind: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield a tensor's bytes in the type `kind`, and what they mean as float32, a part at a time."""
    for part in weight.reshape(-1).split(CHUNK):
        raw = quantise(kind, part)
        values = dequantise(kind, raw)
        if not np.isfinite(values).all():
            raise _not_finite(name, kind)
        yield raw, values


def _not_finite(name: str, kind: str) -> ModelError:
    hint = "float16 ends at 65504: take bfloat16; if that fails too, the source is damaged"
    return ModelError(f"{name} has weights that are not finite in {kind}", hint=hint)


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % ALIGNMENT)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Value) -> bytes:
    """Return GGUF's number of a value's type, and its bytes."""
    match value:
        case bool():
            return struct.pack("<I?", BOOL, value)
        case int():
            return struct.pack("<II", UINT32, value)
        case float():
            return struct.pack("<If", FLOAT32, value)
        case str():
            return struct.pack("<I", STRING) + _string(value)
        case list():
            return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_string, value))
        case _:
            number, kind = (FLOAT32, "<f4") if value.dtype.kind == "f" else (INT32, "<i4")
            return struct.pack("<IIQ", ARRAY, number, len(value)) + value.astype(kind).tobytes()
