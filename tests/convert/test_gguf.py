"""The GGUF reader: values against hand-computed blocks, and every lie that a header can tell."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from lovecraft.convert.gguf import BLOCKS, dequantise, open_gguf
from lovecraft.errors import ModelError
from tests.convert.gguf_writer import pack_string, pack_value, pad, quantise, tiny_gguf, write_gguf

BLOCK = numpy_st.arrays(np.float32, 64, elements=st.floats(-1000, 1000, width=32))


def raw(*parts: bytes) -> np.ndarray:
    return np.frombuffer(b"".join(parts), np.uint8)


# --- values -----------------------------------------------------------------------------------------


def test_q8_0_is_scale_times_level() -> None:
    levels = np.arange(-16, 16, dtype=np.int8)
    out = dequantise("Q8_0", raw(np.float16(0.5).tobytes(), levels.tobytes()))
    assert out.tolist() == [level * 0.5 for level in range(-16, 16)]


def test_q4_0_holds_the_first_half_in_the_low_bits_around_eight() -> None:
    packed = bytes(i | (15 - i) << 4 for i in range(16))
    out = dequantise("Q4_0", raw(np.float16(2).tobytes(), packed))
    assert out.tolist() == [2.0 * (i - 8) for i in range(16)] + [2.0 * (7 - i) for i in range(16)]


def test_q4_1_adds_the_minimum() -> None:
    packed = bytes(i | (15 - i) << 4 for i in range(16))
    out = dequantise("Q4_1", raw(np.float16(0.25).tobytes(), np.float16(-1).tobytes(), packed))
    assert out.tolist() == [0.25 * i - 1 for i in range(16)] + [0.25 * (15 - i) - 1 for i in range(16)]


def test_float_types_are_read_exactly() -> None:
    numbers = np.array([0.0, -0.0, 1.0, -1.5, 2.0**-14, 60000.0], np.float32)
    assert dequantise("F32", raw(numbers.tobytes())).tolist() == numbers.tolist()
    assert dequantise("F16", raw(numbers.astype(np.float16).tobytes())).tolist() == numbers.tolist()
    assert dequantise("BF16", raw(struct.pack("<3H", 0x3F80, 0xC2C8, 0x7F80))).tolist() == [1.0, -100.0, np.inf]


@given(weights=BLOCK)
@pytest.mark.parametrize(("kind", "steps"), [("Q8_0", 127), ("Q4_0", 7), ("Q4_1", 15)])
def test_quantising_and_back_errs_by_half_a_step(kind: str, steps: int, weights: np.ndarray) -> None:
    back = dequantise(kind, raw(quantise(kind, weights)))
    for before, after in zip(weights.reshape(-1, 32), back.reshape(-1, 32), strict=True):
        span = before.max() - before.min() if kind == "Q4_1" else np.abs(before).max()
        rounding = 2.0**-10 * np.abs(before).max() + 2.0**-20  # of scale and minimum to float16, at every level
        assert np.abs(before - after).max() <= 0.5 * span / steps + 2 * rounding


@given(weights=BLOCK)
@pytest.mark.parametrize("kind", sorted(BLOCKS))
def test_every_type_agrees_with_the_gguf_package(kind: str, weights: np.ndarray) -> None:
    gguf = pytest.importorskip("gguf")
    data = raw(quantise(kind, weights))
    theirs = gguf.quants.dequantize(data.copy(), gguf.GGMLQuantizationType[kind])
    assert np.array_equal(dequantise(kind, data), np.asarray(theirs, np.float32).ravel())


@pytest.mark.parametrize("version", [2, 3])
def test_a_file_reads_back_as_it_was_written(tmp_path: Path, version: int) -> None:
    metadata = {
        "a.text": "Cthulhu ÿ",
        "a.bool": True,
        "a.int": 7,
        "a.float": 1e-5,
        "a.texts": ["x", ""],
        "a.ints": [3, -4],
    }
    ramp = np.arange(96, dtype=np.float32).reshape(3, 32)
    tensors = {"ramp": ("F32", ramp), "half": ("F16", ramp[:2]), "empty.norm": ("F32", ramp[0])}
    gguf = open_gguf(write_gguf(tmp_path / "a.gguf", metadata, tensors, version=version))
    assert gguf.metadata.pop("a.ints").tolist() == [3, -4]
    assert gguf.metadata == {key: value for key, value in metadata.items() if key != "a.ints"}
    for name, (_, weights) in tensors.items():
        assert np.array_equal(gguf.read(name), weights)


@given(number=st.floats(2.0**-100, 2.0**100))
def test_a_float32_comes_back_as_the_shortest_decimal_of_it(
    tmp_path_factory: pytest.TempPathFactory, number: float
) -> None:
    path = tmp_path_factory.mktemp("f") / "a.gguf"
    value = open_gguf(write_gguf(path, {"f": number}, {"t": ("F32", np.ones(1, np.float32))})).value("f", float)
    assert np.float32(value) == np.float32(number)
    assert len(repr(value)) <= len(repr(float(np.float32(number))))


# --- lies -------------------------------------------------------------------------------------------


def header(tensors: int = 0, pairs: int = 0, *, magic: bytes = b"GGUF", version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", magic, version, tensors, pairs)


def tensor(name: str = "t", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return pack_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


LIES = {
    "empty": (b"", "no GGUF file"),
    "too short": (b"GGUF", "no GGUF file"),
    "another format": (header(magic=b"PK\3\4"), "no GGUF file"),
    "version 1": (header(version=1), "version 1"),
    "big-endian": (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "big-endian"),
    "2^60 tensors": (header(tensors=2**60), "cannot be in"),
    "2^60 pairs": (header(pairs=2**60), "cannot be in"),
    "a key longer than the file": (header(pairs=1) + struct.pack("<Q", 2**63) + bytes(9), "needs"),
    "a key that is not UTF-8": (header(pairs=1) + struct.pack("<Q", 1) + b"\xff" + bytes(9), "not UTF-8"),
    "an unknown value type": (header(pairs=1) + pack_string("k") + struct.pack("<I", 13) + bytes(8), "value type 13"),
    "2^61 strings": (header(pairs=1) + pack_string("k") + struct.pack("<IIQ", 9, 8, 2**61), "cannot be in"),
    "2^61 numbers": (header(pairs=1) + pack_string("k") + struct.pack("<IIQ", 9, 4, 2**61), "needs"),
    "nested arrays": (header(pairs=1) + pack_string("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(16), "value type 9"),
    "a key twice": (header(pairs=2) + 2 * (pack_string("k") + pack_value("v")), "twice"),
    "a crooked alignment": (header(pairs=1) + pack_string("general.alignment") + pack_value(12), "alignment"),
    "no alignment": (header(pairs=1) + pack_string("general.alignment") + pack_value(0), "alignment"),
    "a tensor twice": (header(tensors=2) + tensor() + tensor(offset=128) + bytes(512), "twice"),
    "no dimensions": (header(tensors=1) + tensor(shape=()) + bytes(99), "0 dimensions"),
    "five dimensions": (header(tensors=1) + tensor(shape=(1, 1, 1, 1, 1)) + bytes(99), "5 dimensions"),
    "no weights": (header(tensors=1) + tensor(shape=(0,)) + bytes(99), "whole blocks"),
    "a product past 64 bits": (header(tensors=1) + tensor(shape=(2**33, 2**33)) + bytes(99), "ends at byte"),
    "half a block": (header(tensors=1) + tensor(shape=(48,), kind=8) + bytes(99), "whole blocks"),
    "Q6_K": (header(tensors=1) + tensor("blk.0.x", (256,), kind=14) + bytes(999), "blk.0.x is of the type Q6_K"),
    "type 99": (header(tensors=1) + tensor("x", (256,), kind=99) + bytes(999), "x is of the type number 99"),
    "past the end": (header(tensors=1) + tensor(offset=2**62) + bytes(999), "the tensor t ends at byte"),
    "overlap": (header(tensors=2) + tensor("a") + tensor("b", offset=32) + bytes(999), "inside another"),
    "unaligned": (header(tensors=1) + tensor(offset=4) + bytes(999), "unaligned"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_file_is_refused(tmp_path: Path, lie: str) -> None:
    content, complaint = LIES[lie]
    (tmp_path / "lie.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=complaint) as caught:
        open_gguf(tmp_path / "lie.gguf")
    assert "lie.gguf" in caught.value.message
    assert caught.value.hint


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file"):
        open_gguf(tmp_path / "absent.gguf")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tiny_gguf(tmp_path / "whole.gguf").read_bytes()
    for size in {*range(0, 200, 7), *range(0, len(whole), 997), len(whole) - 32}:
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(ModelError):
            open_gguf(tmp_path / "cut.gguf")


@given(noise=st.binary(max_size=200), tensors=st.integers(0, 3), pairs=st.integers(0, 3))
def test_noise_after_the_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, tensors: int, pairs: int
) -> None:
    path = tmp_path_factory.mktemp("noise") / "noise.gguf"
    path.write_bytes(pad(header(tensors, pairs) + noise))
    try:
        open_gguf(path)
    except ModelError:
        pass  # anything else is a bug of the reader


def test_a_metadata_value_is_asked_for_by_type(tmp_path: Path) -> None:
    gguf = open_gguf(write_gguf(tmp_path / "a.gguf", {"n": 1, "b": True}, {"t": ("F32", np.ones(1, np.float32))}))
    assert gguf.value("n", int) == 1
    assert gguf.value("absent", int, 5) == 5
    with pytest.raises(ModelError, match="has no absent"):
        gguf.value("absent", int)
    with pytest.raises(ModelError, match=r"b in .* is a bool, not a int"):
        gguf.value("b", int)
