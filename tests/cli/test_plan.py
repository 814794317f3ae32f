"""`lc plan`: the byte table, the steps, whether it fits."""

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


def planned(lc: Lc, *words: str) -> dict[str, Any]:
    return json.loads(lc("plan", "tiny", *words, "--json").out)


def test_the_plan_has_the_documented_shape_and_adds_up(lc: Lc) -> None:
    plan = planned(lc)
    assert list(plan) == ["parameters", "bytes", "peak", "limit", "fits", "steps", "tokens", "flops", "seconds"]
    assert list(plan["bytes"]) == ["weights", "gradients", "optimizer", "activations", "logits", "workspace"]
    assert plan["bytes"]["weights"] == 4 * plan["parameters"]
    assert plan["bytes"]["optimizer"] == 8 * plan["parameters"]
    assert plan["fits"]
    assert plan["seconds"] > 0


def test_steps_and_tokens_are_those_that_a_training_takes(lc: Lc, workspace: Path) -> None:
    plan = planned(lc)
    lc("train", "tiny")
    last = [row for row in read(workspace / "runs" / "tiny" / "default" / "001") if "lr" in row][-1]
    assert (plan["steps"], plan["tokens"]) == (last["step"], last["tokens"])


def test_the_time_follows_from_the_rate_that_is_given(lc: Lc) -> None:
    assert planned(lc, "--tflops", "1")["seconds"] == pytest.approx(10 * planned(lc, "--tflops", "10")["seconds"])


def test_what_does_not_fit_is_said_with_the_knobs(lc: Lc) -> None:
    done = lc("plan", "tiny", "--memory.limit", "0.0001")
    assert done.code == 1
    assert "does not fit" in done.out
    assert "batch_size" in done.out


@pytest.mark.parametrize("command", ["plan", "train"])
def test_without_a_train_split_there_is_nothing_to_plan_or_train(command: str, lc: Lc, workspace: Path) -> None:
    done = lc(command, "tiny", "--dataset.train", "")

    assert done.code == 2
    assert "the train split is empty" in done.err
    assert not (workspace / "runs").exists()


def test_a_wrong_rate_is_refused(lc: Lc) -> None:
    assert lc("plan", "tiny", "--tflops", "fast").code == 2
