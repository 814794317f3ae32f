"""The complete works in blocks of 4096 tokens."""

from projects.lovecraft_dataset import stories


class Dataset(stories.Dataset):
    block_size = 4096
    stride = 512
