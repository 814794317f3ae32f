"""One training by transformers' Trainer on given token blocks: the peer of `bench.train`, a process of its own.

    python -m bench.trainer MODEL BLOCKS.npy --mode autocast --batch 4 --steps 10

Prints the seconds of each step and the process's peak memory in bytes as one line of JSON.
"""

import argparse
import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers

from lovecraft.train.memory import peak_memory

WEIGHTS = {"autocast": torch.float32, "pure": torch.bfloat16, "float32": torch.float32}


def train(model: Path, rows: np.ndarray, mode: str, batch: int, steps: int) -> list[float]:
    """Take `steps` steps on `rows` (N, T); return each one's seconds, what lies between two steps included."""
    network = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=WEIGHTS[mode])
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=5e-5,
            lr_scheduler_type="cosine",
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            bf16=mode == "autocast",
            use_cpu=True,
            dataloader_pin_memory=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        data = datasets.Dataset.from_dict({"input_ids": rows, "labels": rows}).with_format("torch")
        transformers.Trainer(model=network, args=arguments, train_dataset=data, callbacks=[clock]).train()
    return [after - before for before, after in pairwise(clock.times)]


class _Clock(transformers.TrainerCallback):
    """The times of the first step's begin and of each step's end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *args: Any, **others: Any) -> None:
        self.times.append(time.perf_counter())

    def on_step_end(self, *args: Any, **others: Any) -> None:
        self.times.append(time.perf_counter())


def main() -> None:
    """Train, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("blocks", type=Path)
    parser.add_argument("--mode", choices=list(WEIGHTS), default="autocast")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    seconds = train(args.model, np.load(args.blocks), args.mode, args.batch, args.steps)
    print(json.dumps({"seconds": seconds, "peak": peak_memory(torch.device("cpu"))}))


if __name__ == "__main__":
    main()
