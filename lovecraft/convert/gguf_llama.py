"""A Llama-family GGUF in Hugging Face's terms: config.json, tensor names, and rows back in their order."""

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lovecraft.convert.gguf import BROKEN, GGUF, open_gguf
from lovecraft.convert.gguf_tokenizer import end_ids, special_ids, tokenizer_files
from lovecraft.convert.hf import Source
from lovecraft.errors import ModelError
from lovecraft.models.architecture import Architecture, parse_architecture

# GGUF's name: Hugging Face's name, and the shape by letters: V vocabulary, D hidden, F feed-forward,
# Q query heads x head size, K key-value heads x head size.
TENSORS = {
    "token_embd.weight": ("model.embed_tokens.weight", "VD"),
    "output_norm.weight": ("model.norm.weight", "D"),
    "output.weight": ("lm_head.weight", "VD"),
}
LAYER_TENSORS = {
    "attn_norm.weight": ("input_layernorm.weight", "D"),
    "attn_q.weight": ("self_attn.q_proj.weight", "QD"),
    "attn_k.weight": ("self_attn.k_proj.weight", "KD"),
    "attn_v.weight": ("self_attn.v_proj.weight", "KD"),
    "attn_output.weight": ("self_attn.o_proj.weight", "DQ"),
    "ffn_norm.weight": ("post_attention_layernorm.weight", "D"),
    "ffn_gate.weight": ("mlp.gate_proj.weight", "FD"),
    "ffn_up.weight": ("mlp.up_proj.weight", "FD"),
    "ffn_down.weight": ("mlp.down_proj.weight", "DF"),
}
STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ELSEWHERE = "a model with scaled RoPE, experts or biases must be converted from its Hugging Face directory"


def read_gguf(path: Path) -> Source:
    """Open a GGUF file as a source. Raises ModelError where it is not a Llama-family model with a byte-level BPE."""
    gguf = open_gguf(path)
    family = gguf.value("general.architecture", str)
    if family != "llama":
        raise ModelError(f"{path} is of the architecture {family!r}; 'llama' can be converted")
    config = _config(gguf)
    architecture = parse_architecture(config, str(path))
    _check_heads(gguf, architecture)
    names = _names(gguf, architecture)
    files = tokenizer_files(gguf, architecture.max_position_embeddings)
    shapes = {name: gguf.tensors[theirs].shape for name, theirs in names.items()}
    return Source(config, files, shapes, functools.partial(_read, gguf, architecture, names), *_storage(gguf))


def _config(gguf: GGUF) -> dict[str, Any]:
    """Return config.json in the spelling that transformers 4 and 5 both read."""
    number = functools.partial(gguf.value, kind=int)
    hidden, heads = number("llama.embedding_length"), number("llama.attention.head_count")
    ids = special_ids(gguf)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": _vocabulary(gguf),
        "hidden_size": hidden,
        "intermediate_size": number("llama.feed_forward_length"),
        "num_hidden_layers": number("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("llama.attention.head_count_kv", default=heads),
        "head_dim": number("llama.attention.key_length", default=hidden // max(heads, 1)),
        "hidden_act": "silu",
        "max_position_embeddings": number("llama.context_length"),
        "rms_norm_eps": gguf.value("llama.attention.layer_norm_rms_epsilon", float),
        "rope_theta": gguf.value("llama.rope.freq_base", float, 10000.0),
        "rope_scaling": _rope_scaling(gguf),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "bos_token_id": ids.get("bos"),
        "eos_token_id": end_ids(ids),
        "pad_token_id": ids.get("padding"),
        "use_cache": True,
        "license": gguf.value("general.license", str, "unknown"),
    }


def _vocabulary(gguf: GGUF) -> int:
    """Return the rows of the embedding, which may be more than the tokenizer has tokens."""
    embedding, tokens = gguf.tensors.get("token_embd.weight"), len(gguf.value("tokenizer.ggml.tokens", list))
    rows = embedding.shape[0] if embedding else 0
    if rows < tokens:
        raise ModelError(f"{gguf.path} has {rows} rows in token_embd.weight for {tokens} tokens", hint=BROKEN)
    return rows


def _rope_scaling(gguf: GGUF) -> dict[str, Any] | None:
    kind = gguf.value("llama.rope.scaling.type", str, "linear")
    factor = gguf.value("llama.rope.scaling.factor", float, 1.0)
    if kind == "none" or factor in (0.0, 1.0):  # llama.cpp takes 0 for none
        return None
    if kind != "linear":
        raise ModelError(f"{gguf.path} has the RoPE scaling {kind!r}; 'linear' can be converted", hint=ELSEWHERE)
    return {"rope_type": "linear", "factor": factor}


def _check_heads(gguf: GGUF, architecture: Architecture) -> None:
    """Refuse values of another size than keys, and RoPE that turns only a part of a head."""
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        size = gguf.value(key, int, architecture.head_dim)
        if size != architecture.head_dim:
            raise ModelError(f"{key} in {gguf.path} is {size}, a head is {architecture.head_dim}", hint=ELSEWHERE)


def _names(gguf: GGUF, architecture: Architecture) -> dict[str, str]:
    """Map Hugging Face's tensor names to GGUF's. Raises ModelError for a missing, foreign or misshaped tensor."""
    layers = architecture.num_hidden_layers
    if layers * len(LAYER_TENSORS) > len(gguf.tensors):
        raise ModelError(f"{gguf.path} has {len(gguf.tensors)} tensors, too few for {layers} layers", hint=BROKEN)
    known = {name: row for name, row in TENSORS.items() if name != "output.weight" or name in gguf.tensors}
    for i in range(layers):
        known |= {f"blk.{i}.{name}": (f"model.layers.{i}.{ours}", dims) for name, (ours, dims) in LAYER_TENSORS.items()}
    sizes = {
        "V": architecture.vocab_size,
        "D": architecture.hidden_size,
        "F": architecture.intermediate_size,
        "Q": architecture.num_attention_heads * architecture.head_dim,
        "K": architecture.num_key_value_heads * architecture.head_dim,
    }
    shapes = {name: tuple(sizes[letter] for letter in dims) for name, (_, dims) in known.items()}
    found = {name: info.shape for name, info in gguf.tensors.items()}
    wrong = [f"{name} is missing" for name in shapes if name not in found]
    wrong += [f"{name} is no tensor of a Llama model" for name in found if name not in shapes]
    wrong += [
        f"{name} is {found[name]}, not {shape}" for name, shape in shapes.items() if found.get(name, shape) != shape
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ModelError(f"{gguf.path}: {'; '.join(wrong[:5])}{more}", hint=ELSEWHERE)
    return {ours: name for name, (ours, _) in known.items()}


def _read(gguf: GGUF, architecture: Architecture, names: dict[str, str], name: str) -> np.ndarray:
    weight = gguf.read(names[name])
    if name.endswith("q_proj.weight"):
        return unpermute(weight, architecture.num_attention_heads)
    if name.endswith("k_proj.weight"):
        return unpermute(weight, architecture.num_key_value_heads)
    return weight


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's order of the rows of a query or key projection (heads * Dh, D).

    RoPE turns pairs of rows. Hugging Face pairs row i of a head with row i + Dh/2; llama.cpp's converter interleaves
    them, so that a pair is two neighbours (`LlamaModel.permute` in convert_hf_to_gguf.py).
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)  # (heads, Dh/2, 2, D)
    return pairs.swapaxes(1, 2).reshape(rows, columns)  # (heads, 2, Dh/2, D) -> (heads * Dh, D)


def _storage(gguf: GGUF) -> tuple[torch.dtype, str]:
    """Return the type for `auto` and why: what most of the weights are stored in, if that is a type of torch's."""
    sizes: Counter[str] = Counter()
    for info in gguf.tensors.values():
        sizes[info.kind] += info.stop - info.start
    kind = sizes.most_common(1)[0][0]
    if kind in STORED:
        return STORED[kind], f"most of the file is {kind}"
    return torch.float32, f"what {kind} weights are computed in; --dtype bfloat16 halves the size and rounds them"
