"""Tokens a second and peak memory of full finetuning: `lc train` next to the Trainer of transformers.

Each contender trains the same model on the same full blocks of the shipped tales, in a process of its own, one after
the other. Samples are optimizer steps, without each process's first ones.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path

import attrs
import numpy as np

from bench.report import MODEL, ROOT, Report, Result, alternate
from bench.startup import LC
from lovecraft import resolve
from lovecraft.config.load import load
from lovecraft.data.build import build
from lovecraft.tokenizer import load_tokenizer
from lovecraft.train import metrics

BLOCKS = "blocks.npy"
WARM_UP = 2
OURS = {"stochastic": "lovecraft, stochastic rounding", "master": "lovecraft, float32 masters"}
PEERS = {"autocast": "Trainer, float32 + autocast", "pure": "Trainer, pure bf16"}
NAMES = OURS | PEERS
NOTE = """bar: 1.5 × at equal or less memory. At equal quality the peer is autocast (float32 weights, bf16 arithmetic):
rounding to nearest in pure bf16 loses most of what small updates teach."""
CONFIG = '''"""The same work for all contenders."""

from pathlib import Path

from lovecraft import AdamW, DatasetConfig, ModelConfig, TrainConfig


class Dataset(DatasetConfig):
    source = Path("{texts}")
    block_size = {block}
    stride = 0
    min_length = {block} - 1  # full blocks only


class Model(ModelConfig):
    path = Path("{model}")


class Optimizer(AdamW):
    lr = 5e-5


class Train(TrainConfig):
    dataset = Dataset
    model = Model
    optimizer = Optimizer
    max_grad_norm = 1.0
    epochs = 1000
    save = None
    eval = None
'''


@attrs.frozen
class Measured:
    """One process: the seconds of each step and the most bytes it held."""

    seconds: list[float]
    peak: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--block", type=int, default=512, help="tokens in a block")
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 4], help="blocks in a step")
    parser.add_argument("--steps", type=int, default=10, help=f"of each process; the first {WARM_UP} do not count")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--who", nargs="+", choices=list(NAMES), default=list(NAMES), help="contenders")


def run(args: argparse.Namespace) -> Report:
    """Let the contenders take turns for each batch size."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        _make_workspace(workspace, args)
        for batch in args.batch:
            measures = {who: _ours if who in OURS else _peer for who in args.who}
            contenders = {who: partial(measure, workspace, who, batch, args) for who, measure in measures.items()}
            for who, runs in alternate(contenders, args.rounds).items():
                rates = [batch * args.block / s for run in runs for s in run.seconds[WARM_UP:]]
                peak = max(run.peak for run in runs) / 1e9
                results.append(Result(f"{batch} × {args.block}", NAMES[who], rates, peak))
    peers = tuple(NAMES[who] for who in PEERS if who in args.who)
    return Report("train", "tokens a second", results, peers, (NOTE,))


def _make_workspace(workspace: Path, args: argparse.Namespace) -> None:
    """Write a workspace for `lc train`, and the token blocks that it trains on as a file for the others."""
    project = workspace / "projects" / "bench"
    project.mkdir(parents=True)
    (workspace / "workspace.py").write_text('"""A workspace for one benchmark."""\n', encoding="utf-8")
    texts = ROOT / "projects" / "tales_dataset" / "texts"
    config = CONFIG.format(texts=texts, block=args.block, model=args.model.resolve())
    (project / "default.py").write_text(config, encoding="utf-8")
    dataset = resolve(load("bench", root=workspace).cls).dataset
    blocks = build(dataset, load_tokenizer(args.model), workspace / ".lc" / "cache").splits["train"]
    np.save(workspace / BLOCKS, np.stack([block.input_ids for block in blocks]))  # (N, T)


def _ours(workspace: Path, rounding: str, batch: int, args: argparse.Namespace) -> Measured:
    """Measure `lc train`."""
    options = ["--optimizer.rounding", rounding, "--batch-size", str(batch), "--max-steps", str(args.steps)]
    output = _process([LC, "train", "bench", "--new", *options], workspace)
    rows = metrics.read(Path(output.strip()))
    ends = [0.0, *(row["seconds"] for row in rows)]
    return Measured([after - before for before, after in pairwise(ends)], rows[-1]["memory"])


def _peer(workspace: Path, mode: str, batch: int, args: argparse.Namespace) -> Measured:
    """Measure transformers' Trainer."""
    options = ["--mode", mode, "--batch", str(batch), "--steps", str(args.steps)]
    files = [str(args.model.resolve()), str(workspace / BLOCKS)]
    output = _process([sys.executable, "-m", "bench.trainer", *files, *options], ROOT)
    return Measured(**json.loads(output.splitlines()[-1]))


def _process(command: list[str], folder: Path) -> str:
    """Return the standard output of a command. Raises CalledProcessError, after printing what it said, if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    done.check_returncode()
    return done.stdout
