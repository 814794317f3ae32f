"""Which device to compute on, and in which type."""

import re

import torch

from lovecraft.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """Return the device that the option `device` names; auto takes a GPU if there is one.

    Raises ConfigError when the name is unknown or the machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    named = re.fullmatch(r"(cpu|cuda|mps)(?::(\d+))?", name)
    if named is None:
        raise ConfigError(f"device {name!r} is unknown", hint="write auto, cpu, cuda, cuda:N or mps")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(named[2] or 0) >= there[named[1]]:
        raise ConfigError(f"this machine has no device {name!r}", hint="write auto to take what there is")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the type that the option `dtype` names; auto is bfloat16 where `device` computes in it, else float32."""
    if name == "auto":
        return torch.bfloat16 if _computes_bfloat16(device) else torch.float32
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in types:
        raise ConfigError(f"dtype {name!r} is unknown", hint=f"write auto, {', '.join(types)}")
    return types[name]


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        # One that is planned for and not here: every kind in the table of GPUs does.
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return False  # Apple's GPUs: only some do
