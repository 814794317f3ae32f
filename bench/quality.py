"""The loss of a checkpoint on disjoint full windows of a text: the measure that the reference numbers use.

    python -m bench.quality CHECKPOINT TEXT [--window 1024]

Weights are taken to float32 first (the masters, where the checkpoint holds any). No BOS; a window's first token is not
predicted.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open

from lovecraft.checkpoint import load_model
from lovecraft.tokenizer import load_tokenizer


def window_loss(checkpoint: Path, text: str, window: int) -> tuple[float, int]:
    """Return (mean loss in nats, number of targets) of `text` in disjoint full windows of `window` tokens."""
    model = load_model(checkpoint, dtype=torch.float32, device=torch.device("cpu"))
    _take_masters(model, checkpoint / "trainer")
    ids = load_tokenizer(checkpoint).encode(text)
    total, targets = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(ids) - window + 1, window):
            row = torch.tensor([ids[start : start + window]])
            logits = model(row)[0, :-1]
            total += float(F.cross_entropy(logits, row[0, 1:], reduction="sum"))
            targets += window - 1
    return total / targets, targets


def _take_masters(model: torch.nn.Module, trainer: Path) -> None:
    """Replace the weights by the float32 masters of a checkpoint's optimizer state, where it has them."""
    parameters = dict(model.named_parameters())
    for file in trainer.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  a handle is no mapping
                parameter, _, slot = name.rpartition("/")
                if slot == "master" and parameter in parameters:
                    parameters[parameter].data.copy_(opened.get_tensor(name))


def main(words: Sequence[str] | None = None) -> None:
    """Print the loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--window", type=int, default=1024)
    args = parser.parse_args(words)
    loss, targets = window_loss(args.checkpoint, args.text.read_text(encoding="utf-8"), args.window)
    print(f"loss {loss:.4f} over {targets:,} targets in windows of {args.window}")


if __name__ == "__main__":
    main()
