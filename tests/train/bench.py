"""What makes configs over the tiny model and texts, and trains them; picklable, for children that are to be killed."""

from pathlib import Path
from typing import Any

import attrs
import numpy as np

from lovecraft import AdamW, Constant, DatasetConfig, ModelConfig, TrainConfig
from lovecraft.config.override import override
from lovecraft.config.resolve import resolve
from lovecraft.data.blocks import Blocks
from lovecraft.data.build import Built, build
from lovecraft.runs import Run
from lovecraft.tokenizer import Tokenizer
from lovecraft.train.loop import Outcome, train
from lovecraft.train.metrics import read

MAY_DIFFER = ("tokens_per_second", "memory", "seconds")


@attrs.frozen
class Bench:
    """Where a test trains."""

    model_dir: Path
    texts: Path
    tmp: Path
    tokenizer: Tokenizer

    def config(self, **changes: object) -> TrainConfig:
        """Return a config of six steps in float32; `changes` name options by `__` paths: `memory__offload="none"`."""
        where, corpus = self.model_dir, self.texts

        class Dataset(DatasetConfig):
            source = corpus
            validation = ("c.txt",)
            block_size = 24
            stride = 4

        class Model(ModelConfig):
            path = where
            dtype = "float32"

        class Optimizer(AdamW):
            lr = 1e-3

        class Train(TrainConfig):
            dataset = Dataset
            model = Model
            optimizer = Optimizer
            schedule = Constant
            batch_size = 2
            max_steps = 6
            epochs = 9.0
            device = "cpu"

        return resolve(override(Train, {name.replace("__", "."): value for name, value in changes.items()}))

    def built(self, config: TrainConfig) -> Built:
        """Return the blocks of a config's dataset."""
        return build(resolve(config.dataset), self.tokenizer, self.tmp / "cache")

    def run(self, name: str = "001") -> Run:
        """Return a run's directory without a record."""
        directory = self.tmp / "runs" / "tiny" / "default" / name
        directory.mkdir(parents=True, exist_ok=True)
        return Run(directory)

    def train(self, config: TrainConfig, run: Run) -> Outcome:
        """Train, or resume."""
        return train(config, run, self.built(config), self.tokenizer)


def packed(blocks: Blocks, size: int = 3) -> Blocks:
    """Return the same pieces, `size` of them in each block."""
    return attrs.evolve(blocks, starts=np.append(np.arange(0, len(blocks.table), size), len(blocks.table)))


def rows(run: Run) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl without what may differ between two runs of one record."""
    return [{key: value for key, value in row.items() if key not in MAY_DIFFER} for row in read(run.directory)]
