"""What `lc show MODEL` prints: what a model directory holds and what serving it costs."""

from pathlib import Path
from typing import Any

from lovecraft.cli import console
from lovecraft.errors import ModelError
from lovecraft.models.architecture import Architecture, RopeParameters, kv_bytes_per_token, parameter_count, read_config
from lovecraft.models.architecture import read_architecture as read

LICENCE_NAMES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")


def card(path: Path, *, as_json: bool) -> int:
    """Print the card of a model directory. Raises ModelError for a GGUF file, which is to be converted first."""
    if path.suffix == ".gguf":
        raise ModelError(f"{path.name} is a GGUF file", hint=f"`lc convert {path} DIR` makes a model directory of it")
    arch = read(path)
    facts = _facts(path, arch)
    if as_json:
        console.out_json(facts)
        return 0
    for name in ("bytes", "kv_bytes_per_token"):
        facts[name] = f"{facts[name]:,} ({console.size(facts[name])})"
    console.table(
        [(name.replace("_", " "), f"{fact:,}" if isinstance(fact, int) else str(fact)) for name, fact in facts.items()],
        ("model", str(path)),
        styles=("bold", "cyan"),
    )
    return 0


def _facts(path: Path, arch: Architecture) -> dict[str, Any]:
    import torch

    from lovecraft.checkpoint import read_headers

    kinds = sorted({stored.kind for stored in read_headers(path).values()})
    return {
        "family": arch.model_type,
        "parameters": parameter_count(arch),
        "layers": arch.num_hidden_layers,
        "hidden_size": arch.hidden_size,
        "heads": f"{arch.num_attention_heads} ({arch.num_key_value_heads} key-value) of {arch.head_dim}",
        "context": arch.context,
        "sliding_window": arch.sliding_window or "none",
        "rope": _rope(arch.rope_parameters),
        "vocabulary": arch.vocab_size,
        "head": "tied to the embedding" if arch.tie_word_embeddings else "its own",
        "weights": ", ".join(kinds),
        "bytes": sum(file.stat().st_size for file in path.glob("*.safetensors")),
        "kv_bytes_per_token": kv_bytes_per_token(arch, torch.bfloat16),
        "licence": _licence(path),
    }


def _rope(rope: RopeParameters) -> str:
    scaling = "" if rope.rope_type == "default" else f", {rope.rope_type} × {rope.factor:g}"
    return f"theta {rope.rope_theta:g}{scaling}"


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
