"""The options of a model: where it comes from, how its positions are stretched, and what a new one looks like.

Part of the schema, which names them all: see schema.py.
"""

from typing import Annotated, Literal

from lovecraft.config.base import Config
from lovecraft.config.values import Location, ge, gt


class RopeScaling(Config):
    """How to stretch the positions of a model beyond the context that it was trained on."""

    factor: Annotated[float, ge(1)] = 2.0
    """Times the context trained on, which becomes the model's context."""

    original_context: Annotated[int, gt(0)] | None = None
    """The context trained on; none takes the model's, before any scaling."""


class LinearScaling(RopeScaling):
    """All positions closer together (Chen et al., 2023)."""


class DynamicScaling(RopeScaling):
    """A longer base for a longer text, as it grows; up to the context trained on nothing changes."""


class Llama3Scaling(RopeScaling):
    """Long waves slower, short ones kept, as in Llama 3.1."""

    low_freq_factor: Annotated[float, gt(0)] = 1.0
    """Waves that turn fewer times over the context trained on are slowed down by the whole factor."""

    high_freq_factor: Annotated[float, gt(0)] = 4.0
    """Waves that turn more often are kept."""


class YarnScaling(RopeScaling):
    """Long waves slower, short ones kept, attention sharper (Peng et al., 2023)."""

    beta_fast: Annotated[float, gt(0)] = 32.0
    """Waves that turn more often over the context trained on are kept."""

    beta_slow: Annotated[float, gt(0)] = 1.0
    """Waves that turn fewer times are slowed down by the whole factor."""

    attention_factor: Annotated[float, gt(0)] | None = None
    """What queries and keys are multiplied by; none takes 0.1 ln(factor) + 1."""


class Init(Config):
    """A new model of the Llama family, with random weights and the vocabulary of the dataset's tokenizer."""

    hidden_size: Annotated[int, gt(0)] = 384
    """Numbers that stand for one token."""

    intermediate_size: Annotated[int, gt(0)] = 1024
    """Width of a block's feed-forward network."""

    num_hidden_layers: Annotated[int, gt(0)] = 8
    """Blocks."""

    num_attention_heads: Annotated[int, gt(0)] = 6
    """Query heads, which share hidden_size."""

    num_key_value_heads: Annotated[int, gt(0)] | None = None
    """Heads of keys and values, each for several query heads; none is one for each."""

    max_position_embeddings: Annotated[int, gt(0)] = 2048
    """The context, in tokens."""

    rope_theta: Annotated[float, gt(0)] = 10_000.0
    """Base of the rotary positions; a longer context takes a larger one."""

    rms_norm_eps: Annotated[float, gt(0)] = 1e-5
    """Added to the mean square in a norm."""

    tie_word_embeddings: bool = True
    """Use the embedding as the head too, which spares a small model many weights."""


class ModelConfig(Config):
    """Which model to start from."""

    path: Location | None = None
    """A model directory in Hugging Face layout, a GGUF file, or a model of the hub as hf:org/name[@revision]."""

    init: type[Init] | None = None
    """Start from a new model with random weights, instead of from `path`."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights in memory; auto is bfloat16 where the device computes in it, else float32."""

    max_context: Annotated[int, gt(0)] | None = None
    """Longest context in tokens; none takes the model's own."""

    rope_scaling: type[RopeScaling] | None = None
    """How to stretch positions beyond the context trained on; none keeps the model's own way."""
