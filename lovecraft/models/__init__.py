"""Model families: our own networks with Hugging Face's parameter names. Light: torch comes with the first `build`."""

import importlib
from typing import TYPE_CHECKING

from lovecraft.models.architecture import Architecture, read_architecture

if TYPE_CHECKING:
    import torch

    from lovecraft.models.llama import Llama

__all__ = ["FAMILIES", "Architecture", "build", "read_architecture"]

FAMILIES = {
    "llama": "lovecraft.models.llama:Llama",
    "mistral": "lovecraft.models.mistral:Mistral",
}


def build(architecture: Architecture, dtype: "torch.dtype", device: "torch.device") -> "Llama":
    """Return a network with PyTorch's initial weights, or on the meta device with none."""
    import torch

    module, name = FAMILIES[architecture.model_type].split(":")
    with torch.device(device):
        model = getattr(importlib.import_module(module), name)(architecture)
    if device.type != "meta":
        torch.nn.init.normal_(model.model.embed_tokens.weight)
    return model.to(dtype)
