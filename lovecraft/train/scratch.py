"""A new model: its config.json from `ModelConfig.init`, its weights from a seed, kept as a model directory.

    CACHE/models/KEY/  config.json  generation_config.json  model.safetensors  and the tokenizer's files

The key is of all that makes it: the options, the tokenizer, the seed. Weights are drawn on the CPU in float32, so that
every device starts from the same ones.
"""

import json
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from lovecraft.checkpoint import save_model
from lovecraft.config.schema import Init
from lovecraft.data.build import cache_key
from lovecraft.errors import ConfigError
from lovecraft.files import locked, new_directory, write_atomic
from lovecraft.models import Architecture, build
from lovecraft.models.architecture import parse_architecture
from lovecraft.tokenizer import Tokenizer

FORMAT = 1  # raise it when other weights come of the same options
ROWS = 64  # the vocabulary is rounded up to a multiple of it, which suits matrix products
STD = 0.02


def build_model(init: Init, tokenizer: Tokenizer, seed: int, cache: Path, *, weights: bool = True) -> Path:
    """Return the directory of the model that `init` describes, made now if it is not there yet.

    Without `weights` there is only its config.json. Raises ConfigError for sizes that do not fit.
    """
    final, config = model_path(init, tokenizer, seed, cache, weights=weights), describe(init, tokenizer)
    with locked(final, "model"):
        if not final.exists():
            with new_directory(final) as directory:
                if weights:
                    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id")}
                    write_atomic(directory / "generation_config.json", json.dumps(ends) + "\n")
                    drawn = draw(parse_architecture(config, "model.init"), seed)
                    options: dict[str, Any] = {"dtype": torch.float32, "tokenizer": tokenizer.path, "config": config}
                    save_model(directory, drawn, like=directory, **options)
                else:
                    write_atomic(directory / "config.json", json.dumps(config))
    return final


def model_path(init: Init, tokenizer: Tokenizer, seed: int, cache: Path, *, weights: bool = True) -> Path:
    """Return the directory that `build_model` makes, or has made."""
    made_from = {"version": FORMAT, **_options(init), "tokenizer": tokenizer.fingerprint, "seed": seed}
    return cache / "models" / cache_key({**made_from, "weights": weights})


def describe(init: Init, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the content of config.json. Raises ConfigError where heads do not divide what they share."""
    heads, pairs = init.num_attention_heads, init.num_key_value_heads or init.num_attention_heads
    if init.hidden_size % (2 * heads) or heads % pairs:
        raise ConfigError(
            f"model.init: {heads} attention heads do not share hidden_size {init.hidden_size} in even parts, or "
            f"{pairs} key-value heads not them",
            hint="hidden_size must be a multiple of twice the heads, and these of the key-value heads",
        )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": -(-tokenizer.vocab_size // ROWS) * ROWS,
        **_options(init),
        "num_key_value_heads": pairs,
        "head_dim": init.hidden_size // heads,
        "attention_bias": False,
        "mlp_bias": False,
        "initializer_range": STD,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "torch_dtype": "float32",
    }


def draw(arch: Architecture, seed: int) -> dict[str, Tensor]:
    """Return seeded weights: norms are one, matrices normal with a deviation of 0.02.

    What writes to the residual stream is divided by the root of how often that happens, so that the stream does not
    grow with the depth (Radford et al., 2019: Language Models are Unsupervised Multitask Learners, section 2.3).
    """
    generator = torch.Generator().manual_seed(seed)
    quieter = (2 * arch.num_hidden_layers) ** -0.5
    weights = {}
    for name, like in build(arch, torch.float32, torch.device("meta")).state_dict().items():
        if like.dim() == 1:
            weights[name] = torch.ones(like.shape)
        else:
            std = STD * (quieter if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0)
            weights[name] = torch.empty(like.shape).normal_(0.0, std, generator=generator)
    return weights


def _options(init: Init) -> dict[str, Any]:
    """Return the library's options, without what a user's class adds for its derived values."""
    library: Any = Init
    return {name: getattr(init, name) for name in attrs.fields_dict(library)}
