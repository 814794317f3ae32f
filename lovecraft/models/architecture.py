"""What a model is made of, read from its Hugging Face config.json. Light: nothing here imports torch.

`Architecture` keeps config.json's own field names. A config that asks for something we would not compute exactly
(another activation, an unknown RoPE scaling, quantised weights) is refused here, before any weight is read.
"""

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from lovecraft.config.resolve import resolve
from lovecraft.config.schema import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    RopeScaling,
    YarnScaling,
)
from lovecraft.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch


@frozen(kw_only=True)
class RopeParameters:
    """How positions turn into angles. The fields after `rope_theta` belong to the scaled kinds."""

    rope_type: str
    rope_theta: float
    factor: float = 1.0
    original_max_position_embeddings: int = 0  # of dynamic, llama3 and yarn: the context before it was scaled
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0  # what yarn multiplies queries and keys by


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
    max_window_layers: int = 0  # the first layer that has the window

    @property
    def context(self) -> int:
        """The tokens that it is made for. Some configs of scaled models still tell the context before."""
        rope = self.rope_parameters
        reach = rope.factor * rope.original_max_position_embeddings if rope.rope_type in ("dynamic", "yarn") else 0
        return max(self.max_position_embeddings, int(reach))


@frozen
class Family:
    """What transformers makes of a family's config.json."""

    network: str  # our class in lovecraft/models/<model_type>.py; config.json adds ForCausalLM
    defaults: Mapping[str, object] = field(factory=dict)  # what it takes where config.json is silent
    fixed: Mapping[str, object] = field(factory=dict)  # what it takes anyway; a config.json that says else is refused


QWEN = {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}
FAMILIES = {
    "llama": Family("Llama", {}, {"use_sliding_window": False}),
    "mistral": Family(
        "Mistral",
        {"num_key_value_heads": 8, "sliding_window": 4096},
        {"use_sliding_window": True, "max_window_layers": 0, "attention_bias": False, "mlp_bias": False},
    ),
    "qwen2": Family("Qwen2", QWEN, {"attention_bias": True, "mlp_bias": False}),
    "qwen3": Family("Qwen3", {**QWEN, "head_dim": 128}, {"mlp_bias": False}),
}

# Keys that would change the result, whoever reads them, with the one value that leaves it as we compute it.
FIXED: dict[str, object] = {
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "no_rope_layers": None,
    "num_local_experts": None,
    "num_experts": None,
    "use_qk_norm": False,
    "clip_qkv": None,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "logits_scaling": 1.0,
}
REMEDIES = {"quantization_config": "take the model that was quantised, or a GGUF of it"}

ROPE_FIELDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
YARN_FIELDS = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
ORIGINAL = "original_max_position_embeddings"
ROPE_KEYS = {
    *("rope_type", "type", "rope_theta", "partial_rotary_factor", ORIGINAL, "finetuned"),
    *ROPE_FIELDS["llama3"],
    *YARN_FIELDS,
}
SCALINGS: dict[type[RopeScaling], str] = {
    LinearScaling: "linear",
    DynamicScaling: "dynamic",
    Llama3Scaling: "llama3",
    YarnScaling: "yarn",
}


def read_architecture(path: Path, model: ModelConfig | None = None) -> Architecture:
    """Read the config.json of the model directory `path`, as transformers 4 or 5 spells it and as `model` changes it.

    Raises ModelError when it is missing, is of no known family, or asks for what we do not compute.
    """
    config = read_config(path) if model is None else config_of(path, model)
    return parse_architecture(config, str(path / "config.json"))


def config_of(path: Path, model: ModelConfig) -> dict[str, Any]:
    """Return the content of `path`/config.json with the RoPE scaling and the context that the options ask for."""
    return lengthened(scaled(read_config(path), model.rope_scaling), model.max_context)


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


def scaled(config: Mapping[str, Any], scaling: type[RopeScaling] | RopeScaling | None) -> dict[str, Any]:
    """Return the content of a config.json with another RoPE scaling, in the spelling that transformers 4 and 5 read.

    The context becomes the one trained on times the factor. Dynamic scaling takes the one trained on from
    max_position_embeddings, so there it stays. Raises ModelError like `read_architecture`, ConfigError for no kind.
    """
    if scaling is None:
        return dict(config)
    chosen = resolve(scaling)
    cls = next((cls for cls in SCALINGS if isinstance(chosen, cls)), None)
    if cls is None:
        names = ", ".join(known.__name__ for known in SCALINGS)
        raise ConfigError(
            f"rope_scaling is {type(chosen).__name__}, which is of no kind", hint=f"subclass one of {names}"
        )
    arch = parse_architecture(config, "config.json")
    rope, kind = arch.rope_parameters, SCALINGS[cls]
    trained = chosen.original_context or rope.original_max_position_embeddings or arch.max_position_embeddings
    options = {name: getattr(chosen, name) for name in cls.__options__ if name != "original_context"}
    options |= {ORIGINAL: trained} if kind in ("llama3", "yarn") else {}
    return {
        **{key: value for key, value in config.items() if key not in ("rope_parameters", ORIGINAL)},
        "rope_theta": rope.rope_theta,
        "rope_scaling": {"rope_type": kind} | {name: value for name, value in options.items() if value is not None},
        "max_position_embeddings": trained if kind == "dynamic" else int(trained * chosen.factor),
    }


def lengthened(config: Mapping[str, Any], context: int | None) -> dict[str, Any]:
    """Return the content of a config.json with a context of `context` tokens, if that is longer than its own.

    RoPE that was scaled from the old context keeps its frequencies. Raises ModelError where it cannot.
    """
    arch = parse_architecture(config, "config.json")
    if context is None or context <= arch.context:
        return dict(config)
    rope = arch.rope_parameters
    if rope.rope_type == "dynamic":
        raise ModelError(
            f"a context of {context} tokens is more than the {arch.context} that dynamic RoPE scaling reaches",
            hint="raise the scaling's factor",
        )
    kept = {ORIGINAL: rope.original_max_position_embeddings} if rope.original_max_position_embeddings else {}
    ropes = {key: {**config[key], **kept} for key in ("rope_scaling", "rope_parameters") if config.get(key)}
    return {**config, **ropes, "max_position_embeddings": context}


def parse_architecture(config: Mapping[str, object], where: str) -> Architecture:
    """Return the architecture that the content of a config.json describes; errors name it `where`."""
    model_type = str(config.get("model_type"))
    family = FAMILIES.get(model_type)
    classes = config.get("architectures")
    if family is None or classes not in (None, [], [f"{family.network}ForCausalLM"]):
        raise ModelError(
            f"{where}: model_type {model_type!r} with architectures {classes!r} is not supported",
            hint=f"supported: {', '.join(f'{known.network}ForCausalLM' for known in FAMILIES.values())}",
        )
    _refuse_others(config, {**FIXED, **family.fixed}, where)
    get = _Reader({**family.defaults, **config, **family.fixed}, where)
    heads, layers = get.integer("num_attention_heads"), get.integer("num_hidden_layers")
    hidden = get.integer("hidden_size")
    window, windowless = _window(get, layers)
    architecture = Architecture(
        model_type=model_type,
        vocab_size=get.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=get.integer("intermediate_size"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=get.integer("num_key_value_heads", heads),
        head_dim=get.integer("head_dim", hidden // heads),
        max_position_embeddings=get.integer("max_position_embeddings"),
        rms_norm_eps=get.number("rms_norm_eps"),
        rope_parameters=_rope_parameters(config, where),
        tie_word_embeddings=get.switch("tie_word_embeddings"),
        attention_bias=get.switch("attention_bias"),
        mlp_bias=get.switch("mlp_bias"),
        sliding_window=window,
        max_window_layers=windowless,
    )
    if heads % architecture.num_key_value_heads or architecture.head_dim % 2:
        raise ModelError(
            f"{where}: {heads} attention heads do not divide into {architecture.num_key_value_heads} "
            f"key-value heads, or the head size {architecture.head_dim} is odd"
        )
    return architecture


@functools.cache
def parameter_count(arch: Architecture) -> int:
    """Return how many numbers the network learns; a tied head counts once."""
    import torch

    from lovecraft.models import build

    return sum(parameter.numel() for parameter in build(arch, torch.float32, torch.device("meta")).parameters())


def kv_bytes_per_token(arch: Architecture, dtype: "torch.dtype") -> int:
    """Return the bytes that one token takes in the cache of keys and values, over all layers."""
    return 2 * arch.num_hidden_layers * arch.num_key_value_heads * arch.head_dim * dtype.itemsize


def _window(get: "_Reader", layers: int) -> tuple[int | None, int]:
    """Return the window and the first layer that has it. Raises ModelError where layer_types says something else."""
    window = get.integer("sliding_window", 0) if get.switch("use_sliding_window") else 0
    first = get.integer("max_window_layers", 0)
    if not window or first >= layers:
        window = first = 0
    kinds = ["sliding_attention" if window and index >= first else "full_attention" for index in range(layers)]
    if get.config.get("layer_types") not in (None, kinds):
        raise ModelError(
            f"{get.where}: layer_types = {get.config['layer_types']!r} is not supported: its window is "
            f"{window or None}, from layer {first} on",
            hint="use_sliding_window, sliding_window and max_window_layers must say the same as layer_types",
        )
    return window or None, first


def _rope_parameters(config: Mapping[str, object], where: str) -> RopeParameters:
    # transformers 5 writes rope_parameters; 4 writes rope_theta beside rope_scaling, whose kind was once called type.
    # Where a config has both, rope_scaling is the one that transformers 5 takes.
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(given, Mapping) or any(isinstance(value, Mapping) for value in given.values()):
        raise ModelError(f"{where}: RoPE parameters per layer type are not supported")
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind not in ROPE_FIELDS:
        raise ModelError(
            f"{where}: the RoPE scaling {kind!r} is not supported", hint=f"supported: {', '.join(ROPE_FIELDS)}"
        )
    _refuse_others(given, {"partial_rotary_factor": 1.0} | dict.fromkeys(given.keys() - ROPE_KEYS), where)
    get = _Reader({"rope_theta": 10000.0, **config, **given}, where)
    scaling: dict[str, Any] = {name: get.number(name) for name in ROPE_FIELDS[kind]}
    if kind == "llama3" and scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
        raise ModelError(f"{where}: high_freq_factor must be above low_freq_factor")
    context = get.integer("max_position_embeddings")
    if kind == "dynamic":
        scaling[ORIGINAL] = context
    if kind in ("llama3", "yarn"):  # a key beside rope_scaling goes before one inside, as in transformers 5
        scaling[ORIGINAL] = _Reader({**given, **config}, where).integer(ORIGINAL, context)
    if kind == "yarn":
        scaling |= _yarn(get, scaling["factor"])
    return RopeParameters(rope_type=kind, rope_theta=get.number("rope_theta"), **scaling)


def _yarn(get: "_Reader", factor: float) -> dict[str, Any]:
    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    ratio = magnitude(1.0)
    if get.config.get("mscale") and get.config.get("mscale_all_dim"):
        ratio = magnitude(get.number("mscale")) / magnitude(get.number("mscale_all_dim"))
    return {
        "beta_fast": get.number("beta_fast", 32.0),
        "beta_slow": get.number("beta_slow", 1.0),
        "truncate": get.switch("truncate", True),
        "attention_factor": get.number("attention_factor", ratio),
    }


def _refuse_others(config: Mapping[str, object], fixed: Mapping[str, object], where: str) -> None:
    for key, value in fixed.items():
        if config.get(key) not in (None, value):
            message = f"{where}: {key} = {config[key]!r} is not supported, only {value!r} is"
            raise ModelError(message, hint=REMEDIES.get(key, ""))


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

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise self._wrong(name, value, "a positive number")
        return float(value)

    def switch(self, name: str, default: bool = False) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def _value(self, name: str, default: object) -> object:
        value = self.config.get(name)
        return default if value is None else value

    def _wrong(self, name: str, value: object, wanted: str) -> ModelError:
        return ModelError(f"{self.where}: {name} is {'missing' if value is None else repr(value)}, it must be {wanted}")
