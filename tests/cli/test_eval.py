"""`lc eval`: of a config, a run, a model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft.train.metrics import read
from tests.tiny import tiny_model_dir

Lc = Callable[..., Any]


@pytest.fixture(autouse=True)
def model(workspace: Path) -> Path:
    """Put the workspace's model in its place."""
    return tiny_model_dir(workspace / "models" / "tiny", max_position_embeddings=128)


def measured(lc: Lc, *words: str | Path) -> dict[str, Any]:
    done = lc("eval", *words, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_config_is_its_base_model_and_a_run_its_checkpoint(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    before, *_, after = read(workspace / "runs" / "tiny" / "default" / "001")
    base, trained = measured(lc, "tiny"), measured(lc, "tiny/default/001")
    assert list(base) == ["loss", "perplexity", "bits_per_byte", "tokens", "documents"]
    assert base["loss"] == pytest.approx(before["loss"], rel=1e-6)
    assert trained["loss"] == pytest.approx(after["loss"], rel=1e-6)
    assert base["tokens"] == trained["tokens"] == before["tokens"]
    assert base["documents"] == 1
    said = lc("eval", "tiny").err
    assert str(workspace / "models" / "tiny") in said
    assert "lc eval tiny/default/NNN" in said
    assert "step-00000004" in lc("eval", "tiny/default/001").err


def test_a_model_is_measured_on_the_dataset_that_is_named(lc: Lc, workspace: Path, model: Path) -> None:
    flags = ("--dataset", "texts", "--model.dtype", "float32", "--device", "cpu")
    assert measured(lc, model, *flags, "--batch-size", "2") == measured(lc, "tiny")
    assert measured(lc, model, *flags, "--split", "train")["documents"] == 2


def test_a_model_without_a_dataset_says_what_is_missing(lc: Lc, model: Path) -> None:
    done = lc("eval", model)
    assert done.code == 2
    assert "--dataset" in done.err


def test_a_missing_split_is_named_with_those_there_are(lc: Lc) -> None:
    done = lc("eval", "tiny", "--split", "test")
    assert done.code == 2
    assert "no test split" in done.err
    assert "train, validation" in done.err


def test_a_run_without_checkpoint_says_so(lc: Lc) -> None:
    lc("train", "tiny", "--save", "none")
    done = lc("eval", "tiny/default/001")
    assert done.code == 2
    assert "has no checkpoint" in done.err


def test_a_missing_checkpoint_is_named_with_those_there_are(lc: Lc) -> None:
    lc("train", "tiny", "--save.every", "3")
    done = lc("eval", "tiny/default/001", "--checkpoint", "77")
    assert done.code == 2
    assert "has no 77 checkpoint" in done.err
    assert "it has 3, 4" in done.err


def test_people_get_a_table(lc: Lc) -> None:
    done = lc("eval", "tiny", "--eval.max-blocks", "2")
    head, row = done.out.splitlines()
    assert head.split() == ["split", "loss", "perplexity", "bits", "per", "byte", "tokens", "documents"]
    assert row.split()[0] == "validation"
    assert row.split()[3] == "–", "of a part of the blocks there are no bytes to count"
