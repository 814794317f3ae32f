"""Say what this machine has, and how to get what is missing."""

import argparse
import os
import platform
import shutil
from pathlib import Path

from lovecraft.cli import console, target
from lovecraft.config.load import find_root
from lovecraft.config.modules import use
from lovecraft.errors import ConfigError

USAGE = "[--json]"
EXAMPLE = "lc doctor"
TAKES_OPTIONS = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc doctor`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one line a finding."""
    found = {**_machine(), **_workspace()}
    if args.json:
        console.out_json(found)
    else:
        console.table(list(found.items()), ("what", "found"), styles=("bold", ""))
    return 0


def _machine() -> dict[str, str]:
    import torch

    from lovecraft.device import resolve_device, resolve_dtype

    device = resolve_device("auto")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "device memory": console.size(torch.cuda.get_device_properties(device).total_memory)
        if device.type == "cuda"
        else "shared with the host",
        "weights (dtype = auto)": str(resolve_dtype("auto", device)).removeprefix("torch."),
        "processors": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}",
        "memory": console.size(memory),
        "free disk here": console.size(shutil.disk_usage(Path.cwd()).free),
        "compiler": shutil.which("c++") or "none (only torch.compile on a CPU would need one)",
    }


def _workspace() -> dict[str, str]:
    try:
        root = find_root()
    except ConfigError as error:
        return {"workspace": f"{error.message}; {error.hint}"}
    use(root)
    found = {"workspace": str(root)}
    model = target.workspace_model()
    if model is not None and model.path is not None:
        missing = isinstance(model.path, Path) and not model.path.exists()
        how = f" is missing; {target.how_to_get(Path(model.path))}" if missing else ""
        found["its Model"] = f"{model.path}{how}"
    return found
