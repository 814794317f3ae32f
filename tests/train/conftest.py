"""A tiny model, a few short texts, and a run's directory: what a training of a second takes."""

import os
from pathlib import Path

import pytest

from lovecraft.tokenizer import load_tokenizer
from tests.tiny import tiny_model_dir
from tests.train.bench import Bench

WORDS = ("night", "sea", "stone", "bell", "moor", "lamp", "tide")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that loses power may lose its files."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of five layers, hidden 64, whose embedding is its head."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    return tiny_model_dir(path, num_hidden_layers=5, tie_word_embeddings=True, max_position_embeddings=64)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short texts of unequal lengths, c.txt to be held out."""
    folder = tmp_path_factory.mktemp("texts")
    for name, seed, length in (("a", 3, 70), ("b", 5, 40), ("c", 4, 50)):
        words = [WORDS[(i * seed + i // 3) % 7] for i in range(length)]
        (folder / f"{name}.txt").write_text(" ".join(words) + ".\n", encoding="utf-8")
    return folder


@pytest.fixture
def bench(model_dir: Path, texts: Path, tmp_path: Path) -> Bench:
    """Return what makes and trains configs."""
    return Bench(model_dir, texts, tmp_path, load_tokenizer(model_dir))
