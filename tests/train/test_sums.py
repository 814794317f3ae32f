"""Gradients of several passes add up in float32, whatever the weights are stored in."""

import torch

from lovecraft import SGD
from lovecraft.checkpoint import load_model
from lovecraft.train import state, updates
from lovecraft.train.sums import Sums
from tests.tiny import tiny_model_dir
from tests.train.bench import Bench, rows


def test_what_a_late_pass_brings_is_not_rounded_away() -> None:
    sums, whole = Sums(torch.device("cpu")), torch.zeros(3, dtype=torch.bfloat16)
    for _ in range(1000):
        gradient = torch.full((3,), 0.01, dtype=torch.bfloat16)
        sums.add("w", gradient)
        whole += gradient
    torch.testing.assert_close(sums.found(["w"])["w"], torch.full((3,), 10.0), rtol=2e-3, atol=0)
    assert whole[0] < 5  # in bfloat16 it is


def test_a_step_begins_at_zero_and_parameters_keep_their_order() -> None:
    sums = Sums(torch.device("cpu"))
    for name in ("b", "a"):
        sums.add(name, torch.ones(2))
    sums.forget()
    assert sums.found(["a", "b"]) == {}
    for name in ("b", "a"):
        sums.add(name, torch.full((2,), 3.0))
    assert list(sums.found(["a", "b", "c"])) == ["a", "b"]
    assert sums.found(["b"])["b"].tolist() == [3.0, 3.0]


def test_four_passes_are_one_of_four_times_the_batch_in_bfloat16(bench: Bench) -> None:
    found = {}
    for size, accumulation in ((4, 1), (1, 4)):
        run = bench.run(f"{size}{accumulation}")
        options = {"optimizer": SGD, "optimizer__lr": 0.1, "optimizer__rounding": "master", "eval": None}
        config = bench.config(
            batch_size=size, accumulation=accumulation, max_steps=1, model__dtype="bfloat16", **options
        )
        bench.train(config, run)
        directory = state.checkpoint_directory(run)
        assert directory is not None
        masters = state.read_optimizer(directory, torch.device("cpu"))
        start = load_model(bench.model_dir, dtype=torch.float32, device=torch.device("cpu")).state_dict()
        found[size] = rows(run)[0], {name: slots["master"] - start[name] for name, slots in masters.items()}
    (whole, theirs), (parts, ours) = found[4], found[1]
    assert abs(whole["loss"] - parts["loss"]) < 1e-3 * whole["loss"]
    assert abs(whole["grad_norm"] - parts["grad_norm"]) < 3e-3 * whole["grad_norm"]
    for name, moved in theirs.items():
        assert (ours[name] - moved).norm() < 0.02 * moved.norm(), name


def test_the_bytes_of_gradients_are_counted_exactly(tmp_path: object) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = load_model(tiny_model_dir(tmp_path / str(dtype)), dtype=dtype, device=torch.device("cpu"))  # type: ignore[operator]
        parameters = dict(model.named_parameters())
        plain = sum(p.nbytes for p in parameters.values())
        assert updates.gradient_bytes(parameters, passes=1) == plain
        largest = max(p.nbytes for p in parameters.values())
        summed = updates.gradient_bytes(parameters, passes=2)
        assert summed == (plain if dtype == torch.float32 else 2 * plain + largest)
