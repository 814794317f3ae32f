"""`lc show MODEL`: what a model directory holds and what serving it costs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lovecraft.checkpoint import load_model
from tests.tiny import tiny_model_dir

Command = Callable[..., Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Make a tiny model's directory."""
    tiny_model_dir(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_the_numbers_are_those_of_the_loaded_model(lc: Command, model: Path) -> None:
    found = json.loads(lc("show", model, "--json").out)
    loaded = load_model(model, dtype=torch.float32, device=torch.device("cpu"))
    assert found["parameters"] == sum(p.numel() for p in loaded.parameters())
    assert found["bytes"] == sum(file.stat().st_size for file in model.glob("*.safetensors"))
    assert found["kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 2  # keys and values, layers, heads, elements, bytes each
    assert (found["family"], found["layers"], found["vocabulary"], found["context"]) == ("llama", 2, 300, 512)
    assert found["licence"] == "unknown"


def test_the_table_says_the_same_for_people(lc: Command, model: Path) -> None:
    done = lc("show", model)
    assert done.code == 0
    assert "kv bytes per token  256 (256 B)" in done.out
    assert "heads               4 (2 key-value) of 16" in done.out


@pytest.mark.parametrize(
    ("name", "text", "licence"),
    [
        ("LICENSE", "\n  Apache License\nVersion 2.0\n", "Apache License"),
        ("README.md", "---\nlicense: mit\n---\n", "mit"),
        ("README.md", "# No licence\n", "unknown"),
    ],
)
def test_the_licence_is_found_where_models_have_it(
    lc: Command, model: Path, name: str, text: str, licence: str
) -> None:
    (model / name).write_text(text)
    assert json.loads(lc("show", model, "--json").out)["licence"] == licence


def test_a_gguf_file_is_to_be_converted_first(lc: Command, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    done = lc("show", "a.gguf")
    assert (done.code, done.out) == (2, "")
    assert "lc convert" in done.err


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"architectures": ["Nobody"]}'])
def test_a_directory_with_a_wrong_config_is_an_error(lc: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(text)
    done = lc("show", "m")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
