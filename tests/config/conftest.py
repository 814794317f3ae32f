"""Configs written as files, loaded as users' are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft.config.load import load


@pytest.fixture
def define(workspace: Path, write: Callable[[str, str], Path]) -> Callable[..., Any]:
    """Return a function that writes a module `projects/p/NAME.py` and returns the config class it defines."""

    def one(text: str, name: str = "c") -> Any:
        write(f"projects/p/{name.partition(':')[0]}.py", text)
        return load(f"p/{name}").cls

    return one
