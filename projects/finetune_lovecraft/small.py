"""The 135M starter model on the complete works: a quarter of an hour on two CPU cores."""

import workspace
from lovecraft import AdamW, Cosine, ModelConfig
from projects.lovecraft_dataset import stories


class Dataset(stories.Dataset):
    block_size = 512
    stride = 0


class Model(ModelConfig):
    path = workspace.ROOT / "models" / "smollm2_135m"  # `make model` fetches it


class Optimizer(AdamW):
    lr = 5e-5


class Train(workspace.Train):
    dataset = Dataset
    model = Model
    optimizer = Optimizer
    schedule = Cosine
    batch_size = 4
    max_steps = 100  # 204,800 tokens
    max_grad_norm = 1.0
