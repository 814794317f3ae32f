"""Loading a model for generation."""

from pathlib import Path

import torch

from lovecraft.checkpoint import load_model
from lovecraft.config.schema import ModelConfig
from lovecraft.device import resolve_device, resolve_dtype
from lovecraft.engine.batch import Batch, Slot
from lovecraft.engine.text import sentence_ends
from lovecraft.errors import ConfigError, ModelError
from lovecraft.models import read_architecture
from lovecraft.models.inference import for_inference
from lovecraft.models.kv_cache import KVCache
from lovecraft.tokenizer import Tokenizer


def load(
    path: Path,
    tokenizer: Tokenizer,
    *,
    device: str,
    dtype: str,
    max_context: int | None,
    model: ModelConfig | None = None,
    slots: int = 1,
) -> Batch:
    """Load a model directory for inference, as the options of `model` change it.

    There are `slots` places for requests, each for its whole context or for `max_context` tokens.
    Raises ModelError when it cannot be loaded, and ConfigError when it was not made for such a context.
    """
    architecture = read_architecture(path, model)
    own = architecture.context
    if max_context is not None and max_context > own:
        raise ConfigError(f"max_context is {max_context}, but the context of {path} is {own} tokens", hint="lower it")
    where = resolve_device(device)
    try:
        kind = resolve_dtype(dtype, where)
        network = for_inference(load_model(path, dtype=kind, device=where, architecture=architecture))
        windows, context = network.windows(), max_context or own
        places = [Slot(KVCache(architecture, 1, context, kind, where, windows)) for _ in range(slots)]
    except torch.OutOfMemoryError as error:
        fewer = "give a smaller --max-context" + (" or --max-concurrent" if slots > 1 else "")
        raise ModelError(f"{path} does not fit in memory: {error}", hint=fewer) from None
    return Batch(network, places, tokenizer.vocab_size, sentence_ends(tokenizer))
