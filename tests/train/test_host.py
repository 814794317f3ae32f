"""An update on the host takes the same step to the bit, and leaves the device its weights alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lovecraft import SGD, Adafactor, AdamW
from lovecraft.checkpoint import load_model
from lovecraft.train import host
from lovecraft.train.host import OnHost
from lovecraft.train.optim.step import new_state
from tests.tiny import tiny_model_dir
from tests.train.bench import Bench
from tests.train.test_in_backward import assert_same

HOST = {"memory__optimizer_device": "host"}


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": SGD, "accumulation": 2},
        {"optimizer": AdamW, "max_grad_norm": 0.5},
        {"optimizer": AdamW, "model__dtype": "bfloat16", "max_grad_norm": 0.5, "accumulation": 3},
        {"optimizer": AdamW, "model__dtype": "bfloat16", "optimizer__rounding": "master", "max_grad_norm": 0.5},
        {"optimizer": AdamW, "model__dtype": "bfloat16", "optimizer__state_dtype": "bfloat16"},
        {"optimizer": Adafactor, "model__dtype": "bfloat16", "memory__offload": "block_inputs"},
    ],
)
def test_it_is_the_ordinary_step_to_the_bit_with_accumulation_and_clipping(
    bench: Bench, changes: dict[str, Any]
) -> None:
    here, there = bench.run("1"), bench.run("2")
    bench.train(bench.config(**changes, max_steps=3), here)
    bench.train(bench.config(**changes, **HOST, max_steps=3), there)
    assert_same(here, there)


def test_a_run_may_go_on_with_its_optimizer_elsewhere_and_says_that_it_does(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, parts = bench.run("1"), bench.run("2")
    bench.train(bench.config(eval=None), whole)
    bench.train(bench.config(**HOST, max_steps=3, eval=None), parts)
    bench.train(bench.config(eval=None), parts)
    assert "update on the host → on the device" in capfd.readouterr().err
    assert_same(whole, parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_it_holds_is_counted_exactly(tmp_path: Any, dtype: torch.dtype) -> None:
    model = load_model(tiny_model_dir(tmp_path / "m"), dtype=dtype, device=torch.device("cpu"))
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    updates = OnHost(AdamW(), parameters, new_state(AdamW(), parameters), seed=0)
    for _ in range(2):
        model.hidden(torch.zeros(1, 3, dtype=torch.int64)).sum().backward()
        (0 * model.head.sum()).backward()
    assert all(parameter.grad is None for parameter in parameters.values())
    updates._wait()
    held = [*updates._weights.values(), *updates._sums.found(parameters).values(), updates._landing]
    assert sum(tensor.nbytes for tensor in held) == host.host_bytes(parameters)


def test_an_error_in_adding_up_is_not_lost(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny_model_dir(tmp_path / "m"), dtype=torch.float32, device=torch.device("cpu"))
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    updates = OnHost(SGD(), parameters, {}, seed=0)

    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(type(updates._sums), "add", broken)
    with pytest.raises(MemoryError):  # noqa: PT012 - in backward, or where its end is waited for
        model.hidden(torch.zeros(1, 3, dtype=torch.int64)).sum().backward()
        updates.norm()
