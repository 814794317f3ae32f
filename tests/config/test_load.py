"""Finding the workspace and its configs by every name they have, and loading only what was asked for."""

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lovecraft
from lovecraft import SGD, Config, DatasetConfig, TrainConfig, resolve
from lovecraft.config.load import NAMES, default_of, find, find_root, fitting, listing, load, module_files
from lovecraft.config.modules import forget, shorten, use
from lovecraft.errors import ConfigError

Write = Callable[[str, str], Path]

HIDDEN = "cannot be imported; it is no file, or a module of its folder's name hides it"
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
        (".", "projects/tiny/"),
        (".", "projects/tiny/default"),
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
    write("projects/one/helper.py", "x = 1\n")
    assert load("one").name == "one/only"  # the other is no config, as `lc ls` has it
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
    assert refused("one/both:Smal").message == "one/both defines no config 'Smal'; did you mean 'Small'?"
    assert refused("one/both:X").message == "one/both defines no config 'X'; it has Dataset, Small"


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
    error = refused("one/d")  # what is imported is not defined here
    assert error.message == "one/d only imports Train, which is TrainConfig of lovecraft.config.schema"
    assert error.hint == "write `class Train(...):` here, with it as the base"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("tiny/4k", "no config 'tiny/4k': '4k' cannot be a module's name", f"write k4: {NAMES}"),
        (
            "tiny/32_blocks",
            "no config 'tiny/32_blocks': '32_blocks' cannot be a module's name",
            f"write blocks32: {NAMES}",
        ),
        ("größe", "no config 'größe': 'größe' cannot be a module's name", f"write groe: {NAMES}"),
        (
            "tiny/my-config",
            "no config 'tiny/my-config': 'my-config' cannot be a module's name",
            f"write my_config: {NAMES}",
        ),
        ("tiny/class", "no config 'tiny/class': 'class' cannot be a module's name", f"write class_: {NAMES}"),
        ("tiny/__init__", "no config 'tiny/__init__': '__init__' cannot be a module's name", f"write default: {NAMES}"),
        ("tinny", "no config 'tinny'; did you mean tiny?", LISTED),
        (
            "tiny/defualt",
            "no config 'tiny/defualt'; did you mean tiny/default?",
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


def test_an_edited_config_is_read_again_and_so_is_what_derives_from_it(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", DATASET + "        block_size = 200\n")
    write("projects/one/b.py", "from projects.one import a\nclass Dataset(a.Dataset): stride = 9\n")
    assert resolve(load("one/b").cls).block_size == 200
    assert load("one/b").cls is load("one/b").cls
    write("projects/one/a.py", DATASET + "        block_size = 100\n")
    assert resolve(load("one/b").cls).block_size == 100
    (workspace / "projects/one/a.py").unlink()
    assert "there is no projects.one.a" in refused("one/b").message


def test_all_problems_of_the_classes_that_are_loaded_are_told_at_once(workspace: Path, write: Write) -> None:
    write("projects/one/parent.py", "from lovecraft import TrainConfig\n\nclass Train(TrainConfig):\n    seeed = 1\n")
    text = """
        from lovecraft import AdamW, DatasetConfig, derived
        from projects.one import parent

        class Dataset(DatasetConfig):
            strid = 1
            fresh: list[int] = (3,)

        class Optimizer(AdamW):
            rl = 1e-3

        class Train(parent.Train):
            dataset = Dataset
            optimizer = Optimizer
            epoch = 3
            batch_size = derived(4)
    """
    write("projects/one/a.py", text)
    for _ in range(2):  # also when it is tried again
        assert [line.partition(";")[0] for line in refused("one/a").message.splitlines()] == [
            "projects/one/parent.py:4: Train has no option 'seeed'",
            "projects/one/a.py:5: Dataset has no option 'strid'",
            "projects/one/a.py:6: fresh: an option cannot be of type list",
            "projects/one/a.py:9: Optimizer has no option 'rl'",
            "projects/one/a.py:14: Train has no option 'epoch'",
            "projects/one/a.py:15: derived takes a method",
        ]
    write("projects/one/parent.py", "from lovecraft import TrainConfig\n\nclass Train(TrainConfig):\n    seed = 1\n")
    assert "seeed" not in refused("one/a").message
    assert load("one/parent").cls.seed == 1


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
    assert found["one/latin"] == "projects/one/latin.py:1: the text is not in UTF-8; save it as UTF-8"
    assert found["one/null"] == "projects/one/null.py:1: a null byte; remove it"
    assert found["tiny/default"] == ""


def test_an_empty_workspace_file_lacks_what_is_imported_from_it(workspace: Path, write: Write) -> None:
    write("workspace.py", "")
    assert refused("tiny").message == "projects/texts/default.py:3: there is no workspace.ROOT"


def test_what_a_function_makes_is_listed_and_loaded(workspace: Path, write: Write) -> None:
    write("projects/one/made.py", "import lovecraft\nTrain = lovecraft.override(lovecraft.TrainConfig, {'seed': 7})\n")
    assert [item.classes for item in listing(workspace) if item.name == "one/made"] == [("Train",)]


def test_linked_folders_are_projects_and_a_link_upwards_ends(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (elsewhere := tmp_path_factory.mktemp("linked")).joinpath("a.py").write_text(textwrap.dedent(DATASET))
    (workspace / "projects/linked").symlink_to(elsewhere)
    (workspace / "projects/tiny/loop").symlink_to(workspace / "projects")
    assert list(module_files(workspace)) == ["linked/a", "texts/default", "tiny/default"]
    assert load("linked").cls.block_size == 512


def test_a_config_in_a_packages_own_module_is_listed_with_what_to_do(workspace: Path, write: Write) -> None:
    write("projects/one/__init__.py", DATASET)
    found = {item.name: item.error for item in listing(workspace)}
    assert found["one/__init__"] == "projects/one/__init__.py: '__init__' cannot be a module's name; write default"


def test_a_folder_that_cannot_be_read_is_listed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(folder: str) -> Any:
        if str(folder).endswith("texts"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(module_files(workspace)) == ["texts/default", "tiny/default"]


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


# --- names that almost mean something ---------------------------------------------------------------


def test_an_absolute_path_says_its_workspace_too(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert load(str(workspace / "projects/tiny/default.py:Train")).root == workspace
    assert load(str(workspace / "projects/tiny")).name == "tiny/default"


def test_the_innermost_folder_with_a_config_of_its_own_is_the_project_one_stands_in(
    workspace: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("projects/tiny/gpu1/default.py", "from projects.tiny import default\nclass Train(default.Train): pass\n")
    (workspace / "projects/tiny/gpu1/notes").mkdir()
    write("projects/tiny/other/a.py", DATASET)
    write("projects/tiny/other/b.py", DATASET)
    for folder, name in (("gpu1/notes", "tiny/gpu1/default"), ("gpu1", "tiny/gpu1/default"), ("other", "tiny/default")):
        monkeypatch.chdir(workspace / "projects/tiny" / folder)
        assert load().name == name


def test_modules_of_a_project_import_each_other_relatively(workspace: Path, write: Write) -> None:
    write("projects/one/__init__.py", "BLOCK = 64\n")
    write("projects/one/deep/helper.py", "from .. import BLOCK\n")
    write(
        "projects/one/deep/er.py",
        "from .helper import BLOCK\nfrom ...texts import default\n"
        "class Dataset(default.Dataset):\n    block_size = BLOCK\n",
    )
    assert resolve(load("one/deep/er").cls).block_size == 64


def test_a_workspace_may_lie_below_another_and_have_any_path(
    workspace: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = "größer raum/projects/mine"
    write("größer raum/workspace.py", "from lovecraft import DatasetConfig\n")
    write(f"{inner}/default.py", "import workspace\nclass Dataset(workspace.DatasetConfig):\n    block_size = 7\n")
    monkeypatch.chdir(workspace / inner)
    assert (load().name, load().root) == ("mine/default", workspace / "größer raum")
    assert refused("tiny").message.startswith("no config 'tiny'")


def test_what_lies_directly_in_projects_is_no_config(workspace: Path, write: Write) -> None:
    write("projects/json.py", DATASET)
    for name in ("json", "projects/json.py"):
        error = refused(name)
        assert error.message == "projects/json.py lies in no project"
        assert error.hint == "move it to projects/json/default.py"


def test_a_module_that_hides_a_folder_is_told(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", DATASET)
    write("projects/one/a/b.py", DATASET)
    assert load("one/a").name == "one/a"
    assert refused("one/a/b").message == f"projects/one/a/b.py: projects.one.a.b {HIDDEN}"


def test_what_is_no_file_is_told(workspace: Path) -> None:
    (workspace / "projects/tiny/folder.py").mkdir()
    (workspace / "projects/tiny/link.py").symlink_to("nowhere.py")
    for name in ("folder", "link"):
        assert refused(f"tiny/{name}").message == f"projects/tiny/{name}.py: projects.tiny.{name} {HIDDEN}"
    found = {item.name: item.error for item in listing(workspace)}
    assert found["tiny/folder"] == "projects/tiny/folder.py: cannot be read: Is a directory"
    assert found["tiny/link"] == "projects/tiny/link.py: cannot be read: No such file or directory"


def test_a_class_that_is_no_config_is_told_with_its_place(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", "x = 1\nclass Train:\n    max_steps = 1\n")
    write("projects/one/b.py", DATASET + "\n    class Plain: pass\n")
    for name, line in (("a", 2), ("a:Train", 2)):
        error = refused(f"one/{name}")
        assert error.message == f"projects/one/a.py:{line}: Train is no config"
        assert error.hint == "write `class Train(TrainConfig):`"
    assert refused("one/b:Plain").message == "projects/one/b.py:7: Plain is no config"
    assert refused("one/b:Slow").message == "one/b defines no config 'Slow'; it has Dataset"


def test_a_kind_picks_among_the_classes_of_a_module(workspace: Path, write: Write) -> None:
    write(
        "projects/one/all.py",
        "from lovecraft import SGD\nfrom projects.tiny import default\n"
        "class Data(default.Dataset): pass\nclass Slow(SGD): pass\nclass Train(default.Train): pass\n",
    )
    found = [load("one/all", kind=kind).cls.__name__ for kind in (Config, TrainConfig, DatasetConfig, SGD)]
    assert found == ["Train", "Train", "Data", "Slow"]
    with pytest.raises(ConfigError, match=r"^projects/tiny/default.py:6: expected SGD, got Train$"):
        load("tiny", kind=SGD)
    with pytest.raises(ConfigError, match="is no kind of config"):
        load("tiny", kind=int)


def test_a_name_of_a_kind_must_be_of_that_kind(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", DATASET + "\n    class Train(Dataset): pass\n")
    assert load("one/a").cls.__name__ == "Dataset"


# --- listing by the text alone ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("import workspace\nclass Train(workspace.Train): pass", True),
        ("from projects.tiny import default as d\nclass Train(d.Train): pass", True),
        ("from .default import Train as T\nclass Train(T): pass", True),
        ("from lovecraft import *\nclass Train(TrainConfig): pass", True),
        ("class Plain: pass\nclass Train(Unknown): pass", True),
        ("class Plain: pass\nclass Sub(Plain): pass", False),
        ("class Wrong(ValueError): pass", False),
        ("import installed\nclass Train(installed.Train): pass", True),
        ("import installed\nclass Helper(installed.Train): pass", False),
        ("class Train: pass", False),
        ("import enum\nclass Kind(enum.Enum): pass", False),
        ("from typing import Generic as G, TypeVar\nT = TypeVar('T')\nclass Box(G[T]): pass", False),
        ("import os.path as p, a.b\nclass A(p.X): pass\nclass B(a.b.C, A): pass", False),
        ("from abc import ABC\nimport workspace\nclass A(ABC): pass\nclass Train(A, workspace.Train): pass", True),
    ],
)
def test_a_module_is_listed_unless_its_classes_come_from_elsewhere(
    workspace: Path, write: Write, text: str, listed: bool
) -> None:
    write("projects/one/a.py", text + "\n")
    assert ("one/a" in [item.name for item in listing(workspace)]) is listed


def test_a_module_that_cannot_be_imported_by_its_name_is_listed_with_the_remedy(workspace: Path, write: Write) -> None:
    for name in ("my-config", "naïve", "4k", "class"):
        write(f"projects/one/{name}.py", DATASET)
    write("projects/größe/default.py", DATASET)
    write("projects/one/a-helper.py", "x = 1\n")
    found = {item.name: item.error for item in listing(workspace) if item.error}
    assert found == {
        "größe/default": "projects/größe/default.py: 'größe' cannot be a module's name; write groe",
        "one/4k": "projects/one/4k.py: '4k' cannot be a module's name; write k4",
        "one/class": "projects/one/class.py: 'class' cannot be a module's name; write class_",
        "one/my-config": "projects/one/my-config.py: 'my-config' cannot be a module's name; write my_config",
        "one/naïve": "projects/one/naïve.py: 'naïve' cannot be a module's name; write naive",
    }


@pytest.mark.parametrize("name", ["a", "k4", "a__b", "a_", "A1", "default", "gpu1"])
def test_a_name_that_python_can_import_is_kept(name: str) -> None:
    assert fitting(name) == name


@given(st.text(min_size=1))
def test_whatever_a_file_is_called_there_is_a_name_that_fits(name: str) -> None:
    found = fitting(name)
    assert found.isascii()
    assert found.isidentifier()
    assert found[0].isalpha()
    assert fitting(found) == found
