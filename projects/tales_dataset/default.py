"""Twelve weird tales, written for this project, in blocks of 512 tokens."""

from pathlib import Path

from lovecraft import DatasetConfig


class Dataset(DatasetConfig):
    source = Path(__file__).parent / "texts"
    validation = ("the_keeper_of_thrale_light.txt",)  # held out of train by construction
    block_size = 512
    stride = 64
