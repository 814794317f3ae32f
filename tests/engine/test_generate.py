from pathlib import Path

import pytest

from lovecraft.engine.generate import load
from lovecraft.errors import ConfigError
from lovecraft.tokenizer import Tokenizer


def test_max_context_can_only_be_lowered(model_dir: Path, tokenizer: Tokenizer) -> None:
    assert load(model_dir, tokenizer, device="cpu", dtype="float32", max_context=40).context == 40
    with pytest.raises(ConfigError, match=r"max_context is 65.* 64 tokens"):
        load(model_dir, tokenizer, device="cpu", dtype="float32", max_context=65)
