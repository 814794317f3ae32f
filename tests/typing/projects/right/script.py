"""A script over configs: what the functions return is known to a checker."""

from typing import assert_type

import lovecraft
from lovecraft import TrainConfig
from projects.right.default import Train

config = lovecraft.resolve(Train)
assert_type(config, Train)
assert_type(config.batch_size, int)
assert_type(config.dataset.block_size, int)
assert_type(Train.dataset.block_size, int)
assert_type(lovecraft.resolve(config), Train)
assert_type(lovecraft.load("right", kind=TrainConfig), type[TrainConfig])
short = lovecraft.override(Train, {"max_steps": 3})
print(lovecraft.show(short), lovecraft.show("right"), lovecraft.diff(Train, short))
