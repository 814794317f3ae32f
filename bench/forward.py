"""One forward pass over a text, without a cache: our network as it generates, as it trains, and transformers' own.

With all logits, and with those of the last token alone, which is what reading a prompt takes.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import Tensor

from bench.report import MODEL, Report, Result, alternate
from lovecraft.checkpoint import load_model
from lovecraft.models.inference import for_inference
from lovecraft.models.llama import Llama

GENERATING, TRAINING, PEER = "lovecraft", "lovecraft, as it trains", "transformers"
Forward = Callable[[Tensor], Tensor]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--rounds", type=int, default=15)


@torch.inference_mode()
def run(args: argparse.Namespace) -> Report:
    """Load the model three times, then take turns; a round of a contender is one pass over one row of random ids."""
    transformers.utils.logging.disable_progress_bar()
    dtype, cpu = getattr(torch, args.dtype), torch.device("cpu")
    plain = load_model(args.model, dtype=dtype, device=cpu)
    fused = for_inference(load_model(args.model, dtype=dtype, device=cpu))
    peer = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
    results = []
    for tokens in (512, 2048):
        ids = torch.randint(0, peer.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(0))
        for what, kept in (("all logits", tokens), ("the last logits", 1)):
            contenders: dict[str, Forward] = {
                GENERATING: _ours(fused, kept),
                TRAINING: _ours(plain, kept),
                PEER: lambda ids, kept=kept: peer(ids, use_cache=False, logits_to_keep=kept).logits,
            }
            timed = {who: _rate(forward, ids, kept) for who, forward in contenders.items()}
            alternate(timed, 2)
            samples = alternate(timed, args.rounds)
            results += [Result(f"{tokens} tokens, {what}", who, rates) for who, rates in samples.items()]
    return Report("forward", f"tokens a second, {args.dtype}", results, (PEER,), ("bar: at least 1.3 ×",))


def _ours(model: Llama, kept: int) -> Forward:
    return lambda ids: model.logits(model.hidden(ids)[:, -kept:])


def _rate(forward: Forward, ids: Tensor, kept: int) -> Callable[[], float]:
    def measure() -> float:
        begun = time.perf_counter()
        logits = forward(ids)
        seconds = time.perf_counter() - begun
        assert logits.shape[1] == kept
        return ids.shape[1] / seconds

    return measure
