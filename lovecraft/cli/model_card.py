"""What `lc show MODEL` prints: what a model is, what it holds and what serving it costs. No weight is read."""

from pathlib import Path
from typing import Any

from lovecraft.cli import console
from lovecraft.models.architecture import (
    Architecture,
    RopeParameters,
    kv_bytes_per_token,
    parameter_count,
    read_architecture,
    read_config,
)

LICENCE_NAMES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")


def card(name: str, path: Path, *, as_json: bool) -> int:
    """Print the card of the model `name`, a directory or a GGUF file at `path`, or of the hub with its settings there.

    Raises ModelError where it is no model that we know.
    """
    facts = _facts(name, path)
    if as_json:
        console.out_json(facts)
        return 0
    for key in ("bytes", "kv_bytes_per_token"):
        facts[key] = "unknown" if facts[key] is None else f"{facts[key]:,} ({console.size(facts[key])})"
    console.table(
        [(key.replace("_", " "), f"{fact:,}" if isinstance(fact, int) else str(fact)) for key, fact in facts.items()],
        ("model", f"{name} at commit {path.name[:12]}" if name.startswith("hf:") else str(path)),
        styles=("bold", "cyan"),
    )
    return 0


def _facts(name: str, path: Path) -> dict[str, Any]:
    import torch

    arch, kinds, size, licence = _of_gguf(path) if path.suffix == ".gguf" else _of_directory(name, path)
    return {
        "family": arch.model_type,
        "parameters": parameter_count(arch),
        "layers": arch.num_hidden_layers,
        "hidden_size": arch.hidden_size,
        "heads": f"{arch.num_attention_heads} ({arch.num_key_value_heads} key-value) of {arch.head_dim}",
        "context": arch.context,
        "sliding_window": _window(arch),
        "rope": _rope(arch.rope_parameters),
        "vocabulary": arch.vocab_size,
        "head": "tied to the embedding" if arch.tie_word_embeddings else "its own",
        "weights": ", ".join(kinds) or "unknown",
        "bytes": size,
        "kv_bytes_per_token": kv_bytes_per_token(arch, torch.bfloat16),
        "licence": licence,
    }


Weights = tuple[Architecture, list[str], int | None, str]
"""What a model is, the types of its weights, their bytes, and the licence."""


def _of_gguf(path: Path) -> Weights:
    from lovecraft.convert.gguf import open_gguf
    from lovecraft.convert.gguf_model import read_gguf

    source, kinds = read_gguf(path), {tensor.kind for tensor in open_gguf(path).tensors.values()}
    return source.architecture, sorted(kinds), path.stat().st_size, str(source.config.get("license", "unknown"))


def _of_directory(name: str, path: Path) -> Weights:
    arch, files = read_architecture(path), list(path.glob("*.safetensors"))
    from lovecraft.checkpoint import FLOATS, read_headers

    if name.startswith("hf:") and not files:
        from lovecraft.hub import weights_there

        counts = {kind: count for kind, count in weights_there(name).items() if kind in FLOATS}
        size = sum(count * FLOATS[kind].itemsize for kind, count in counts.items())
        return arch, sorted(counts), size or None, _licence(path)
    kinds = {stored.kind for stored in read_headers(path).values()}
    return arch, sorted(kinds), sum(file.stat().st_size for file in files), _licence(path)


def _window(arch: Architecture) -> str:
    if arch.sliding_window is None:
        return "none"
    return f"{arch.sliding_window:,}" + (f" from layer {arch.max_window_layers} on" if arch.max_window_layers else "")


def _rope(rope: RopeParameters) -> str:
    scaling = "" if rope.rope_type == "default" else f", {rope.rope_type} × {rope.factor:g}"
    trained = rope.original_max_position_embeddings
    return f"theta {rope.rope_theta:,.10g}{scaling}" + (f" of {trained:,} tokens" if trained else "")


def _licence(path: Path) -> str:
    """Return the first line of the licence's text, or what README.md or config.json name, or that it is unknown."""
    for name in LICENCE_NAMES:
        if (path / name).is_file():
            lines = (path / name).read_text(encoding="utf-8", errors="replace").split("\n")
            return next((line.strip() for line in lines if line.strip()), name)
    readme = path / "README.md"
    lines = readme.read_text(encoding="utf-8", errors="replace").splitlines() if readme.is_file() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("license:")), None)
    return str(named or read_config(path).get("license") or "unknown")
