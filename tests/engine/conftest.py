"""A tiny model directory and its tokenizer."""

from pathlib import Path

import pytest

from lovecraft.tokenizer import Tokenizer, load_tokenizer
from tests.tiny import tiny_model_dir


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=64)


@pytest.fixture(scope="session")
def tokenizer(model_dir: Path) -> Tokenizer:
    return load_tokenizer(model_dir)
