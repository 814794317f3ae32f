"""Greedy decoding of one stream and the reading of a long prompt: our engine next to transformers' `generate`."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from bench.report import MODEL, ROOT, Report, Result, alternate
from lovecraft.engine import generate as engine
from lovecraft.engine.request import Request, SamplingParams
from lovecraft.tokenizer import load_tokenizer

OURS, PEER = "lovecraft", "transformers generate"
TEXT = ROOT / "projects" / "tales_dataset" / "texts" / "the_glass_harvest.txt"
Generate = Callable[[list[int], int], list[int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--rounds", type=int, default=7)


def run(args: argparse.Namespace) -> Report:
    """Load the model twice, then take turns; a round of a contender is one generation from an empty cache."""
    ids = load_tokenizer(args.model).encode(TEXT.read_text(encoding="utf-8"))
    contenders = {OURS: _ours(args.model, args.dtype), PEER: _peer(args.model, args.dtype)}
    results = []
    for work, prompt, tokens, counted in (
        ("decode 128 after a prompt of 32", ids[:32], 128, 128),
        ("read a prompt of 1024", ids[:1024], 1, 1024),
    ):
        timed = {who: _rate(generate, prompt, tokens, counted) for who, generate in contenders.items()}
        alternate(timed, 2)
        results += [Result(work, who, samples) for who, samples in alternate(timed, args.rounds).items()]
    agreed = _agreement(*(generate(ids[:32], 128) for generate in contenders.values()))
    notes = (f"bar: at least 2.2 × in decoding; the first {agreed} of 128 tokens are the same",)
    return Report("decode", f"tokens a second, {args.dtype}", results, (PEER,), notes)


def _rate(generate: Generate, prompt: list[int], tokens: int, counted: int) -> Callable[[], float]:
    def measure() -> float:
        begun = time.perf_counter()
        made = generate(prompt, tokens)
        seconds = time.perf_counter() - begun
        assert len(made) == tokens, "every contender makes as many tokens"
        return counted / seconds

    return measure


def _ours(path: Path, dtype: str) -> Generate:
    model, slot = engine.load(path, device="cpu", dtype=dtype, max_context=2048)

    def generate(prompt: list[int], tokens: int) -> list[int]:
        slot.ids.clear()  # else the prompt would come from the cache
        request = Request(tuple(prompt), tokens, SamplingParams(temperature=0.0))
        return [event for event in engine.generate(model, slot, request) if isinstance(event, int)]

    return generate


def _peer(path: Path, dtype: str) -> Generate:
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()

    def generate(prompt: list[int], tokens: int) -> list[int]:
        rows = torch.tensor([prompt])  # (1, T)
        greedy = transformers.GenerationConfig(do_sample=False, max_new_tokens=tokens, eos_token_id=None)
        with torch.inference_mode():
            made = model.generate(rows, attention_mask=torch.ones_like(rows), generation_config=greedy)
        return made[0, len(prompt) :].tolist()

    return generate


def _agreement(a: list[int], b: list[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
