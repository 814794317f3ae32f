"""`lc show MODEL`: what a model directory holds and what serving it costs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lovecraft.checkpoint import load_model
from lovecraft.hub import fetch
from tests.hub import hubs
from tests.tiny import LLAMA3_ROPE, tiny_model_dir

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


def test_a_gguf_file_has_a_card_too(lc: Command, model: Path, tmp_path: Path) -> None:
    assert lc("convert", model, tmp_path / "tiny.gguf", "--type", "q8_0").code == 0
    found, same = (json.loads(lc("show", path, "--json").out) for path in (tmp_path / "tiny.gguf", model))
    assert found.pop("weights") == "F32, Q8_0"
    assert found.pop("bytes") == (tmp_path / "tiny.gguf").stat().st_size
    assert found == {key: fact for key, fact in same.items() if key not in ("weights", "bytes")}


def test_what_is_no_gguf_file_is_an_error(lc: Command, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    done = lc("show", "a.gguf")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")


def test_a_model_of_the_hub_has_a_card_before_it_is_fetched(
    lc: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {file.name: file.read_bytes() for file in model.iterdir()}
    with hubs(monkeypatch, tmp_path / "huggingface") as serve_hub:
        hub = serve_hub({"org/tiny": files})
        fetch.cache_clear()
        found = json.loads(lc("show", "hf:org/tiny", "--json").out)
        shown = lc("show", f"hf:org/tiny@{hub.commit('org/tiny')}").out
        hub.close()
        fetch.cache_clear()
        offline = json.loads(lc("show", "hf:org/tiny", "--json").out)
    same = json.loads(lc("show", model, "--json").out)
    weights = load_model(model, dtype=torch.float32, device=torch.device("cpu")).parameters()
    assert found == {**same, "bytes": sum(parameter.nbytes for parameter in weights)}
    assert offline == {**same, "bytes": None, "weights": "unknown"}
    assert f"at commit {hub.commit('org/tiny')[:12]}" in shown
    assert not list((tmp_path / "huggingface").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("changes", "rope", "window"),
    [
        ({"rope_theta": 500000.0, "rope_scaling": LLAMA3_ROPE}, "theta 500,000, llama3 × 8 of 64 tokens", "none"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.5}}, "theta 10,000, linear × 2.5", "none"),
        ({"family": "mistral", "sliding_window": 96}, "theta 10,000", "96"),
    ],
)
def test_rope_and_window_are_told(changes: dict[str, Any], rope: str, window: str, lc: Command, tmp_path: Path) -> None:
    path = tiny_model_dir(tmp_path / "other", **changes)
    found = json.loads(lc("show", path, "--json").out)
    assert (found["rope"], found["sliding_window"]) == (rope, window)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"architectures": ["Nobody"]}'])
def test_a_directory_with_a_wrong_config_is_an_error(lc: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(text)
    done = lc("show", "m")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
