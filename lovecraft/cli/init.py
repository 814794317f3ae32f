"""Make a workspace: workspace.py, projects/, Makefile, .gitignore, settings of checkers and editor.

Nothing that exists is touched.
"""

import argparse
import json
import sys
from pathlib import Path

from lovecraft.cli import console
from lovecraft.errors import ConfigError

USAGE = "[DIR]"
EXAMPLE = "lc init stories"
TAKES_OPTIONS = False

FILES = {
    "workspace.py": '''\
"""The workspace's root marker and its shared defaults."""

from pathlib import Path

from lovecraft import ModelConfig, TrainConfig

ROOT = Path(__file__).parent


class Model(ModelConfig):
    path = ROOT / "models" / "base"  # a model directory in Hugging Face layout


class Train(TrainConfig):
    model = Model
''',
    "Makefile": """\
CONFIG ?=
ARGS ?=
LC ?= lc

train show plan serve:
	$(LC) $@ $(CONFIG) $(ARGS)

.PHONY: train show plan serve
""",
    ".gitignore": "/.lc/\n/.vscode/\n/models/\n/runs/\n__pycache__/\n",
    "pyproject.toml": """\
[tool.ruff]
line-length = 120

[tool.ruff.lint.isort]
known-first-party = ["lovecraft", "workspace", "projects"]

[tool.pyrefly]
project-includes = ["workspace.py", "projects"]
search-path = ["."]

[tool.pyrefly.errors]
bad-override = false  # `class schedule(Cosine):` in a config is a section
bad-override-mutable-attribute = true
""",
    ".vscode/settings.json": f"""\
{{
    "python.analysis.extraPaths": ["."],
    "python.analysis.typeCheckingMode": "basic",
    "python.defaultInterpreterPath": {json.dumps(sys.executable)}
}}
""",
    "projects/README.md": """\
One folder a project, one module a config. `lc ls` lists them, `lc new project NAME` makes one.
""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc init`: none."""


def run(args: argparse.Namespace) -> int:
    """Write the workspace's files and print what comes next."""
    directory = Path(args.target or ".").absolute()
    if (directory / "workspace.py").exists():
        raise ConfigError(f"{directory} is a workspace already", hint="`lc new project NAME` makes a project in it")
    outer = next(
        (p for p in directory.resolve().parents if p.name == "projects" and (p.parent / "workspace.py").exists()), None
    )
    if outer:
        raise ConfigError(f"{outer} holds the projects of a workspace", hint="`lc new project NAME` makes one there")
    for name, text in FILES.items():
        path = directory / name
        if path.exists():
            console.say(f"kept {path}")
            continue
        console.write(path, text, parents=True)
    console.out(str(directory))
    console.say("next: put a model directory at models/base, or let `lc convert FILE.gguf models/base` make it")
    console.say("      `lc new project my_texts --texts DIR` makes a dataset of your texts")
    return 0
