"""A tokenizer, and texts on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lovecraft.tokenizer import Tokenizer, load_tokenizer
from tests.tiny import write_tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level BPE whose habit is to add BOS."""
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(path)
    return load_tokenizer(path)


@pytest.fixture
def texts(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes files, name → content, into a directory and returns it."""

    def make(files: dict[str, str | bytes]) -> Path:
        for name, content in files.items():
            path = tmp_path / "texts" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "texts"

    return make
