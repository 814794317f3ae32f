"""Tiny models in Hugging Face layout: random weights, a real byte-level BPE tokenizer, nothing downloaded.

BOS has id 0 on purpose: code that tests an id for truth instead of for None breaks here. Norm weights are not all one
and biases not all zero, so a forgotten one shows.
"""

import functools
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

VOCABULARY = 300
BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 0, 1

TEXT = """\
The lamp on the pier had burned for eleven winters, and in all that time nobody had seen the hand that lit it. \
The old keeper said that the sea itself came up the stairs at dusk; the children said that the keeper was dead. \
I came to the town in the autumn, with a letter and a small black trunk, and took the room above the harbour. \
At night I heard the water under the boards. It was not the sound of waves. It was the sound of something that \
counted, slowly, in a voice that had never needed to breathe, and each night it counted one number further.
"""

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

# Where a family's config.json differs from Llama's.
OF_FAMILY: dict[str, dict[str, object]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {"attention_bias": True, "use_sliding_window": False},
    "qwen3": {"use_sliding_window": False},
}

CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "torch_dtype": "float32",
    "use_cache": True,
}

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def tiny_model_dir(
    path: Path, family: str = "llama", *, add_bos: bool = True, seed: int = 0, **changes: object
) -> Path:
    """Write a model directory to `path`: config.json, model.safetensors, tokenizer files, generation_config.json.

    `changes` override the fields of config.json; `torch_dtype` also sets the type of the weights. Returns `path`.
    """
    path.mkdir(parents=True, exist_ok=True)
    config = tiny_config(family, **changes)
    _write_json(path / "config.json", config)
    _write_json(path / "generation_config.json", {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID})
    save_file(random_weights(config, seed), path / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(path, add_bos=add_bos)
    return path


def tiny_config(family: str = "llama", **changes: object) -> dict[str, object]:
    """Return the content of config.json."""
    return {"architectures": [ARCHITECTURES[family]], "model_type": family, **CONFIG, **OF_FAMILY[family], **changes}


def random_weights(config: dict[str, object], seed: int = 0) -> dict[str, Tensor]:
    """Return seeded weights under their Hugging Face names, large enough for attention to be far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, str(config["torch_dtype"]))

    def make(name: str, shape: tuple[int, ...]) -> Tensor:
        noise = torch.randn(shape, generator=generator)
        if name.endswith("norm.weight"):
            return (1 + 0.2 * noise).to(dtype)
        return (noise * (0.1 if len(shape) == 1 else 1.5 * shape[-1] ** -0.5)).to(dtype)

    return {name: make(name, shape) for name, shape in tensor_shapes(config).items()}


def tensor_shapes(config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor in a checkpoint of `config`."""
    vocab, width, inner = (int(str(config[key])) for key in ("vocab_size", "hidden_size", "intermediate_size"))
    head = int(str(config["head_dim"]))
    queries = int(str(config["num_attention_heads"])) * head
    keys = int(str(config["num_key_value_heads"])) * head
    linears = {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    biased = {"self_attn": config.get("attention_bias"), "mlp": config.get("mlp_bias")}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, width)}
    for layer in range(int(str(config["num_hidden_layers"]))):
        prefix = f"model.layers.{layer}"
        for name, shape in linears.items():
            shapes[f"{prefix}.{name}.weight"] = shape
            if biased[name.split(".")[0]] and (config["model_type"], name) != ("qwen2", "self_attn.o_proj"):
                shapes[f"{prefix}.{name}.bias"] = shape[:1]
        if config["model_type"] == "qwen3":
            shapes |= {f"{prefix}.self_attn.{name}_norm.weight": (head,) for name in "qk"}
        shapes[f"{prefix}.input_layernorm.weight"] = (width,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (width,)
    shapes["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, width)
    return shapes


def write_tokenizer(path: Path, *, add_bos: bool = True) -> None:
    """Write tokenizer.json and a tokenizer_config.json that says the same, with or without BOS put in front."""
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_str(_trained())
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
        )
    tokenizer.save(str(path / "tokenizer.json"))
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "add_bos_token": add_bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONFIG["max_position_embeddings"],
    }
    _write_json(path / "tokenizer_config.json", config)
    _write_json(path / "special_tokens_map.json", {"bos_token": BOS, "eos_token": EOS})


@functools.cache
def _trained() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    assert (tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)) == (BOS_ID, EOS_ID)
    return tokenizer.to_str()


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
