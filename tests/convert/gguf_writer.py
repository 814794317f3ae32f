"""Write small GGUF files: an implementation of its own, so that the reader is not its own judge."""

import functools
import struct
from pathlib import Path

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "BF16": 30}
HEADS, KEY_HEADS, HEAD, WIDTH, INNER, LAYERS = 4, 2, 8, 32, 64, 2
TOKENS = ["<s>", "</s>", *sorted(ByteLevel.alphabet()), "th", "Ġth", "12"]

Tensors = dict[str, tuple[str, np.ndarray]]


def pack_string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def pack_value(value: object) -> bytes:
    """Return GGUF's type number and bytes: int as u32, float as f32, lists of strings, of floats and of ints (i32)."""
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + pack_string(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(pack_string, value))
        case [float(), *_]:
            return struct.pack("<IIQ", 9, 6, len(value)) + np.array(value, "<f4").tobytes()
        case list():
            return struct.pack("<IIQ", 9, 5, len(value)) + np.array(value, "<i4").tobytes()
    raise TypeError(value)


def quantise(kind: str, weights: np.ndarray) -> bytes:
    """Return the bytes of float32 `weights`; the scale of a quantised block is its range over the levels."""
    if kind == "F32":
        return weights.astype("<f4").tobytes()
    if kind == "F16":
        return weights.astype("<f2").tobytes()
    if kind == "BF16":
        return (weights.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    blocks = weights.astype(np.float32).reshape(-1, 32)
    return b"".join(QUANTISERS[kind](block) for block in blocks)


def _levels(block: np.ndarray, scale: np.float16, start: float, top: int) -> np.ndarray:
    """Round (block - start) / scale into 0 .. top."""
    scale32 = np.float32(scale) or np.float32(1)
    return np.clip(np.rint((block - np.float32(start)) / scale32), 0, top).astype(np.uint8)


def _q8_0(block: np.ndarray) -> bytes:
    scale = np.float16(np.abs(block).max() / 127)
    return scale.tobytes() + (_levels(block, scale, -128 * np.float32(scale), 255) - 128).astype(np.int8).tobytes()


def _q4_0(block: np.ndarray) -> bytes:
    scale = np.float16(np.abs(block).max() / 7)
    levels = _levels(block, scale, -8 * np.float32(scale), 15)
    return scale.tobytes() + (levels[:16] | levels[16:] << 4).tobytes()


def _q4_1(block: np.ndarray) -> bytes:
    low = np.float16(block.min())
    scale = np.float16((block.max() - np.float32(low)) / 15)
    levels = _levels(block, scale, low, 15)
    return scale.tobytes() + low.tobytes() + (levels[:16] | levels[16:] << 4).tobytes()


QUANTISERS = {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}


def write_gguf(path: Path, metadata: dict[str, object], tensors: Tensors, *, version: int = 3) -> Path:
    """Write a GGUF file of `metadata` and `tensors`: name to (type, float32 array)."""
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(metadata))
    head += b"".join(pack_string(key) + pack_value(value) for key, value in metadata.items())
    data = b""
    for name, (kind, weights) in tensors.items():
        head += pack_string(name) + struct.pack("<I", weights.ndim)
        head += struct.pack(f"<{weights.ndim}Q", *weights.shape[::-1]) + struct.pack("<IQ", TYPES[kind], len(data))
        data += pad(quantise(kind, weights))
    path.write_bytes(pad(head) + data)
    return path


def pad(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 32)


def llama_metadata(**changes: object) -> dict[str, object]:
    """Return the metadata of a tiny Llama; `changes` by key, with __ for a dot and None to leave a key out."""
    metadata = {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "general.license": "apache-2.0",
        "llama.block_count": LAYERS,
        "llama.context_length": 128,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KEY_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 100000.0,
        "llama.rope.dimension_count": HEAD,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3, 3] + [1] * (len(TOKENS) - 2),
        "tokenizer.ggml.merges": ["t h", "Ġ th", "1 2"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.chat_template": "{{ messages }}",
    }
    metadata |= {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in metadata.items() if value is not None}


@functools.cache
def hf_weights(tied: bool = True) -> dict[str, np.ndarray]:
    """Return seeded float32 weights of the tiny Llama under their Hugging Face names."""
    shapes = {"model.embed_tokens.weight": (len(TOKENS), WIDTH), "model.norm.weight": (WIDTH,)}
    if not tied:
        shapes["lm_head.weight"] = (len(TOKENS), WIDTH)
    for i in range(LAYERS):
        layer = {
            "self_attn.q_proj": (HEADS * HEAD, WIDTH),
            "self_attn.k_proj": (KEY_HEADS * HEAD, WIDTH),
            "self_attn.v_proj": (KEY_HEADS * HEAD, WIDTH),
            "self_attn.o_proj": (WIDTH, HEADS * HEAD),
            "mlp.gate_proj": (INNER, WIDTH),
            "mlp.up_proj": (INNER, WIDTH),
            "mlp.down_proj": (WIDTH, INNER),
            "input_layernorm": (WIDTH,),
            "post_attention_layernorm": (WIDTH,),
        }
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    random = np.random.default_rng(0)
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


# Hugging Face's piece of a name: llama.cpp's (tensor_mapping.py).
PIECES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def llama_tensors(kind: str = "F32", *, tied: bool = True) -> Tensors:
    """Return the tiny Llama as llama.cpp's converter writes it: names, order of query and key rows, norms in F32."""
    tensors: Tensors = {}
    for name, weights in hf_weights(tied).items():
        theirs = name
        for piece, other in PIECES.items():
            theirs = theirs.replace(piece, other)
        for projection, heads in (("q_proj", HEADS), ("k_proj", KEY_HEADS)):
            if projection in name:
                weights = permute(weights, heads)
        tensors[theirs] = ("F32" if weights.ndim == 1 else kind, weights)
    return tensors


def permute(weights: np.ndarray, heads: int) -> np.ndarray:
    """Row by row: row i of a head's first half goes to 2i, of its second half to 2i + 1."""
    out, head = np.empty_like(weights), len(weights) // heads
    for h in range(heads):
        for i in range(head // 2):
            out[h * head + 2 * i] = weights[h * head + i]
            out[h * head + 2 * i + 1] = weights[h * head + head // 2 + i]
    return out


def tiny_gguf(path: Path, kind: str = "F32", *, tied: bool = True, **changes: object) -> Path:
    """Write the tiny Llama to `path`; `changes` as in `llama_metadata`."""
    return write_gguf(path, llama_metadata(**changes), llama_tensors(kind, tied=tied))
