"""The Llama family: pre-norm transformer blocks with rotary positions, grouped-query attention and SwiGLU.

Modules carry the names of Hugging Face checkpoints, so loading and saving is a copy. In comments: B rows, T tokens,
D hidden size, H query heads, Hkv key-value heads, Dh head size, V vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lovecraft.models.architecture import Architecture
from lovecraft.models.attention import attend, document_spans
from lovecraft.models.kv_cache import Attend, KVCache, Rows
from lovecraft.models.norm import RMSNorm
from lovecraft.models.rope import Rope, RopeTables, rotate

Block = Callable[[Tensor], Tensor]
RunBlock = Callable[[int, Block, Tensor], Tensor]


def call(index: int, block: Block, h: Tensor) -> Tensor:
    """Run one block as it is; training passes one that recomputes or offloads instead."""
    return block(h)


class Llama(nn.Module):
    """A Llama language model."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.model = Decoder(architecture, self.attention)
        untied = not architecture.tie_word_embeddings
        self.lm_head = nn.Linear(architecture.hidden_size, architecture.vocab_size, bias=False) if untied else None
        self.rope = RopeTables(architecture)

    def attention(self) -> "Attention":
        """Make the attention of one layer."""
        return Attention(self.architecture)

    def windows(self) -> list[int | None]:
        """Return for each layer how many tokens a token sees, itself included; None is all."""
        return [None] * self.architecture.num_hidden_layers

    @property
    def head(self) -> Tensor:
        """The output matrix (V, D); with a tied head, the embedding."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def hidden(
        self,
        input_ids: Tensor,
        *,
        cache: KVCache | Rows | None = None,
        run_block: RunBlock = call,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the hidden states (B, T, D) of input_ids (B, T) after the final norm.

        With a cache the tokens follow those in it and are added to it; with rows of caches, input_ids (1, B) holds one
        token for each. `run_block(index, block, h)` runs each block; the hidden state is the only tensor that a block
        takes as an argument. With `lengths`, input_ids is one row of documents of that many tokens, one behind the
        other: positions restart at each, attention stays inside each.
        """
        assert lengths is None or (cache is None and input_ids.shape == (1, sum(lengths))), (input_ids.shape, lengths)
        tokens = input_ids.shape[1]
        h = self.model.embed_tokens(input_ids)
        if cache is None:
            rope = self.rope.at(0, tokens, h) if lengths is None else self.rope.restarting(lengths, h)
            windows = self.windows()
            spans = {window: document_spans(lengths or [tokens], 0, window, h) for window in set(windows)}
            attends: list[Attend] = [partial(attend, documents=spans[window]) for window in windows]
        else:
            rope, attends = cache.begin(tokens, self.rope, h)
        for index, layer in enumerate(self.model.layers):
            h = run_block(index, partial(layer, rope=rope, attend=attends[index]), h)
        if cache is not None:
            cache.end(tokens)
        return self.model.norm(h)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden states (..., D), in their type."""
        return F.linear(hidden, self.head) if self.lm_head is None else self.lm_head(hidden)

    def forward(self, input_ids: Tensor, cache: KVCache | Rows | None = None) -> Tensor:
        """Return the logits (B, T, V) of input_ids (B, T), in the network's type."""
        return self.logits(self.hidden(input_ids, cache=cache))


class Decoder(nn.Module):
    """Embedding, blocks and final norm."""

    def __init__(self, arch: Architecture, attention: Callable[[], "Attention"]) -> None:
        super().__init__()
        # Without nn.Embedding's initialisation, which on the meta device spends most of a second on imports.
        table = torch.empty(arch.vocab_size, arch.hidden_size)
        self.embed_tokens = nn.Embedding.from_pretrained(table, freeze=False)
        self.layers = nn.ModuleList(DecoderLayer(arch, attention()) for _ in range(arch.num_hidden_layers))
        self.norm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)


class DecoderLayer(nn.Module):
    """One block: attention, then the MLP, each on a normalised copy and added back."""

    def __init__(self, arch: Architecture, attention: "Attention") -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)
        self.self_attn = attention
        self.post_attention_layernorm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)
        self.mlp = MLP(arch)

    def forward(self, h: Tensor, rope: Rope, attend: Attend) -> Tensor:
        """Transform h (B, T, D)."""
        h = h + self.self_attn(self.input_layernorm(h), rope, attend)
        return h + self.mlp(self.post_attention_layernorm(h))


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.head_dim = arch.head_dim
        queries, keys = arch.num_attention_heads * arch.head_dim, arch.num_key_value_heads * arch.head_dim
        self.q_proj = nn.Linear(arch.hidden_size, queries, bias=arch.attention_bias)
        self.k_proj = nn.Linear(arch.hidden_size, keys, bias=arch.attention_bias)
        self.v_proj = nn.Linear(arch.hidden_size, keys, bias=arch.attention_bias)
        self.o_proj = nn.Linear(queries, arch.hidden_size, bias=arch.attention_bias)

    def forward(self, x: Tensor, rope: Rope, attend: Attend) -> Tensor:
        """Attend within x (B, T, D), and to what the layer's cache holds if `attend` knows one."""
        q, k, v = (heads.transpose(1, 2) for heads in self.project(x, rope))  # (B, T, H, Dh) -> (B, H, T, Dh)
        return self.o_proj(attend(q, k, v).transpose(1, 2).flatten(2))  # (B, H, T, Dh) -> (B, T, H * Dh)

    def project(self, x: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries (B, T, H, Dh), rotated keys and values (B, T, Hkv, Dh) of x (B, T, D)."""
        by_head = (*x.shape[:2], -1, self.head_dim)  # (B, T, H * Dh) -> (B, T, H, Dh)
        q, k, v = self.q_proj(x).view(by_head), self.k_proj(x).view(by_head), self.v_proj(x).view(by_head)
        return *self.turn(q, k, rope), v

    def turn(self, q: Tensor, k: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
        """Return queries (B, T, H, Dh) and keys (B, T, Hkv, Dh) rotated to their positions."""
        return rotate(q, *rope), rotate(k, *rope)


class MLP(nn.Module):
    """SwiGLU feed-forward network (Shazeer, 2020)."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(arch.hidden_size, arch.intermediate_size, bias=arch.mlp_bias)
        self.up_proj = nn.Linear(arch.hidden_size, arch.intermediate_size, bias=arch.mlp_bias)
        self.down_proj = nn.Linear(arch.intermediate_size, arch.hidden_size, bias=arch.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform x (B, T, D)."""
        gate, up = self.gate_and_up(x)
        return self.down_proj(F.silu(gate) * up)

    def gate_and_up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both inner projections (B, T, inner) of x (B, T, D)."""
        return self.gate_proj(x), self.up_proj(x)
