"""What is wrong: each line's comment says what the checker must find there."""

import lovecraft
import workspace
from lovecraft import Constant, DatasetConfig, TrainConfig, derived


class Dataset(DatasetConfig):
    source = 3  # error: bad-assignment
    block_size = "512"  # error: bad-assignment
    format = "txt"  # error: bad-assignment
    train = "*.txt"  # error: bad-assignment
    shuffle = None  # error: bad-assignment


class Train(workspace.Train):
    dataset = Constant  # error: bad-assignment
    optimizer = None  # error: bad-assignment
    schedule = "cosine"  # error: bad-assignment
    max_steps = 5.5  # error: bad-assignment
    seed = None  # error: bad-assignment
    batch_size = "many"  # error: bad-assignment
    epochs = None  # error: bad-assignment
    save = Constant  # error: bad-assignment
    typo = 3  # only at run time: a new attribute is right for a checker

    @derived
    def accumulation(self) -> str:  # error: bad-override-mutable-attribute
        return "4"


print(lovecraft.resolve(Train).max_stepz)  # error: missing-attribute
print(Train.dataset.blocksize)  # error: missing-attribute
lovecraft.resolve(3)  # error: no-matching-overload
lovecraft.load(3)  # error: bad-argument-type
name: str = lovecraft.resolve(Train).batch_size  # error: bad-assignment
model: TrainConfig = lovecraft.load("right", kind=DatasetConfig)  # error: bad-assignment
