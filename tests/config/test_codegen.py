"""`lc show --python`: a flat module that resolves to the same fingerprint."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lovecraft
from lovecraft.config import codegen
from lovecraft.config.modules import forget

Write = Callable[[str, str], Path]
REPOSITORY = Path(lovecraft.__file__).parents[1]
SHIPPED = [
    p.relative_to(REPOSITORY / "projects").with_suffix("").as_posix() for p in REPOSITORY.glob("projects/*/*.py")
]
OVERRIDES = [
    [],
    ["--optimizer", "SGD", "--optimizer.momentum", "0.9", "--save", "none", "--dataset.validation", "a.txt,c.txt"],
    ["--dataset.block-size", "16", "--eval.prompts", 'He said "no",It was dark', "--model.path", "/elsewhere"],
    ["--dataset.train", ",".join(f"a_rather_long_name_of_a_story_{i}.txt" for i in range(9)), "--schedule", "WSD"],
]


@pytest.fixture
def flat(lc: Callable[..., Any], workspace: Path) -> Callable[..., str]:
    """Return a function that writes a config out flat, checks that it is the same and well-formed, and returns it."""

    def one(name: str, *words: str) -> str:
        text = lc("show", name, "--python", *words).out
        (workspace / "projects" / "flat").mkdir(exist_ok=True)
        (workspace / "projects" / "flat" / "default.py").write_text(text, encoding="utf-8")
        forget()
        before, after = (json.loads(lc("show", *which, "--json").out) for which in ([name, *words], ["flat"]))
        assert after["fingerprint"] == before["fingerprint"]
        listed = {row["path"]: row["value"] for row in before["options"]}
        assert {row["path"]: row["value"] for row in after["options"]}.items() <= listed.items()
        well_formed(workspace / "projects" / "flat" / "default.py")
        return str(text)

    return one


def well_formed(*files: Path) -> None:
    """Check files with the linter and the formatter, as a workspace of this repository would."""
    settings = ["--config", str(REPOSITORY / "pyproject.toml"), "--no-cache"]
    for command in (["check", "--ignore", "INP"], ["format", "--diff"]):
        words = [sys.executable, "-m", "ruff", *command, *settings, *map(str, files)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("words", OVERRIDES)
def test_the_flat_module_resolves_to_the_same_values(lc: Any, flat: Callable[..., str], words: list[str]) -> None:
    flat("tiny", *words)
    assert lc("diff", "tiny", "flat").code == (1 if words else 0)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_can_be_written_out_flat(name: str, flat: Callable[..., str], workspace: Path) -> None:
    shutil.copytree(REPOSITORY / "projects", workspace / "projects", dirs_exist_ok=True)
    shutil.copy(REPOSITORY / "workspace.py", workspace)
    flat(name)


def test_the_flat_module_imports_what_it_names_and_no_other_project(flat: Callable[..., str]) -> None:
    text = flat("tiny")

    assert "projects" not in text
    assert "class SaveOptions(Save):" in text
    assert 'source = ROOT / "texts"' in text
    assert 'validation = ("c.txt",)  # held out\n' in text, "the reason stays"


def test_the_config_is_called_so_that_it_is_the_module_s(flat: Callable[..., str], write: Write) -> None:
    write(
        "projects/tiny/named.py", "from projects.tiny import default\n\n\nclass Model(default.Train):\n    seed = 3\n"
    )
    assert "class Train(TrainConfig):" in flat("tiny/named")


def test_a_long_reason_stands_above_its_value(flat: Callable[..., str], write: Write) -> None:
    reason = "because " * 12 + "of this"
    text = f"from projects.tiny import default\n\n\nclass Train(default.Train):\n    accumulation = 3  # {reason}\n"
    write("projects/tiny/long.py", text)
    assert f"    # {reason}\n    accumulation = 3\n" in flat("tiny/long")


def test_options_and_sections_that_a_user_declares_are_left_out(flat: Callable[..., str], write: Write) -> None:
    write(
        "projects/tiny/own.py",
        """
        from lovecraft import AdamW, derived
        from projects.tiny import default

        class Train(default.Train):
            tokens: int = 96
            second: type[AdamW] = AdamW

            @derived
            def batch_size(self) -> int:
                return self.second and self.tokens // self.dataset.block_size  # as many as fit
        """,
    )
    text = flat("tiny/own")
    assert "tokens =" not in text
    assert "second" not in text
    assert "batch_size = 3  # as many as fit" in text


@pytest.mark.parametrize(
    "start", ["HERE = Path(__file__).parent  # there is no ROOT here", "HERE, ROOT = Path(__file__).parent, Path('/x')"]
)
def test_without_the_root_s_name_paths_are_written_whole(
    flat: Callable[..., str], workspace: Path, write: Write, start: str
) -> None:
    write("workspace.py", f"from pathlib import Path\n\n{start}\n")
    write(
        "projects/texts/other.py",
        """
        from lovecraft import DatasetConfig
        from workspace import HERE

        class Dataset(DatasetConfig):
            source = HERE / "texts"
        """,
    )
    text = flat("texts/other")
    assert f'source = Path("{workspace}/texts")' in text
    assert "ROOT" not in text


def test_a_run_is_written_out_flat_after_its_projects_are_gone(flat: Callable[..., str], workspace: Path) -> None:
    from lovecraft.config import record
    from lovecraft.config.load import load

    made = record.make(load("tiny").cls, "tiny/default", workspace, {})
    record.write(workspace / "runs" / "tiny" / "default" / "001" / "record.json", made)
    shutil.rmtree(workspace / "projects" / "tiny")
    text = flat("tiny/default/001")
    assert 'path = ROOT / "models/tiny"' in text
    assert 'validation = ("c.txt",)  # held out\n' in text, "the reason stays"


def test_what_only_stands_in_a_text_is_not_imported(flat: Callable[..., str]) -> None:
    text = flat("tiny", "--eval.prompts", '["p = ROOT / Path(x)"]', "--dataset.source", "/texts", "--model.path", "/m")
    assert "from pathlib import Path\n" in text
    assert "from workspace import ROOT" not in text
    assert "import Path" not in flat("tiny", "--eval.prompts", "Path(x)")


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30) | st.text("\"'\\\n\t\0{}#a\u2028\x7f\x85🐙", max_size=9)
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=9).map(
    lambda name: Path("/w") / f"a{name}"
)
VALUES = st.recursive(
    TEXTS | PATHS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda items: st.lists(items, max_size=9).map(tuple),
    max_leaves=30,
)


@given(VALUES)
def test_a_value_that_is_written_and_read_is_the_same(value: Any) -> None:
    for top in (Path("/w"), Path("/elsewhere"), None):
        text = codegen._literal(value, top)
        assert eval(text, {"ROOT": top, "Path": Path}) == value
        assert type(eval(text, {"ROOT": top, "Path": Path})) is type(value)


NARROW = st.text("\"'\\\n\t\0{}#a bcé\u2028\x7f", max_size=30)  # a formatter counts wide characters twice
LEAVES = NARROW | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none()


@settings(max_examples=15)
@given(st.lists(LEAVES | st.lists(LEAVES, max_size=9).map(tuple), min_size=8, max_size=8))
def test_values_are_written_as_the_formatter_would(found: list[Any]) -> None:
    lines = [f"    option = {codegen._literal(value, None, len('option = '))}\n" for value in found]
    words = [sys.executable, "-m", "ruff", "format", "-q", "--isolated", "--line-length", "120", "-"]
    text = "class Train:\n" + "".join(lines)
    assert subprocess.run(words, input=text.encode(), capture_output=True, check=True).stdout.decode() == text
