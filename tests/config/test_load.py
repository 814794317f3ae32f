"""Finding the workspace and its configs by every name they have, and loading only what was asked for."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lovecraft
from lovecraft import DatasetConfig, resolve
from lovecraft.config.load import default_of, find, find_root, forget, listing, load, module_files, shorten, use
from lovecraft.errors import ConfigError

Write = Callable[[str, str], Path]

LISTED = "`lc ls` lists the configs"
DATASET = """
    from lovecraft import DatasetConfig
    from workspace import ROOT

    class Dataset(DatasetConfig):
        source = ROOT / "texts"
"""


def refused(name: str | None) -> ConfigError:
    """Return the error with which a name is refused."""
    with pytest.raises(ConfigError) as error:
        load(name)
    return error.value


# --- the workspace ----------------------------------------------------------------------------------


def test_the_root_is_found_from_anywhere_inside(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (".", "projects", "projects/tiny", "texts"):
        monkeypatch.chdir(workspace / folder)
        assert find_root() == workspace
    assert find_root(workspace / "projects" / "tiny") == workspace


def test_outside_a_workspace_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    error = refused("tiny")
    assert error.message == f"no workspace.py in {tmp_path} or above"
    assert "lc init" in error.hint


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "name"),
    [
        (".", "tiny"),
        (".", "tiny/"),
        (".", "tiny/default"),
        (".", "tiny/default:Train"),
        (".", "projects/tiny/default.py"),
        (".", "projects/tiny/default.py:Train"),
        (".", "./projects/tiny/default.py"),
        (".", "projects/tiny"),
        ("projects", "tiny"),
        ("projects", "tiny/default.py"),
        ("projects", "texts/../tiny/default.py"),
        ("projects/tiny", "default.py"),
        ("projects/tiny", "."),
        ("projects/tiny", None),
        ("projects/tiny", "tiny/default"),
        ("texts", "../projects/tiny/default.py"),
        ("texts", "tiny"),
    ],
)
def test_a_config_has_many_names(workspace: Path, monkeypatch: pytest.MonkeyPatch, here: str, name: str | None) -> None:
    monkeypatch.chdir(workspace / here)
    found = load(name)
    assert (found.name, found.root, found.cls.__name__) == ("tiny/default", workspace, "Train")
    assert found.cls.__module__ == "projects.tiny.default"


def test_an_absolute_path_names_a_config(workspace: Path) -> None:
    assert load(str(workspace / "projects/tiny/default.py")).name == "tiny/default"


def test_a_symbolic_link_to_the_workspace_is_the_workspace(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path_factory.mktemp("links") / "w"
    link.symlink_to(workspace)
    monkeypatch.chdir(link)
    assert load("tiny").root == workspace
    assert load("projects/tiny/default.py").name == "tiny/default"


def test_a_project_means_its_default_or_its_only_config(workspace: Path, write: Write) -> None:
    write("projects/one/only.py", DATASET)
    write("projects/two/a.py", DATASET)
    write("projects/two/b.py", DATASET)
    assert load("one").name == "one/only"
    error = refused("two")
    assert error.message == "project 'two' has no default config"
    assert error.hint == "one of: two/a, two/b"


def test_modules_in_folders_of_a_project_have_longer_names(workspace: Path, write: Write) -> None:
    write("projects/one/deep/er.py", DATASET)
    assert load("one/deep/er").name == "one/deep/er"


def test_a_class_is_named_after_a_colon(workspace: Path, write: Write) -> None:
    write("projects/one/both.py", DATASET + "\n    class Small(Dataset):\n        block_size = 8\n")
    assert load("one/both").cls.__name__ == "Dataset"
    assert resolve(load("one/both:Small").cls).block_size == 8
    error = refused("one/both:Smal")
    assert error.message == "one/both defines no config 'Smal'"
    assert "Dataset, Small" in error.hint


def test_train_comes_before_dataset_model_and_serve(workspace: Path, write: Write) -> None:
    kinds = {"Serve": "ServeConfig", "Model": "ModelConfig", "Dataset": "DatasetConfig", "Train": "TrainConfig"}
    text = "from lovecraft import *\n"
    for name, kind in kinds.items():
        text += f"class {name}({kind}): pass\n"
        write(f"projects/one/{name.lower()}.py", text)
        assert load(f"one/{name.lower()}").cls.__name__ == name


def test_a_class_of_another_name_is_the_config_if_it_is_the_only_one(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", "from lovecraft import *\nclass Mine(TrainConfig): pass\nclass Slow(SGD): pass\n")
    write("projects/one/b.py", "from lovecraft import *\nclass A(TrainConfig): pass\nclass B(A): pass\n")
    write("projects/one/c.py", "from lovecraft import SGD\nclass Slow(SGD): pass\n")
    write("projects/one/d.py", "from lovecraft import TrainConfig as Train\n")
    assert load("one/a").cls.__name__ == "Mine"
    assert refused("one/b").hint == "one of: one/b:A, one/b:B"
    assert refused("one/c").message == "one/c defines no config"
    assert refused("one/d").message == "one/d defines no config"  # what is imported is not defined here


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("tiny/4k", "no config 'tiny/4k': a module's name starts with a letter", "write k4"),
        ("tiny/32_blocks", "no config 'tiny/32_blocks': a module's name starts with a letter", "write blocks32"),
        ("tinny", "no config 'tinny'; did you mean tiny?", LISTED),
        (
            "tiny/defualt",
            "no config 'tiny/defualt'; did you mean tiny/default or texts/default?",
            LISTED,
        ),
        ("zzz", "no config 'zzz'", LISTED),
        ("projects/tiny/nope.py", "no config 'tiny/nope'; did you mean tiny?", LISTED),
        ("workspace.py", "workspace.py is not below projects/", LISTED),
        ("projects", "projects is no model directory: it has no config.json", LISTED),
        (".", ". is no model directory: it has no config.json", LISTED),
        ("tiny/default/002", "'tiny/default/002' names a run, which is no config", "its config is tiny/default"),
        (None, "no config is named", "name one, as `lc ls` lists them, or stand in a project"),
        ("", "no config is named", "name one, as `lc ls` lists them, or stand in a project"),
    ],
)
def test_a_name_that_means_nothing_is_refused(workspace: Path, name: str | None, message: str, hint: str) -> None:
    error = refused(name)
    assert (error.message, error.hint) == (message.format(root=workspace), hint)


def test_find_imports_nothing(workspace: Path, write: Write) -> None:
    write("projects/one/bad.py", "raise SystemError\n")
    assert find("one/bad:Train") == ("one/bad", "Train", workspace)


# --- loading ----------------------------------------------------------------------------------------


def test_load_of_the_package_returns_the_class(workspace: Path) -> None:
    assert lovecraft.load("texts") is load("texts").cls
    assert issubclass(lovecraft.load("texts"), DatasetConfig)


def test_only_what_is_asked_for_is_imported(workspace: Path, write: Write) -> None:
    write("projects/one/bad.py", "raise SystemError\n")
    load("tiny")
    assert {n for n in sys.modules if n.startswith("projects.")} == {
        "projects.tiny",
        "projects.tiny.default",
        "projects.texts",
        "projects.texts.default",
    }


def test_the_workspace_wins_over_what_is_installed_or_lies_first_on_the_path(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("site")
    (other / "workspace.py").write_text("raise SystemError\n")
    (other / "projects" / "tiny").mkdir(parents=True)
    (other / "projects" / "__init__.py").write_text("raise SystemError\n")
    (other / "projects" / "tiny" / "default.py").write_text("raise SystemError\n")
    monkeypatch.syspath_prepend(str(other))
    monkeypatch.chdir(other)
    assert load("tiny", root=workspace).cls.__name__ == "Train"


def test_two_workspaces_in_one_process_do_not_mix(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "projects" / "tiny").mkdir(parents=True)
    (other / "workspace.py").write_text("from lovecraft import TrainConfig\nclass Train(TrainConfig): pass\n")
    (other / "projects" / "tiny" / "default.py").write_text(
        "import workspace\nclass Train(workspace.Train):\n    batch_size = 77\n"
    )
    first = load("tiny").cls
    monkeypatch.chdir(other)
    second = load("tiny").cls
    monkeypatch.chdir(workspace)
    third = load("tiny").cls

    assert resolve(first).batch_size == resolve(third).batch_size == 2
    assert second.batch_size == 77
    assert not issubclass(second, first.__mro__[1])  # its parent is its own workspace's Train
    assert sys.modules["workspace"].__file__ == str(workspace / "workspace.py")


def test_an_error_inside_a_users_module_passes_through(workspace: Path, write: Write) -> None:
    write("projects/one/missing.py", "import numpyy\n")
    write("projects/one/sibling.py", "from projects.one import nothing\n")
    write("projects/one/zero.py", "1 / 0\n")
    with pytest.raises(ModuleNotFoundError, match="numpyy"):
        load("one/missing")
    with pytest.raises(ImportError, match="nothing"):
        load("one/sibling")
    with pytest.raises(ZeroDivisionError):
        load("one/zero")


def test_a_module_that_failed_is_tried_again(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load("one/a")
    write("projects/one/a.py", DATASET)
    assert load("one/a").cls.__name__ == "Dataset"


def test_a_file_written_a_moment_ago_is_seen(workspace: Path, write: Write) -> None:
    for i in range(20):
        write(f"projects/tiny/new{i}.py", "from projects.tiny import default\nclass Train(default.Train): pass\n")
        assert load(f"tiny/new{i}").cls.__name__ == "Train"


def test_an_edited_config_is_read_again_after_forgetting(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", DATASET + "        block_size = 200\n")
    assert resolve(load("one/a").cls).block_size == 200
    write("projects/one/a.py", DATASET + "        block_size = 100\n")
    assert resolve(load("one/a").cls).block_size == 200
    forget()
    assert resolve(load("one/a").cls).block_size == 100


def test_configs_are_never_read_from_bytecode(workspace: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python compares seconds and sizes only, and scripts edit faster."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for size in ("111", "222"):
        file = write("projects/one/a.py", DATASET + f"        block_size = {size}\n")
        os.utime(file, (1_000_000_000, 1_000_000_000))
        forget()
        assert resolve(load("one/a").cls).block_size == int(size)
    assert not list(workspace.rglob("__pycache__"))


def test_places_are_relative_to_the_workspace_or_the_library(workspace: Path) -> None:
    use(workspace)
    assert shorten(str(workspace / "projects" / "a.py")) == "projects/a.py"
    assert shorten(lovecraft.__file__) == "lovecraft/__init__.py"
    assert shorten("/elsewhere/a.py") == "/elsewhere/a.py"


# --- listing ----------------------------------------------------------------------------------------


def test_listing_reads_names_and_descriptions_without_importing(workspace: Path, write: Write) -> None:
    write("projects/one/loud.py", '"""First line.\n\nSecond."""\nraise SystemError\nclass Train(Base): pass\n')
    write("projects/one/silent.py", "class Train(Base): pass\n")
    write("projects/one/helper.py", "x = 1\nclass Plain: pass\n")
    write("projects/one/_private.py", "class Train(Base): pass\n")
    write("projects/one/__init__.py", "")
    write("projects/stray.py", "class Train(Base): pass\n")
    assert [(item.name, item.description) for item in listing(workspace)] == [
        ("one/loud", "First line."),
        ("one/silent", ""),
        ("texts/default", "Three short texts in blocks of 32 tokens."),
        ("tiny/default", "Train a tiny model for a few steps."),
    ]


def test_listing_reports_a_broken_module_and_goes_on(workspace: Path, write: Write) -> None:
    write("projects/one/broken.py", "x = 1\nclass Train(:\n")
    (workspace / "projects/one/latin.py").write_bytes(b'"""\xe9"""\n')
    (workspace / "projects/one/null.py").write_bytes(b"x = 1\0")
    found = {item.name: item.error for item in listing(workspace)}
    assert found["one/broken"] == "projects/one/broken.py:2: invalid syntax"
    assert found["one/latin"].startswith("projects/one/latin.py: 'utf-8' codec can't decode")
    assert found["one/null"].startswith("projects/one/null.py: source code string cannot contain null bytes")
    assert found["tiny/default"] == ""


def test_an_empty_workspace_lists_nothing(workspace: Path) -> None:
    assert list(listing(workspace / "texts")) == []
    assert module_files(workspace / "texts") == {}


def test_the_default_of_a_project() -> None:
    assert default_of("a", ["a/default", "a/b", "b/c"]) == "a/default"
    assert default_of("b", ["a/default", "b/c"]) == "b/c"
    assert default_of("b", ["b/c", "b/d"]) is None
    assert default_of("c", ["b/c"]) is None


def test_a_record_or_a_flag_can_name_nothing_outside_of_the_projects(workspace: Path) -> None:
    before = set(sys.modules)
    for name in ("os", "os.path", "..os", "/etc/passwd", "../../x", "tiny/../../workspace", "wave"):
        refused(name)
    assert "wave" not in set(sys.modules) - before


def test_a_config_may_read_its_own_file_as_a_module_does(workspace: Path, write: Write) -> None:
    write(
        "projects/one/near.py",
        """
        from pathlib import Path
        from lovecraft import DatasetConfig

        class Dataset(DatasetConfig):
            source = Path(__file__).parent / "texts"
        """,
    )
    found: Any = resolve(load("one/near").cls)
    assert found.source == workspace / "projects" / "one" / "texts"
