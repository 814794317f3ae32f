"""Pairs of one tiny model: ours and transformers'."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from lovecraft.checkpoint import load_model
from lovecraft.models.llama import Llama
from tests.tiny import VOCABULARY, tiny_model_dir

CPU = torch.device("cpu")

Pair = Callable[..., tuple[Llama, PreTrainedModel]]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Make torch.randn the same in each test."""
    torch.manual_seed(0)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Return a maker of the same model twice, in `dtype`: `ours, theirs = pair("mistral", sliding_window=8)`."""

    def make(family: str, dtype: torch.dtype = torch.float32, **changes: object) -> tuple[Llama, PreTrainedModel]:
        path = tiny_model_dir(tmp_path / "model", family, torch_dtype=str(dtype).removeprefix("torch."), **changes)
        theirs = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        return load_model(path, dtype=dtype, device=CPU), theirs.eval()

    return make


@pytest.fixture
def ours(tmp_path: Path) -> Callable[..., Llama]:
    """Return a maker of our half alone."""

    def make(family: str = "llama", **changes: object) -> Llama:
        return load_model(tiny_model_dir(tmp_path / "model", family, **changes), dtype=torch.float32, device=CPU)

    return make


@pytest.fixture
def ids() -> Callable[[int, int], torch.Tensor]:
    """Return a maker of random ids (rows, tokens), the same at each call."""

    def make(rows: int, tokens: int) -> torch.Tensor:
        return torch.randint(0, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(1))

    return make
