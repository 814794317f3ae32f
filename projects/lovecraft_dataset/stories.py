"""The complete works of H. P. Lovecraft."""

import os

from lovecraft import DatasetConfig
from workspace import ROOT


class Dataset(DatasetConfig):
    source = os.environ.get("LOVECRAFT_CORPUS", ROOT / "hp_lovecraft")  # a directory or the .tgz
    train = ("*.txt",)
    validation = ("the_call_of_cthulhu.txt",)  # held out of train by construction
    test = ("at_the_mountains_of_madness.txt",)
