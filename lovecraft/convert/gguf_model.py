"""A GGUF model in Hugging Face's terms, and the way back: config.json, tensor names, rows in the other's order.

What llama.cpp wants is what its own converter writes (convert_hf_to_gguf.py, gguf-py's tensor_mapping.py).
"""

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from lovecraft.convert.gguf import BLOCKS, BROKEN, GGUF, STORED, Value, open_gguf
from lovecraft.convert.gguf_tokenizer import end_ids, special_ids, tokenizer_files
from lovecraft.convert.source import Source, fit
from lovecraft.errors import ModelError
from lovecraft.models.architecture import FAMILIES, Architecture, RopeParameters, parse_architecture
from lovecraft.models.rope import inverse_frequencies

# Hugging Face's model_type: general.architecture, which of the first of its name is also the model_type.
WRITTEN = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
INTERLEAVED = {"llama"}  # whose query and key rows llama.cpp has in another order

# Hugging Face's name of a module: GGUF's.
MODULES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER_MODULES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OURS = {gguf: ours for ours, gguf in (MODULES | LAYER_MODULES).items()}
ROPE_FACTORS = "rope_freqs.weight"  # how llama.cpp has Llama 3's scaling: what divides each pair's frequency
# The numbers behind the factors, which llama.cpp does not need; where a file is silent, they are those of Llama 3.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_context_length": 8192}
FILE_TYPES = {"F16": 1, "Q8_0": 7, "BF16": 32}
ELSEWHERE = "such a model must be converted from its Hugging Face directory"

# --- in ---------------------------------------------------------------------------------------------


def read_gguf(path: Path) -> Source:
    """Open a GGUF file as a source. Raises ModelError where its family or its tokenizer is not in the tables."""
    gguf = open_gguf(path)
    family = gguf.value("general.architecture", str)
    if family not in WRITTEN.values():
        hint = f"{', '.join(sorted({*WRITTEN.values()}))} can be converted"
        raise ModelError(f"{path} is of the architecture {family!r}", hint=hint)
    if len(gguf.tensors) < gguf.value(f"{family}.block_count", int):
        raise ModelError(f"{path} has {len(gguf.tensors)} tensors, too few for its layers", hint=BROKEN)
    dtype, reason = _storage(gguf)
    config = {**_config(gguf, family), "torch_dtype": str(dtype).removeprefix("torch.")}
    architecture = parse_architecture(config, str(path))
    _check_heads(gguf, family, architecture)
    stored = {_ours(name): torch.empty(info.shape, dtype=dtype, device="meta") for name, info in gguf.tensors.items()}
    stored.pop(ROPE_FACTORS, None)  # is in config.json
    fit(architecture, stored, path)
    files = tokenizer_files(gguf, architecture.max_position_embeddings)

    def read(name: str) -> Tensor:
        return reorder(torch.from_numpy(gguf.read(theirs(name))), name, architecture, back=True)

    return Source(path, config, {name: text.encode() for name, text in files.items()}, stored, read, reason)


def _config(gguf: GGUF, family: str) -> dict[str, Any]:
    """Return config.json in the spelling that transformers 4 and 5 both read."""

    def number(key: str, default: int | None = None) -> int:
        return gguf.value(f"{family}.{key}", int, default)

    hidden, heads = number("embedding_length"), number("attention.head_count")
    ids = special_ids(gguf)
    return {
        "architectures": [f"{FAMILIES[family].network}ForCausalLM"],
        "model_type": family,
        "vocab_size": _vocabulary(gguf),
        "hidden_size": hidden,
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv", heads),
        "head_dim": number("attention.key_length", hidden // max(heads, 1)),
        "hidden_act": "silu",
        "max_position_embeddings": number("context_length"),
        "rms_norm_eps": gguf.value(f"{family}.attention.layer_norm_rms_epsilon", float),
        "rope_theta": gguf.value(f"{family}.rope.freq_base", float, 10000.0),
        "rope_scaling": _rope_scaling(gguf, family),
        "attention_bias": "blk.0.attn_q.bias" in gguf.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in gguf.tensors,
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


def _rope_scaling(gguf: GGUF, family: str) -> dict[str, Any] | None:
    scaling = f"{family}.rope.scaling"
    if ROPE_FACTORS in gguf.tensors:
        numbers = {name: gguf.value(f"{scaling}.{name}", type(value), value) for name, value in LLAMA3.items()}
        trained = numbers.pop("original_context_length")
        factor = float(gguf.read(ROPE_FACTORS).max())
        return {"rope_type": "llama3", "factor": factor, **numbers, "original_max_position_embeddings": trained}
    kind = gguf.value(f"{scaling}.type", str, "linear")
    factor = gguf.value(f"{scaling}.factor", float, 1.0)
    if kind == "none" or factor in (0.0, 1.0):  # llama.cpp takes 0 for none
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        trained = gguf.value(f"{scaling}.original_context_length", int)
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained}
    raise ModelError(f"{gguf.path} has the RoPE scaling {kind!r}; linear and yarn can be converted", hint=ELSEWHERE)


def _check_heads(gguf: GGUF, family: str, architecture: Architecture) -> None:
    """Refuse values of another size than keys, and RoPE that turns a part of a head or by factors of its own."""
    for key in (f"{family}.attention.value_length", f"{family}.rope.dimension_count"):
        size = gguf.value(key, int, architecture.head_dim)
        if size != architecture.head_dim:
            raise ModelError(f"{key} in {gguf.path} is {size}, a head is {architecture.head_dim}", hint=ELSEWHERE)
    if ROPE_FACTORS in gguf.tensors:
        found, wanted = torch.from_numpy(gguf.read(ROPE_FACTORS)), rope_factors(architecture)
        if found.shape != wanted.shape or not torch.allclose(found, wanted, rtol=1e-5):
            raise ModelError(f"{ROPE_FACTORS} in {gguf.path} is not how Llama 3.1 scales RoPE", hint=ELSEWHERE)


def _storage(gguf: GGUF) -> tuple[torch.dtype, str]:
    """Return the type for `auto` and why: what most of the weights are stored in, if that is a type of torch's."""
    sizes = Counter({"F32": 0})
    for info in gguf.tensors.values():
        sizes[info.kind] += info.stop - info.start
    kind = sizes.most_common(1)[0][0]
    if kind in STORED:
        return STORED[kind], f"most of the file is {kind}"
    return torch.float32, f"what {kind} weights are computed in; --dtype bfloat16 halves the size and rounds them"


# --- out --------------------------------------------------------------------------------------------


def metadata(source: Source, architecture: Architecture, name: str, kind: str) -> dict[str, Value]:
    """Return the metadata of a GGUF with weights of the type `kind`, but for the tokenizer's."""
    arch, family = architecture, WRITTEN[architecture.model_type]
    sizes: dict[str, Value] = {
        "block_count": arch.num_hidden_layers,
        "context_length": arch.max_position_embeddings,
        "embedding_length": arch.hidden_size,
        "feed_forward_length": arch.intermediate_size,
        "attention.head_count": arch.num_attention_heads,
        "attention.head_count_kv": arch.num_key_value_heads,
        "attention.key_length": arch.head_dim,
        "attention.value_length": arch.head_dim,
        "attention.layer_norm_rms_epsilon": arch.rms_norm_eps,
        "rope.dimension_count": arch.head_dim,
        "rope.freq_base": arch.rope_parameters.rope_theta,
        "vocab_size": arch.vocab_size,
        **{f"rope.scaling.{key}": value for key, value in _scaling(arch.rope_parameters).items()},
    }
    readme = source.files.get("README.md", b"").decode(errors="replace").splitlines()
    named = [line.partition(":")[2].strip() for line in readme if line.startswith("license:")]
    licence = source.config.get("license") or next(iter(named), None)
    return {
        "general.architecture": family,
        "general.type": "model",
        "general.name": name,
        **({"general.license": licence} if isinstance(licence, str) else {}),
        "general.file_type": FILE_TYPES[kind],
        "general.quantization_version": 2,
        **{f"{family}.{key}": value for key, value in sizes.items()},
    }


def as_written(architecture: Architecture) -> Architecture:
    """Return what a GGUF can say of a network. Raises ModelError where that would be another network."""
    if architecture.model_type not in WRITTEN:
        hint = f"{', '.join(WRITTEN)} can be"
        raise ModelError(f"a model of the family {architecture.model_type} cannot be written as GGUF", hint=hint)
    window, context = architecture.sliding_window, architecture.context
    if window is not None and window < context:
        raise ModelError(
            f"llama.cpp does not compute this family's sliding window of {window} tokens, and the context is {context}",
            hint=f"--max-context {window} makes a GGUF that computes the same, for texts up to that",
        )
    changes = {"model_type": WRITTEN[architecture.model_type], "max_position_embeddings": context}
    return attrs.evolve(architecture, **changes, sliding_window=None, max_window_layers=0)


def _scaling(rope: RopeParameters) -> dict[str, Value]:
    trained = {"original_context_length": rope.original_max_position_embeddings}
    sharper = 0.1 * math.log(rope.factor) + 1.0
    plain = attrs.evolve(rope, beta_fast=32.0, beta_slow=1.0, truncate=True, attention_factor=sharper)
    match rope.rope_type:
        case "default":
            return {}
        case "linear":
            return {"type": "linear", "factor": rope.factor}
        case "llama3":
            return {**trained, "low_freq_factor": rope.low_freq_factor, "high_freq_factor": rope.high_freq_factor}
        case "yarn" if rope == plain:
            return {"type": "yarn", "factor": rope.factor, **trained}
    what = "yarn with its own parameters" if rope.rope_type == "yarn" else rope.rope_type
    raise ModelError(f"a GGUF cannot say the RoPE scaling {what}", hint="it can say linear, llama3 and plain yarn")


def theirs(name: str) -> str:
    """Return GGUF's name of a tensor: blk.3.attn_q.weight for model.layers.3.self_attn.q_proj.weight."""
    module, _, kind = name.rpartition(".")
    if module in MODULES:
        return f"{MODULES[module]}.{kind}"
    _, _, number, inner = module.split(".", 3)
    return f"blk.{number}.{LAYER_MODULES[inner]}.{kind}"


def _ours(name: str) -> str:
    """Return Hugging Face's name of a tensor; an unknown one stays."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(\w+)", name)
    if not match or match[2] not in OURS:
        return name
    return (f"model.layers.{match[1]}." if match[1] else "") + f"{OURS[match[2]]}.{match[3]}"


def kind_of(tensor: Tensor, kind: str) -> str:
    """Return the type that a tensor gets in a GGUF of `kind`: norms and biases stay exact, odd rows are no blocks."""
    if tensor.ndim == 1:
        return "F32"
    return kind if tensor.shape[-1] % BLOCKS[kind][0] == 0 else "F16"


def reorder(weight: Tensor, name: str, architecture: Architecture, *, back: bool = False) -> Tensor:
    """Return the rows of a query or key projection in llama.cpp's order, or `back` in ours; any other tensor as it is.

    RoPE turns pairs of rows. Hugging Face pairs row i of a head with row i + Dh/2; llama.cpp's converter interleaves
    them, so that a pair is two neighbours (`LlamaModel.permute` in convert_hf_to_gguf.py).
    """
    module = name.rpartition(".")[0].rpartition(".")[2]
    heads = {"q_proj": architecture.num_attention_heads, "k_proj": architecture.num_key_value_heads}.get(module)
    if heads is None or WRITTEN[architecture.model_type] not in INTERLEAVED:
        return weight
    pairs = (-1, 2) if back else (2, -1)
    split = weight.reshape(heads, *pairs, *weight.shape[1:])  # (heads, 2, Dh/2, D), or (heads, Dh/2, 2, D)
    return split.transpose(1, 2).reshape(weight.shape)


def rope_factors(architecture: Architecture) -> Tensor:
    """Return what the frequency of each pair is divided by, float32 (Dh / 2,)."""
    rope = architecture.rope_parameters
    plain = attrs.evolve(architecture, rope_parameters=RopeParameters(rope_type="default", rope_theta=rope.rope_theta))
    cpu = torch.device("cpu")
    return inverse_frequencies(plain, cpu) / inverse_frequencies(architecture, cpu)
