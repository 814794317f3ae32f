import pytest
import torch

from lovecraft.device import resolve_device, resolve_dtype
from lovecraft.errors import ConfigError

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.fixture
def machine(monkeypatch):
    """Return a function that lends this machine some GPUs, and native bfloat16 or not."""

    def lend(cuda=0, mps=False, bfloat16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bfloat16)

    return lend


def test_auto_takes_a_gpu_if_there_is_one(machine):
    for gpus, wanted in [({}, CPU), ({"mps": True}, MPS), ({"cuda": 2}, CUDA)]:
        machine(**gpus)
        assert resolve_device("auto") == wanted


def test_a_device_is_taken_as_named(machine):
    machine(cuda=2, mps=True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert resolve_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:x", "cuda:-1", "meta", "CPU"])
def test_an_unknown_device_is_refused(machine, name):
    machine(cuda=1)
    with pytest.raises(ConfigError, match="unknown") as caught:
        resolve_device(name)
    assert "cuda:N" in caught.value.hint


@pytest.mark.parametrize("name", ["cuda", "cuda:2", "mps"])
def test_a_device_that_is_not_there_is_refused(machine, name):
    machine(cuda=2 if name == "cuda:2" else 0)
    with pytest.raises(ConfigError, match="no device"):
        resolve_device(name)


def test_auto_dtype_is_bfloat16_only_where_the_device_computes_in_it(machine):
    for native, wanted in [(True, torch.bfloat16), (False, torch.float32)]:
        machine(cuda=1, bfloat16=native)
        assert resolve_dtype("auto", CPU) == wanted
        assert resolve_dtype("auto", CUDA) == wanted
        assert resolve_dtype("auto", MPS) == torch.float32


def test_a_dtype_is_taken_as_named():
    for name in ("float32", "bfloat16", "float16"):
        assert resolve_dtype(name, CPU) == getattr(torch, name)
    with pytest.raises(ConfigError, match="int8"):
        resolve_dtype("int8", CPU)
