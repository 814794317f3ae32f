"""What keeps the package readable: import direction, what stays light, sizes, docstrings, no option without effect.

The tables are literal. Whoever needs more room changes the number here, with a reason beside it.
"""

import argparse
import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import lovecraft
from lovecraft import Config, errors
from lovecraft.cli import COMMANDS
from lovecraft.cli.options import flag_of
from lovecraft.config import names, schema
from lovecraft.config.load import KINDS
from lovecraft.config.resolve import choices

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lovecraft"
FILES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "errors": "",
    "files": "",
    "paths": "",
    "config": "errors files",
    "runs": "errors files config",
    "device": "errors config",
    "ranks": "errors",
    "pieces": "errors ranks",
    "hub": "errors",
    "tokenizer": "errors files ranks pieces",
    "chat_template": "errors",
    "models": "errors config",
    "data": "errors files config ranks tokenizer chat_template",
    "checkpoint": "errors files config tokenizer models device",
    "convert": "errors files config pieces tokenizer models device checkpoint",
    "engine": "errors files config tokenizer models device checkpoint",
    "train": "errors files config tokenizer models device checkpoint data runs engine",
    "serve": "errors files config ranks tokenizer models device checkpoint engine chat_template",
    "cli": "*",
    "__main__": "cli",
    "__init__": "errors config",
}
"""Which parts of the package a part may import, functions included: config before what works, what works before cli."""

HEAVY = {"torch", "transformers", "datasets", "numpy", "tokenizers", "safetensors", "starlette", "uvicorn", "tiktoken"}
LOADED_AT_TERMINALS_ONLY = {"rich"}

PACKAGE_LINES = 13_750
"""Lines of code, without blank lines, comments and docstrings; why 13,000 are allowed: docs/decisions/001-size.md."""

FILE_LINES = 400
FUNCTION_LINES = 60

BROAD_EXCEPT = {
    "cli/__init__.py:main": "the process boundary: what a user's config raises is shown with the user's frames only",
    "cli/shell.py:do": "the shell: a command fails by our mistake, the session with its history goes on",
    "engine/engine.py:_attempt": "the engine's thread: the requests of one pass fail, the others go on",
    "serve/server.py:work": "the loading thread: the error is handed to whoever waits for the model",
    "data/hub.py:_load": "the datasets library raises whatever its readers do: TypeError, yaml's own errors",
    "train/sinks.py:_try": "a sink's library raises whatever its network, disk or database does; training goes on",
    "train/sinks.py:_open": "the same, before the first step: it is shown as an error",
    "tokenizer.py:_read_huggingface": "the tokenizers library raises a bare Exception for a bad file",
    "ranks.py:_library": "the tokenizers library raises a bare Exception for a bad regex",
    "convert/gguf_tokenizer.py:_byte_level_bpe": "the tokenizers library raises a bare Exception for bad merges",
}
"""Where `except Exception` may stand without raising again, and why."""

RESERVED = ("show", "data", "build", "plan", "train", "eval", "serve")
"""The commands that take a config's options as flags, so that their own flags are names that no option may have."""


@cache
def tree(file: Path) -> ast.Module:
    """Parse a file of the package."""
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def name_of(file: Path) -> str:
    """Return the dotted name of a module of the package."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file): file for file in FILES}


def part_of(module: str) -> str:
    """Return the part of the package that a module belongs to: `lovecraft.config.base` → `config`."""
    return [*module.split("."), "__init__"][1]


def imports(node: ast.AST, *, everywhere: bool) -> Iterator[str]:
    """Yield the modules of this repository that a module imports; those inside functions only if `everywhere`.

    What stands under `if TYPE_CHECKING:` is for checkers and counts nowhere.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            module = str(child.module)
            for alias in child.names:  # `from package import module` imports the module
                inner = f"{module}.{alias.name}"
                yield inner if inner in MODULES else module
        elif everywhere or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(child, everywhere=everywhere)


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function of a module with its qualified name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        name = getattr(child, "name", None)
        yield from functions(child, f"{prefix}{name}." if isinstance(name, str) else prefix)


def handlers(node: ast.AST) -> Iterator[ast.ExceptHandler]:
    """Yield the `except` clauses of a function, but not those of functions inside it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ExceptHandler):
            yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from handlers(child)


# --- imports ----------------------------------------------------------------------------------------


def test_every_part_of_the_package_is_in_the_table() -> None:
    assert {part_of(module) for module in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_run_one_way(part: str) -> None:
    allowed = set(MAY_IMPORT) if MAY_IMPORT[part] == "*" else {part, *MAY_IMPORT[part].split()}
    wrong = [
        f"{module} imports {imported}"
        for module, file in MODULES.items()
        for imported in imports(tree(file), everywhere=True)
        if part_of(module) == part and imported.split(".")[0] == "lovecraft" and part_of(imported) not in allowed
    ]
    assert not wrong


def test_the_package_imports_no_project() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, file in MODULES.items()
        for imported in imports(tree(file), everywhere=True)
        if imported.split(".")[0] in ("projects", "workspace", "tests", "bench")
    ]
    assert not wrong


def test_no_imports_form_a_cycle() -> None:
    graph = {m: {i for i in imports(tree(file), everywhere=False) if i in MODULES} for m, file in MODULES.items()}
    while leaves := [module for module, imported in graph.items() if not imported & set(graph)]:
        for module in leaves:
            del graph[module]
    assert not graph, f"each of these imports another of them: {sorted(graph)}"


def modules_after(program: str) -> set[str]:
    """Return the top-level modules that a Python program, run in the repository's workspace, has imported."""
    program += "\nimport sys; print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


LIGHT_PROGRAMS = {
    "the package": "import lovecraft, lovecraft.cli",
    "every command's module": "import lovecraft.cli\nfor n in lovecraft.cli.COMMANDS: __import__(f'lovecraft.cli.{n}')",
    "every project": (
        "from pathlib import Path; from lovecraft.config.load import load, module_files\n"
        "for n in module_files(Path.cwd()): load(n)"
    ),
    "lc ls": "from lovecraft.cli import main; main(['ls'])",
    "lc show": "from lovecraft.cli import main; assert main(['show', 'finetune_lovecraft']) == 0",
    "lc show --json": "from lovecraft.cli import main; assert main(['show', 'quickstart', '--json']) == 0",
    "lc diff": "from lovecraft.cli import main; assert main(['diff', 'finetune_lovecraft', 'quickstart']) == 1",
    "lc train --help": "from lovecraft.cli import main; assert main(['train', 'quickstart', '--help']) == 0",
}


@pytest.mark.parametrize("what", LIGHT_PROGRAMS)
def test_what_is_light_loads_nothing_heavy(what: str) -> None:
    loaded = modules_after(LIGHT_PROGRAMS[what])
    assert "lovecraft" in loaded
    assert not loaded & (HEAVY | LOADED_AT_TERMINALS_ONLY)


# --- sizes ------------------------------------------------------------------------------------------


def test_the_package_stays_small() -> None:
    lines = sum(map(lines_of_code, FILES))
    print(f"\nthe package has {lines:,} lines of code, of {PACKAGE_LINES:,}")
    assert PACKAGE_LINES - 200 <= lines <= PACKAGE_LINES < 15_000  # lower the ratchet when code was deleted


def lines_of_code(file: Path) -> int:
    """Count the lines of a file that are neither blank nor comments nor docstrings."""
    text = file.read_text(encoding="utf-8")
    strings = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    prose = {line for node in strings for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    numbered = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and line.lstrip()[0] != "#" for number, line in numbered if number not in prose)


def test_files_are_short() -> None:
    lengths = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: length for name, length in lengths.items() if length > FILE_LINES} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{module}.{name}": int(function.end_lineno or 0) - function.lineno + 1
        for module, file in MODULES.items()
        for name, function in functions(tree(file))
    }
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES} == {}


# --- habits -----------------------------------------------------------------------------------------


def test_broad_excepts_stand_only_at_documented_boundaries() -> None:
    found = set()
    for file in FILES:
        for name, function in functions(tree(file)):
            for handler in handlers(function):
                caught = "BaseException" if handler.type is None else ast.unparse(handler.type)
                again = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None  # only cleans up
                if ("Exception" in caught.split() or "BaseException" in caught) and not again:
                    found.add(f"{file.relative_to(PACKAGE).as_posix()}:{name.rpartition('.')[2]}")
    assert found == set(BROAD_EXCEPT)


def test_what_is_public_has_a_docstring() -> None:
    missing = [module for module, file in MODULES.items() if tree(file).body and not ast.get_docstring(tree(file))]
    for module, file in MODULES.items():
        pending: list[tuple[str, Any]] = [(module, tree(file))]
        while pending:
            prefix, node = pending.pop()
            for child in node.body:
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    name = f"{prefix}.{child.name}"
                    if not child.name.startswith("_") and not ast.get_docstring(child):
                        missing.append(name)
                    if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
                        pending.append((name, child))
    assert not missing


def test_the_public_names_are_listed_and_sorted() -> None:
    assert sorted(lovecraft.__all__) == sorted(set(lovecraft.__all__))
    assert all(hasattr(lovecraft, name) for name in lovecraft.__all__)
    kinds = {name for name, kind in vars(schema).items() if inspect.isclass(kind) and issubclass(kind, Config)}
    assert kinds <= set(lovecraft.__all__)


def test_the_tree_of_errors_is_drawn_whole() -> None:
    drawn = re.findall(r"^[├└│─ ]*(\w+)  ", str(errors.__doc__), re.MULTILINE)
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
    assert sorted(drawn) == sorted(kind.__name__ for kind in kinds)


# --- options and commands ---------------------------------------------------------------------------


def option_classes() -> list[Any]:
    """Return the config classes of the library."""
    return [kind for kind in vars(schema).values() if inspect.isclass(kind) and issubclass(kind, Config)]


def test_every_option_is_read_by_code_outside_of_the_config_core() -> None:
    read = {
        node.attr
        for module, file in MODULES.items()
        for node in ast.walk(tree(file))
        if part_of(module) not in ("config", "__init__") and isinstance(node, ast.Attribute)
    }
    unread = {f"{kind.__name__}.{name}" for kind in option_classes() for name in kind.__options__ if name not in read}
    assert not unread, "an option without effect"


def paths_of(kind: Any, prefix: str = "") -> Iterator[str]:
    """Yield every path that an option of a config may have, whatever its sections are swapped for."""
    for name, option in kind.__options__.items():
        yield prefix + name
        if option.section is not None:
            for section in choices(option.section).values():
                yield from paths_of(section, f"{prefix}{name}.")


def flags_of(name: str) -> set[str]:
    """Return the long flags of a command itself."""
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"lovecraft.cli.{name}").add_arguments(parser)
    return {f for action in parser._actions for f in action.option_strings if f.startswith("--")} | {"--help"}


def test_the_names_that_users_options_may_not_have_are_the_flags_of_the_commands() -> None:
    assert {flag_of(name) for name in names.RESERVED} == {flag for name in RESERVED for flag in flags_of(name)}


@pytest.mark.parametrize("name", RESERVED)
def test_a_commands_own_flags_are_no_options(name: str) -> None:
    command, own = importlib.import_module(f"lovecraft.cli.{name}"), flags_of(name)
    kinds = [getattr(schema, command.OPTIONS_OF)] if hasattr(command, "OPTIONS_OF") else KINDS.values()
    taken = {flag_of(path) for kind in kinds for path in paths_of(kind)}
    assert not own & {*taken, *(flag.replace("--", "--no-", 1) for flag in taken)}


def test_every_command_has_its_module_and_every_module_its_command() -> None:
    for name, line in COMMANDS.items():
        command = importlib.import_module(f"lovecraft.cli.{name}")
        assert command.EXAMPLE.startswith(f"lc {name}")
        assert list(inspect.signature(command.add_arguments).parameters) == ["parser"]
        assert list(inspect.signature(command.run).parameters) == ["args"]
        assert line[0].islower()
        assert not line.endswith(".")
    with_run = {
        file.stem
        for file in (PACKAGE / "cli").glob("*.py")
        if {"run", "add_arguments"} <= {node.name for node in tree(file).body if isinstance(node, ast.FunctionDef)}
    }
    assert with_run == set(COMMANDS)
