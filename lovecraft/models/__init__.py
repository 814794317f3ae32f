"""Model families: our own networks with Hugging Face's parameter names. Light: torch comes with the first `build`."""

import importlib
from typing import TYPE_CHECKING

from lovecraft.models.architecture import FAMILIES, Architecture, read_architecture

if TYPE_CHECKING:
    import torch

    from lovecraft.models.llama import Llama

__all__ = ["FAMILIES", "Architecture", "build", "read_architecture"]


def build(architecture: Architecture, dtype: "torch.dtype", device: "torch.device") -> "Llama":
    """Return a network with PyTorch's initial weights, or on the meta device with none."""
    import torch

    module = importlib.import_module(f"lovecraft.models.{architecture.model_type}")
    with torch.device(device):
        model = getattr(module, FAMILIES[architecture.model_type].network)(architecture)
    if device.type != "meta":
        torch.nn.init.normal_(model.model.embed_tokens.weight)
    return model.to(dtype)
