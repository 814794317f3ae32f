"""Seconds until a model is loaded, and the memory that it takes: ours next to transformers, on the CPU.

Each sample is a process of its own that loads twice and times the second load, when all modules are imported and the
file is in the page cache. Every weight is read once behind that, so that the peak has what a mapping puts off.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import attrs
import psutil
import torch

from bench.report import MODEL, ROOT, Report, Result, alternate

OURS, PEER = "lovecraft", "transformers"
WORKS = {
    "float32, as we write it": ("ours", "float32"),
    "float32, as safetensors writes it": ("theirs", "float32"),
    "float32 to bfloat16": ("ours", "bfloat16"),
}


@attrs.frozen
class Measured:
    """One process."""

    seconds: float
    peak: int
    """The most memory that it held beyond what it held before, in bytes, pages of the file included."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--rounds", type=int, default=5)


def run(args: argparse.Namespace) -> Report:
    """Write the model's float32 weights in both ways, then let the contenders take turns."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        write(args.model, Path(folder))
        for work, (place, dtype) in WORKS.items():
            turns = {who: partial(_measure, who, Path(folder, place), dtype) for who in (OURS, PEER)}
            for who, some in alternate(turns, args.rounds).items():
                peak = max(one.peak for one in some) / 1e9
                results.append(Result(work, who, [one.seconds for one in some], peak))
    return Report(
        "load", "seconds", results, (PEER,), ("bar: at most 1 ×; peak at most 1.15 × the file or the weights",)
    )


def write(model: Path, folder: Path) -> None:
    """Write `model` to folder/ours as `save_model` does, and to folder/theirs as the safetensors library does."""
    from safetensors.torch import load_file, save_file

    from lovecraft.checkpoint import WEIGHTS, load_model, save_model

    network = load_model(model, dtype=torch.float32, device=torch.device("cpu"))
    for place in ("ours", "theirs"):
        save_model(folder / place, network, like=model, dtype=torch.float32)
    weights = folder / "theirs" / WEIGHTS
    save_file({name: tensor.clone() for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})


def _measure(who: str, path: Path, dtype: str) -> Measured:
    command = [sys.executable, "-m", "bench.load", who, str(path), dtype]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return Measured(**json.loads(done.stdout))


def child(who: str, path: Path, dtype: torch.dtype) -> Measured:
    """Load the model twice in this process."""
    if who == OURS:
        from lovecraft.checkpoint import load_model

        load = partial(load_model, path, dtype=dtype, device=torch.device("cpu"))
    else:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        load = partial(transformers.AutoModelForCausalLM.from_pretrained, path, dtype=dtype)
    before = psutil.Process().memory_info().rss
    load()
    begun = time.perf_counter()
    model = load()
    seconds = time.perf_counter() - begun
    for parameter in model.parameters():
        parameter.sum()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    highest = int(status.split("VmHWM:")[1].split()[0]) * 1024
    return Measured(seconds, highest - before)


if __name__ == "__main__":
    who, path, dtype = sys.argv[1:]
    print(json.dumps(attrs.asdict(child(who, Path(path), getattr(torch, dtype)))))
