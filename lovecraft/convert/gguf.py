"""Read a GGUF file: metadata, and tensors as float32; the bytes of a tensor's types.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian); block layouts:
ggml-common.h. Every count and extent is checked against the file's size before anything is made from it.
"""

import math
import struct
from pathlib import Path
from typing import NoReturn, TypeVar

import attrs
import numpy as np
import torch
from torch import Tensor

from lovecraft.errors import ModelError

T = TypeVar("T", bool, int, float, str, list, np.ndarray)
Value = bool | int | float | str | list[str] | np.ndarray

# GGUF's number of a metadata value's type: numpy's name of it. Strings and arrays have no fixed size.
SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
FLOAT32, STRING, ARRAY = 6, 8, 9

# ggml's number of a tensor's type: its name. Those that BLOCKS lacks are here for the error message.
TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 16: "IQ2_XXS", 18: "IQ3_XXS", 20: "IQ4_NL", 23: "IQ4_XS", 30: "BF16", 39: "MXFP4",
}  # fmt: skip

# Type: (weights in a block, bytes of a block).
BLOCKS = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_1": (32, 20)}

STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The types that are torch's own."""

BROKEN = "the file is incomplete or not what it says: download it again"
UNREADABLE = f"take a file with {', '.join(BLOCKS)} tensors, or the model in Hugging Face layout"
SMALLEST_PAIR = 8 + 4 + 1  # bytes of an empty key with a one-byte value
SMALLEST_TENSOR = 8 + 4 + 8 + 4 + 8  # bytes of an empty name with one dimension


@attrs.frozen
class TensorInfo:
    """Where a tensor lies: bytes `start` to `stop` of the file."""

    kind: str
    """The name of its type, as in BLOCKS."""

    shape: tuple[int, ...]
    """Outermost dimension first, as in torch; the file has it the other way round."""

    start: int
    stop: int


@attrs.frozen(eq=False)
class GGUF:
    """An opened GGUF file. Tensors stay in the file until `read` asks for them."""

    path: Path
    metadata: dict[str, Value]
    tensors: dict[str, TensorInfo]
    _data: np.ndarray = attrs.field(repr=False)

    def value(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Return a metadata value. Raises ModelError when it is not of the type, or missing without a default."""
        value = self.metadata.get(key, default)
        if value is None:
            raise ModelError(f"{self.path} has no {key}", hint=BROKEN)
        if type(value) is not kind:
            raise ModelError(f"{key} in {self.path} is a {type(value).__name__}, not a {kind.__name__}", hint=BROKEN)
        return value

    def read(self, name: str) -> np.ndarray:
        """Return a tensor as float32, in torch's shape."""
        info = self.tensors[name]
        return dequantise(info.kind, self._data[info.start : info.stop]).reshape(info.shape)


def open_gguf(path: Path) -> GGUF:
    """Open a GGUF file, reading its header. Raises ModelError where it is not one that this module can read."""
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    if path.stat().st_size < 24:  # also: an empty file cannot be mapped
        raise ModelError(f"{path} is no GGUF file: it has {path.stat().st_size} bytes", hint=BROKEN)
    data = np.memmap(path, np.uint8, "r")
    cursor = _Cursor(path, data.data)
    tensor_count, pair_count = _read_counts(cursor)
    metadata = _read_metadata(cursor, pair_count)
    tensors = _read_tensors(cursor, tensor_count, metadata.get("general.alignment", 32))
    return GGUF(path, metadata, tensors, data)


def dequantise(kind: str, raw: np.ndarray) -> np.ndarray:
    """Return the weights (n,) float32 of the bytes `raw` (uint8), whole blocks of the type `kind`.

    ggml's formulas, in its order of operations: Q8_0 and Q4_0 are scale * level, Q4_1 is scale * level + minimum.
    """
    if kind == "F32":
        return raw.view("<f4").astype(np.float32)
    if kind == "F16":
        return raw.view("<f2").astype(np.float32)
    if kind == "BF16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    blocks = raw.reshape(-1, BLOCKS[kind][1])  # (blocks, bytes)
    scale = blocks[:, 0:2].copy().view("<f2").astype(np.float32)  # (blocks, 1)
    with np.errstate(invalid="ignore"):  # an infinite scale makes NaN, which the writer refuses by name
        if kind == "Q8_0":
            return (blocks[:, 2:].view(np.int8) * scale).ravel()
        if kind == "Q4_0":
            return ((_nibbles(blocks[:, 2:]) - 8) * scale).ravel()
        minimum = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
        return (_nibbles(blocks[:, 4:]) * scale + minimum).ravel()


def quantise(kind: str, weights: Tensor) -> np.ndarray:
    """Return the bytes (uint8) of `weights` in the type `kind`: Q8_0 as ggml's quantize_row_q8_0_ref rounds.

    Numbers that the type cannot hold become infinite or NaN.
    """
    if kind in STORED:
        return weights.to(STORED[kind]).contiguous().view(-1).view(torch.uint8).numpy()
    assert kind == "Q8_0", kind
    blocks = weights.float().numpy().reshape(-1, BLOCKS[kind][0])
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        levels = blocks * np.where(scale == 0, 0, np.float32(1) / scale)
        down = np.floor(np.abs(levels))
        rounded = np.copysign(down + (np.abs(levels) - down >= 0.5), levels)  # halves away from zero, unlike np.rint
        return np.hstack([scale.astype("<f2").view(np.uint8), rounded.astype(np.int8).view(np.uint8)]).ravel()


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """Unpack (blocks, 16) bytes to (blocks, 32) levels: the low halves are the first 16, the high halves the last."""
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


@attrs.define
class _Cursor:
    """A place in the file; every step is checked against the file's end."""

    path: Path
    data: memoryview
    position: int = 0

    def refuse(self, what: str, hint: str = BROKEN) -> NoReturn:
        raise ModelError(f"{self.path}: {what}", hint=hint)

    def take(self, size: int, what: str) -> memoryview:
        start, self.position = self.position, self.position + size
        if self.position > len(self.data):
            self.refuse(f"{what} at byte {start} needs {size} bytes, the file has {len(self.data)} in all")
        return self.data[start : self.position]

    def unsigned(self, what: str, size: int = 4) -> int:
        return int.from_bytes(self.take(size, what), "little")

    def string(self, what: str) -> str:
        raw = bytes(self.take(self.unsigned(what, 8), what))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.refuse(f"{what} at byte {self.position - len(raw)} is not UTF-8")

    def value(self, kind: int, what: str) -> Value:
        """Read one metadata value of GGUF's type `kind`; a float32 as the shortest decimal that rounds to it."""
        if kind == STRING:
            return self.string(what)
        if kind == ARRAY:
            kind, count = self.unsigned(what), self.unsigned(what, 8)
            if kind != STRING:
                return self.scalars(kind, count, what)
            self.fits(count, 8, what)
            return [self.string(what) for _ in range(count)]
        scalar = self.scalars(kind, 1, what)[0]
        return float(str(scalar)) if kind == FLOAT32 else scalar.item()  # 1e-05, not 9.999999747378752e-06

    def scalars(self, kind: int, count: int, what: str) -> np.ndarray:
        if kind not in SCALARS:
            self.refuse(f"{what} is of the unknown or nested value type {kind}")
        dtype = np.dtype(SCALARS[kind])
        return np.frombuffer(self.take(count * dtype.itemsize, what), dtype)

    def fits(self, count: int, size: int, what: str) -> None:
        """Refuse `count` things of at least `size` bytes each that the rest of the file cannot hold."""
        left = len(self.data) - self.position
        if count * size > left:
            self.refuse(f"{what}: {count} of them cannot be in the {left} bytes that are left")


def _read_counts(cursor: _Cursor) -> tuple[int, int]:
    magic, version = struct.unpack("<4sI", cursor.take(8, "the header"))
    if magic != b"GGUF":
        cursor.refuse(
            "it is no GGUF file",
            "lc convert reads GGUF only; a directory with config.json and safetensors is used as it is",
        )
    if version not in (2, 3):
        kind = "is big-endian" if version & 0xFFFF == 0 else f"has version {version}"
        cursor.refuse(f"the file {kind}; versions 2 and 3, little-endian, can be read", UNREADABLE)
    return cursor.unsigned("the header", 8), cursor.unsigned("the header", 8)


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, Value]:
    cursor.fits(count, SMALLEST_PAIR, "metadata")
    metadata: dict[str, Value] = {}
    for _ in range(count):
        key = cursor.string("a metadata key")
        if key in metadata:
            cursor.refuse(f"the metadata key {key} is there twice")
        metadata[key] = cursor.value(cursor.unsigned(key), key)
    return metadata


def _read_tensors(cursor: _Cursor, count: int, alignment: Value) -> dict[str, TensorInfo]:
    """Read the table of tensors and place them; their data starts at the next multiple of `alignment`."""
    if type(alignment) is not int or alignment < 8 or alignment % 8:
        cursor.refuse(f"general.alignment is {alignment}, not a multiple of 8")
    cursor.fits(count, SMALLEST_TENSOR, "tensors")
    relative: dict[str, TensorInfo] = {}
    for _ in range(count):
        name = cursor.string("a tensor's name")
        if name in relative:
            cursor.refuse(f"the tensor {name} is there twice")
        relative[name] = _read_tensor(cursor, name)
    base = -(-cursor.position // alignment) * alignment
    tensors = {name: attrs.evolve(t, start=base + t.start, stop=base + t.stop) for name, t in relative.items()}
    _check_extents(cursor, tensors, alignment)
    return tensors


def _read_tensor(cursor: _Cursor, name: str) -> TensorInfo:
    rank = cursor.unsigned(name)
    if not 1 <= rank <= 4:
        cursor.refuse(f"the tensor {name} has {rank} dimensions, not 1 to 4")
    shape = tuple(cursor.unsigned(name, 8) for _ in range(rank))[::-1]
    number, offset = cursor.unsigned(name), cursor.unsigned(name, 8)
    kind = TYPES.get(number, f"number {number}")
    if kind not in BLOCKS:
        cursor.refuse(f"the tensor {name} is of the type {kind}, which cannot be read", UNREADABLE)
    weights, size = BLOCKS[kind]
    if 0 in shape or shape[-1] % weights:
        cursor.refuse(f"the tensor {name} has the shape {shape}, whose rows are no whole blocks of {weights}")
    return TensorInfo(kind, shape, offset, offset + math.prod(shape) // weights * size)


def _check_extents(cursor: _Cursor, tensors: dict[str, TensorInfo], alignment: int) -> None:
    """Refuse a tensor past the file's end, and tensors that share bytes: few bytes could claim to be many."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        if tensor.stop > len(cursor.data):
            cursor.refuse(f"the tensor {name} ends at byte {tensor.stop}, the file at {len(cursor.data)}")
        if tensor.start < end or tensor.start % alignment:
            cursor.refuse(f"the tensor {name} starts at byte {tensor.start}, inside another or unaligned")
        end = tensor.stop
