"""Train with 4096 tokens of context on one 24 GB GPU."""

import workspace
from lovecraft import derived
from projects.lovecraft_dataset.k4 import Dataset


class Train(workspace.Train):
    dataset = Dataset
    epochs = 3

    @derived
    def batch_size(self) -> int:
        return max(1, 16_384 // self.dataset.block_size)  # 16K tokens fit 24 GB
