"""`lc plan`: the byte table, the steps, whether it fits."""

import itertools
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
    assert "does not fit: it needs about" in done.out
    assert "no change of an option makes it fit" in done.out


def test_the_flags_that_make_it_fit_do(lc: Lc) -> None:
    words = ("--batch-size", "16", "--memory.optimizer-in-backward", "on")
    limit = planned(lc, *words, "--memory.checkpointing", "block")["peak"] * 1.001 / 2**30
    words = (*words, "--memory.limit", f"{limit:.6f}", "--memory.checkpointing", "none")
    refused = lc("plan", "tiny", *words)
    assert refused.code == 1
    proposed = [line.split() for line in refused.out.splitlines() if line.startswith("  --")]
    assert ["--memory.checkpointing", "auto"] in proposed
    for flags in proposed:
        given = dict(zip(words[::2], words[1::2], strict=True)) | dict(zip(flags[::2], flags[1::2], strict=True))
        assert lc("plan", "tiny", *itertools.chain(*given.items())).code == 0


def test_what_cannot_fit_is_refused_before_there_is_a_run_and_with_the_same_flags(lc: Lc, workspace: Path) -> None:
    limit = planned(lc, "--batch-size", "16", "--accumulation", "4")["peak"] * 1.001 / 2**30
    done = lc("train", "tiny", "--memory.limit", f"{limit:.6f}", "--batch-size", "64", "--memory.checkpointing", "none")
    assert done.code == 2
    assert "does not fit" in done.err
    assert "\n  --batch-size 16 --accumulation 4\n" in done.err.partition("hint")[2]
    assert not (workspace / "runs").exists()


def test_a_gpu_is_planned_for_where_there_is_none(lc: Lc) -> None:
    plan = planned(lc, "--gpu", "4090", "--model.dtype", "auto")
    assert plan["limit"] == 23 * 2**30
    assert plan["bytes"]["weights"] == 2 * plan["parameters"]  # bfloat16
    faster = planned(lc, "--gpu", "H100", "--model.dtype", "auto")
    assert faster["limit"] > plan["limit"]
    assert faster["seconds"] == pytest.approx(plan["seconds"] * 165.2 / 989)
    assert planned(lc, "--gpu", "4090", "--memory.limit", "16")["limit"] == 16 * 2**30
    said = lc("plan", "tiny", "--gpu", "4090").out
    assert "4090's data sheet" in said
    assert "it fits" in said


def test_a_gpu_that_is_not_in_the_table_is_refused_with_those_that_are(lc: Lc) -> None:
    done = lc("plan", "tiny", "--gpu", "1080")
    assert done.code == 2
    assert "4090" in done.err


@pytest.mark.parametrize("command", ["plan", "train"])
def test_without_a_train_split_there_is_nothing_to_plan_or_train(command: str, lc: Lc, workspace: Path) -> None:
    done = lc(command, "tiny", "--dataset.train", "")

    assert done.code == 2
    assert "the train split is empty" in done.err
    assert not (workspace / "runs").exists()


def test_a_wrong_rate_is_refused(lc: Lc) -> None:
    assert lc("plan", "tiny", "--tflops", "fast").code == 2
