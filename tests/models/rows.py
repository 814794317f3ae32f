"""One row for each thing that families differ in; what holds of a network is tested on all of them.

A row is the family and what its config.json changes in the tiny one of `tests.tiny`.
"""

from tests.tiny import LLAMA3_ROPE

WINDOW = 16  # shorter than most of the texts
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}

ROWS: dict[str, tuple[str, dict[str, object]]] = {
    "llama 2": ("llama", {"num_key_value_heads": 4}),
    "llama 3": ("llama", {"rope_theta": 500000.0}),
    "llama 3.1": ("llama", {"rope_theta": 500000.0, "rope_scaling": LLAMA3_ROPE}),
    "smollm2": ("llama", {"tie_word_embeddings": True, "rope_theta": 100000.0}),
    "llama with one key head": ("llama", {"num_key_value_heads": 1, "head_dim": 32}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral 0.1": ("mistral", {"sliding_window": WINDOW}),
    "mistral 0.3": ("mistral", {"rope_theta": 1000000.0}),
    "mistral nemo": ("mistral", {"head_dim": 24, "rope_theta": 1000000.0}),
    "qwen 2": ("qwen2", {"tie_word_embeddings": True, "rope_theta": 1000000.0}),
    "qwen 2.5": ("qwen2", {"rms_norm_eps": 1e-6, "sliding_window": WINDOW}),
    "qwen 2 with windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen 3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True, "rope_theta": 1000000.0}),
    "qwen 3 with biases and windows": (
        "qwen3",
        {"attention_bias": True, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 0},
    ),
    "linear": ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "dynamic": ("llama", {"max_position_embeddings": 64, "rope_scaling": {"rope_type": "dynamic", "factor": 3.0}}),
    "yarn": ("qwen3", {"rope_scaling": YARN}),
    "yarn with its own factors": (
        "qwen2",
        {"rope_scaling": {**YARN, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False, "attention_factor": 1.3}},
    ),
    "yarn with magnitudes": ("llama", {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}}),
}
