"""A tiny model directory, and services over a fake engine."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from lovecraft.tokenizer import Tokenizer, load_tokenizer
from tests.serving import CONTEXT, Made, serving
from tests.tiny import tiny_model_dir


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=CONTEXT)


@pytest.fixture(scope="session")
def tokenizer(model_dir: Path) -> Tokenizer:
    return load_tokenizer(model_dir)


@pytest.fixture
def make(tokenizer: Tokenizer) -> Iterator[Callable[..., Made]]:
    """Return a maker of services: `make(generate, policy="roll", max_queue=0)`."""
    with contextlib.ExitStack() as stack:

        def one(*args: Any, **options: Any) -> Made:
            return stack.enter_context(serving(tokenizer, *args, **options))

        yield one


@pytest.fixture
def client(make: Callable[..., Made]) -> TestClient:
    return make().client()
