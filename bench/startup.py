"""How long a command takes that loads nothing heavy, next to the imports that it cannot do without.

Besides this workspace: generated ones with 50 configs, with 1,000 config classes, and with a config of 120 options.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from bench.report import ROOT, Report, Result, alternate

LC = str(Path(sys.executable).parent / "lc")
IMPORTS = "import attrs, cattrs, rich"
COMMANDS = {
    IMPORTS: ([sys.executable, "-c", IMPORTS], "."),
    "lc --help": ([LC, "--help"], "."),
    "lc ls": ([LC, "ls"], "."),
    "lc ls, 50 configs": ([LC, "ls"], "fifty"),
    "lc ls, 1,000 config classes": ([LC, "ls"], "thousand"),
    "lc show": ([LC, "show", "finetune_lovecraft"], "."),
    "lc show, 120 options": ([LC, "show", "wide"], "wide"),
    "lc show --help, 120 options": ([LC, "show", "wide", "--help"], "wide"),
}
"""Each command, and where it runs: in this workspace, or in one that is generated."""

BARS = ("bar: at most 2.5 ×; for 1,000 config classes, one second",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--rounds", type=int, default=25)


def run(args: argparse.Namespace) -> Report:
    """Run each command as a process of its own, its output into a pipe."""
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        generate(top / "fifty", projects=10, modules=5, classes=1)
        generate(top / "thousand", projects=20, modules=10, classes=5)
        generate(top / "wide", projects=0, modules=0, classes=0)
        where = {name: ROOT if name == "." else top / name for name in {place for _, place in COMMANDS.values()}}
        contenders = {name: partial(_seconds, command, where[place]) for name, (command, place) in COMMANDS.items()}
        alternate(contenders, 2)  # files into the page cache, bytecode onto the disk
        samples = alternate(contenders, args.rounds)
    results = [Result("start to end", name, [1000 * s for s in some]) for name, some in samples.items()]
    return Report("startup", "milliseconds, less is better", results, (IMPORTS,), BARS)


def generate(root: Path, projects: int, modules: int, classes: int) -> None:
    """Write a workspace: projects of modules of classes, each overriding the one before; and `wide`, of 120 options."""
    lines = ['"""A workspace."""', "from lovecraft import DatasetConfig, ModelConfig, TrainConfig"]
    lines += ["class Data(DatasetConfig):", "    source = '/'", "class Model(ModelConfig):", "    path = '/'"]
    lines += ["class Train(TrainConfig):", "    dataset = Data", "    model = Model"]
    _write(root / "workspace.py", lines)
    for path in (root / "projects" / f"p{i}" / f"m{j}.py" for i in range(projects) for j in range(modules)):
        lines = [
            f'"""Module {path.stem} of {path.parent.name}."""',
            "import workspace",
            "class Train(workspace.Train):",
        ]
        lines += ["    epochs = 3  # as often as it helps", "    batch_size = 4", "    seed = 7"]
        for i in range(1, classes):
            lines += [f"class Variant{i}(Train):", f"    epochs = {i}", "    max_grad_norm = 1.0"]
        _write(path, lines)
    lines = [
        '"""Train, with options of its own."""',
        "import workspace",
        "from lovecraft import derived",
        "class Train(workspace.Train):",
    ]
    for i in range(67):  # beside the library's 53
        lines += [f"    option_{i}: int = {i}  # because", f'    """What option {i} is for."""']
    total = " + ".join(f"self.option_{i}" for i in range(67))
    lines += ["    @derived", "    def seed(self) -> int:", f"        return {total}"]
    _write(root / "projects" / "wide" / "default.py", lines)


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _seconds(command: list[str], directory: Path) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    return time.perf_counter() - begun
