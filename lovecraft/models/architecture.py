"""What a model is made of, read from its Hugging Face config.json. Light: nothing here imports torch.

`Architecture` keeps config.json's own field names. A config that asks for something we would not compute exactly
(another activation, an unknown RoPE scaling, quantised weights) is refused here, before any weight is read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from lovecraft.errors import ModelError

if TYPE_CHECKING:
    import torch


@frozen(kw_only=True)
class RopeParameters:
    """How positions turn into angles. The fields after `rope_theta` belong to the scaled kinds."""

    rope_type: str
    rope_theta: float
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position_embeddings: int = 0


@frozen(kw_only=True)
class Architecture:
    """The sizes and switches that fix a network and its tensors."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_parameters: RopeParameters
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None  # a token sees itself and the window - 1 tokens before it


CLASSES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}

# What transformers assumes where config.json is silent; None means: follows from the other sizes.
DEFAULTS: dict[str, dict[str, int | None]] = {
    "llama": {"num_key_value_heads": None},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
}

# Keys that would change the result, with the one value that leaves it as we compute it.
FIXED: dict[str, object] = {
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "layer_types": None,
}

ROPE_FIELDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}


def read_architecture(path: Path) -> Architecture:
    """Read the config.json of the model directory `path`, in the spelling of transformers 4 or 5.

    Raises ModelError when it is missing, is not a Llama or Mistral language model, or asks for what we do not compute.
    """
    return parse_architecture(read_config(path), str(path / "config.json"))


def read_config(path: Path) -> dict[str, object]:
    """Return the content of `path`/config.json. Raises ModelError when there is none or it is not a JSON object."""
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"{file}: {error.strerror}", hint="a model directory holds config.json, *.safetensors and tokenizer.json"
        ) from None
    except ValueError as error:
        raise ModelError(f"{file}: not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{file}: not a JSON object")
    return config


def parse_architecture(config: Mapping[str, object], where: str) -> Architecture:
    """Return the architecture that the content of a config.json describes; errors name it `where`."""
    family = str(config.get("model_type"))
    classes = config.get("architectures") or [CLASSES.get(family)]
    if family not in CLASSES or classes != [CLASSES[family]]:
        raise ModelError(
            f"{where}: model_type {family!r} with architectures {classes!r} is not supported",
            hint=f"supported: {', '.join(CLASSES.values())}",
        )
    _refuse_others(config, FIXED, where)
    get = _Reader({**DEFAULTS[family], **config}, where)
    heads = get.integer("num_attention_heads")
    hidden = get.integer("hidden_size")
    architecture = Architecture(
        model_type=family,
        vocab_size=get.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=get.integer("intermediate_size"),
        num_hidden_layers=get.integer("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=get.integer("num_key_value_heads", heads),
        head_dim=get.integer("head_dim", hidden // heads),
        max_position_embeddings=get.integer("max_position_embeddings"),
        rms_norm_eps=get.number("rms_norm_eps"),
        rope_parameters=_rope_parameters(config, where),
        tie_word_embeddings=get.switch("tie_word_embeddings"),
        attention_bias=get.switch("attention_bias"),
        mlp_bias=get.switch("mlp_bias"),
        sliding_window=get.integer("sliding_window", 0) or None if family == "mistral" else None,
    )
    if heads % architecture.num_key_value_heads or architecture.head_dim % 2:
        raise ModelError(
            f"{where}: {heads} attention heads do not divide into {architecture.num_key_value_heads} "
            f"key-value heads, or the head size {architecture.head_dim} is odd"
        )
    return architecture


def parameter_count(arch: Architecture) -> int:
    """Return how many numbers the network learns; a tied head counts once."""
    width, inner = arch.hidden_size, arch.intermediate_size
    queries, keys = arch.num_attention_heads * arch.head_dim, arch.num_key_value_heads * arch.head_dim
    attention = 2 * width * queries + 2 * width * keys + arch.attention_bias * (queries + 2 * keys + width)
    mlp = 3 * width * inner + arch.mlp_bias * (2 * inner + width)
    tables = (1 if arch.tie_word_embeddings else 2) * arch.vocab_size * width
    return tables + arch.num_hidden_layers * (attention + mlp + 2 * width) + width


def kv_bytes_per_token(arch: Architecture, dtype: "torch.dtype") -> int:
    """Return the bytes that one token takes in the cache of keys and values, over all layers."""
    return 2 * arch.num_hidden_layers * arch.num_key_value_heads * arch.head_dim * dtype.itemsize


def _rope_parameters(config: Mapping[str, object], where: str) -> RopeParameters:
    # transformers 5 writes rope_parameters; 4 writes rope_theta beside rope_scaling, whose kind was once called type.
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping) or any(isinstance(value, Mapping) for value in given.values()):
        raise ModelError(f"{where}: RoPE parameters per layer type are not supported")
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind not in ROPE_FIELDS:
        raise ModelError(
            f"{where}: the RoPE scaling {kind!r} is not supported", hint=f"supported: {', '.join(ROPE_FIELDS)}"
        )
    _refuse_others(given, {"partial_rotary_factor": 1.0}, where)
    get = _Reader({"rope_theta": 10000.0, **config, **given}, where)
    scaling = {name: get.number(name) for name in ROPE_FIELDS[kind]}
    if kind == "llama3" and scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
        raise ModelError(f"{where}: high_freq_factor must be above low_freq_factor")
    trained = get.integer("original_max_position_embeddings", get.integer("max_position_embeddings"))
    return RopeParameters(
        rope_type=kind,
        rope_theta=get.number("rope_theta"),
        original_max_position_embeddings=trained if kind == "llama3" else 0,
        **scaling,
    )


def _refuse_others(config: Mapping[str, object], fixed: Mapping[str, object], where: str) -> None:
    for key, value in fixed.items():
        if config.get(key) not in (None, value):
            raise ModelError(f"{where}: {key} = {config[key]!r} is not supported, only {value!r} is")


@frozen
class _Reader:
    """Typed access to a config.json, where null means absent."""

    config: Mapping[str, object]
    where: str

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0 or (value == 0 and default != 0):
            raise self._wrong(name, value, "a positive whole number")
        return value

    def number(self, name: str) -> float:
        value = self._value(name, None)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise self._wrong(name, value, "a positive number")
        return float(value)

    def switch(self, name: str) -> bool:
        value = self._value(name, False)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def _value(self, name: str, default: object) -> object:
        value = self.config.get(name)
        return default if value is None else value

    def _wrong(self, name: str, value: object, wanted: str) -> ModelError:
        return ModelError(f"{self.where}: {name} is {'missing' if value is None else repr(value)}, it must be {wanted}")
