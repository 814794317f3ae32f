"""Keys and values of the tokens seen so far, so that the next token costs one row instead of all."""

import torch
from torch import Tensor

from lovecraft.models.architecture import Architecture


class KVCache:
    """Preallocated keys and values of every layer; the first `length` positions of each row are filled."""

    def __init__(
        self, architecture: Architecture, batch: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        heads, size = architecture.num_key_value_heads, architecture.head_dim
        shape = (architecture.num_hidden_layers, 2, batch, heads, capacity, size)  # (L, 2, B, Hkv, S, Dh)
        self.store = torch.empty(shape, dtype=dtype, device=device)
        self.layers = [tuple(layer) for layer in self.store]  # keys and values, each (B, Hkv, S, Dh)
        self.capacity = capacity
        self.length = 0
        self.reach = 0  # length of the text whose chunks are being read, on which dynamic RoPE depends; 0 is unknown

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's newest keys and values (B, Hkv, T, Dh) after `length`; return views of all so far.

        The network moves `length` once all its layers have written.
        """
        tokens = keys.shape[2]
        stop = self.length + tokens
        assert stop <= self.capacity, (stop, self.capacity)
        all_keys, all_values = self.layers[layer]
        all_keys.narrow(2, self.length, tokens).copy_(keys)
        all_values.narrow(2, self.length, tokens).copy_(values)
        return all_keys.narrow(2, 0, stop), all_values.narrow(2, 0, stop)

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        assert 0 <= length <= self.length, (length, self.length)
        self.length = length
