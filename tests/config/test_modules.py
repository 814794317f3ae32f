"""What running a user's module may do, and how what goes wrong in it is told."""

import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import lovecraft
from lovecraft import resolve
from lovecraft.config.load import load
from lovecraft.config.modules import forget, is_users, shorten, use
from lovecraft.errors import ConfigError

Write = Callable[[str, str], Path]

TINY = "from projects.tiny import default\nclass Train(default.Train): pass\n"


def refused(name: str) -> ConfigError:
    """Return the error with which a config is refused."""
    with pytest.raises(ConfigError) as error:
        load(name)
    return error.value


# --- stdin and stdout -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "print('hello')",
        "print()",
        "sys.stdout.write('hello')",
        "sys.stdout.writelines(['hello'])",
        "sys.stdout.buffer.write(b'hello')",
    ],
)
def test_a_config_that_prints_is_refused(
    workspace: Path, write: Write, capsys: pytest.CaptureFixture[str], statement: str
) -> None:
    write("projects/one/loud.py", f"import sys\n\n{statement}\n{TINY}")
    assert refused("one/loud").message == (
        "projects/one/loud.py:3: prints when it is imported; stdout is for data: add file=sys.stderr"
    )
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("statement", ["input()", "input('How many? ')", "sys.stdin.read()", "sys.stdin.readline()"])
def test_a_config_that_reads_input_is_refused_and_does_not_wait(
    workspace: Path, write: Write, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n"))
    write("projects/one/asks.py", f"import sys\n{statement}\n{TINY}")
    assert refused("one/asks").message == (
        "projects/one/asks.py:2: reads input when it is imported; make what it asks for an option"
    )
    assert sys.stdin.readline() == "1\n"


def test_what_a_helper_prints_is_told_with_the_helpers_line(workspace: Path, write: Write) -> None:
    write("projects/one/helper.py", "def loud():\n    print('hello')\n")
    write("projects/one/a.py", f"from projects.one import helper\nhelper.loud()\n{TINY}")
    assert refused("one/a").message.startswith("projects/one/helper.py:2: prints")


def test_a_config_may_write_to_stderr_and_import_what_prints(
    workspace: Path,
    write: Write,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    site = tmp_path_factory.mktemp("site")
    (site / "loud_library.py").write_text(
        "import sys, logging\nprint('welcome')\nLOG = logging.StreamHandler(sys.stdout)\n"
        "def say():\n    print('later', file=LOG.stream)\n"
    )
    monkeypatch.syspath_prepend(str(site))
    write("projects/one/a.py", f"import sys, loud_library\nprint('note', file=sys.stderr)\n{TINY}")
    stdin, stdout = sys.stdin, sys.stdout
    load("one/a")
    assert (sys.stdin, sys.stdout) == (stdin, stdout)
    assert capsys.readouterr() == ("", "welcome\nnote\n")
    sys.modules["loud_library"].say()  # what kept the stream has the real one
    assert capsys.readouterr() == ("later\n", "")


def test_a_config_that_closes_stdin_closes_nothing(
    workspace: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n"))
    write("projects/one/a.py", f"import sys\nsys.stdin.close()\n{TINY}")
    load("one/a")
    assert not sys.stdin.closed


# --- ends and state ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("sys.exit(3)", "exit code 3"),
        ("exit()", "exit code 0"),
        ("raise SystemExit('no GPU here')", "it says 'no GPU here'"),
    ],
)
def test_a_config_that_ends_the_process_is_told_with_its_place(
    workspace: Path, write: Write, statement: str, said: str
) -> None:
    write("projects/one/helper.py", f"import sys\ndef end():\n    {statement}\n")
    write("projects/one/a.py", "from projects.one import helper\nhelper.end()\n")
    message = f"projects/one/helper.py:3: ends the process when it is imported ({said})"
    assert refused("one/a").message == message


def test_an_interrupt_passes(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load("one/a")


def test_a_config_changes_the_directory_for_itself_only(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", f"import os\nos.chdir('/')\n{TINY}")
    load("one/a")
    assert Path.cwd() == workspace


def test_a_config_that_deletes_itself_is_still_one(workspace: Path, write: Write) -> None:
    file = write("projects/one/a.py", f"import os\nos.remove(__file__)\n{TINY}")
    assert resolve(load("one/a").cls).batch_size == 2
    assert not file.exists()


# --- what is missing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from projects.one import defualt", "no projects.one.defualt; did you mean 'projects.one.default'?"),
        ("from projects.tinny import default", "no projects.tinny; did you mean 'projects.tiny'?"),
        ("import projects.tiny.defualt", "no projects.tiny.defualt; did you mean 'projects.tiny.default'?"),
        (
            "from projects.tiny.default import Trian",
            "no projects.tiny.default.Trian; did you mean 'projects.tiny.default.Train'?",
        ),
        ("import workspace\nclass Train(workspace.Trian): pass", "no workspace.Trian; did you mean 'workspace.Train'?"),
        ("from workspace import Trian", "no workspace.Trian; did you mean 'workspace.Train'?"),
        ("from lovecraft import TrainConfg", "no lovecraft.TrainConfg; did you mean 'lovecraft.TrainConfig'?"),
        ("import workspace.zzz", "no workspace.zzz"),
    ],
)
def test_a_name_that_the_workspace_does_not_have_is_told_with_the_closest(
    workspace: Path, write: Write, text: str, said: str
) -> None:
    write("projects/one/default.py", TINY)
    write("projects/one/a.py", text + "\n")
    assert refused("one/a").message.startswith(f"projects/one/a.py:{text.count(chr(10)) + 1}: there is {said}")


def test_an_error_inside_a_users_module_passes_through(workspace: Path, write: Write) -> None:
    errors = {
        "import numpyy": ModuleNotFoundError,
        "1 / 0": ZeroDivisionError,
        "import json\njson.nope": AttributeError,
    }
    for i, (text, kind) in enumerate(errors.items()):
        write(f"projects/one/e{i}.py", text + "\n")
        with pytest.raises(kind):
            load(f"one/e{i}")


def test_what_cannot_be_read_is_told(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", f"from projects.one import b\n{TINY}")
    (workspace / "projects/one/b.py").write_bytes(b"x = 1\ny = '\xe9'\n")
    assert refused("one/a").message == "projects/one/b.py:2: the text is not in UTF-8; save it as UTF-8"
    (workspace / "projects/one/b.py").write_bytes(b"x = 1\ny = '\0'\n")
    assert refused("one/a").message == "projects/one/b.py:2: a null byte; remove it"
    (workspace / "workspace.py").write_bytes(b"\xff\xfe")
    forget()
    assert refused("tiny").message == "workspace.py:1: the text is not in UTF-8; save it as UTF-8"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_file_without_permission_is_told(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", TINY).chmod(0)
    assert refused("one/a").message == "projects/one/a.py: cannot be read: Permission denied"


def test_a_text_that_begins_with_a_byte_order_mark_is_read(workspace: Path) -> None:
    file = workspace / "projects/tiny/bom.py"
    file.write_text(TINY, encoding="utf-8-sig")
    assert load("tiny/bom").cls.__name__ == "Train"


# --- cycles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "chain"),
    [
        (
            "import workspace\nfrom projects.one import b\n\nclass Train(workspace.Train):\n    dataset = b.Dataset\n",
            "from lovecraft import DatasetConfig\nfrom projects.one import a\n\n"
            "class Dataset(DatasetConfig):\n    block_size = a.Train.max_steps\n",
            "projects/one/a.py:2 → projects/one/b.py:5 → projects/one/a.py",
        ),
        (
            "from projects.one.b import X\n",
            "from projects.one.a import Y\n",
            "projects/one/a.py:1 → projects/one/b.py:1 → projects/one/a.py",
        ),
        ("from projects.one.a import Y\n", "", "projects/one/a.py:1 → projects/one/a.py"),
        ("import workspace\n", "", "workspace.py:1 → projects/one/b.py:1 → workspace.py"),
    ],
)
def test_configs_that_import_each_other_are_told_as_a_chain(
    workspace: Path, write: Write, a: str, b: str, chain: str
) -> None:
    write("projects/one/a.py", a)
    write("projects/one/b.py", b or "from workspace import Train\n")
    write("projects/one/top.py", "from projects.one import a\n")
    if chain.startswith("workspace"):
        write("workspace.py", "from projects.one import b\n")
    for name in ("one/a", "one/top"):  # the chain begins where it closes
        assert refused(name).message == f"{chain}: the imports form a cycle"


def test_configs_that_load_each_other_are_told_as_a_chain(workspace: Path, write: Write) -> None:
    write("projects/one/a.py", "import lovecraft\nlovecraft.load('one/b')\n")
    write("projects/one/b.py", "import lovecraft\nlovecraft.load('one/a')\n")
    assert refused("one/a").message == (
        "projects/one/a.py → projects/one/b.py → projects/one/a.py: the configs load each other"
    )


# --- workspaces -------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a second workspace with a config of the same name."""
    root = tmp_path_factory.mktemp("other")
    (root / "projects" / "tiny").mkdir(parents=True)
    (root / "workspace.py").write_text("from lovecraft import DatasetConfig\n")
    (root / "projects/tiny/default.py").write_text(
        "import workspace\nclass Dataset(workspace.DatasetConfig):\n    block_size = 77\n"
    )
    return root


def test_a_config_loads_another_by_its_path_wherever_the_process_stands(
    workspace: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        import lovecraft
        from workspace import ROOT

        class Train(lovecraft.load(ROOT / "projects/tiny/default.py")):
            seed = 1
    """
    write("projects/one/a.py", text)
    monkeypatch.chdir("/")
    assert lovecraft.load(workspace / "projects/one/a.py")().batch_size == 2


def test_a_config_loads_none_of_another_workspace(workspace: Path, write: Write, other: Path) -> None:
    text = f"""
        from pathlib import Path
        from lovecraft.config.load import load
        load("tiny", root=Path({str(other)!r}))
    """
    write("projects/one/a.py", text)
    assert (
        refused("one/a").message == f"projects/one/a.py: a config of one workspace cannot load one of another, {other}"
    )
    assert load("tiny").root == workspace


def test_threads_load_from_two_workspaces_at_once(workspace: Path, other: Path) -> None:
    wrong = []

    def read(root: Path, kind: str) -> None:
        for _ in range(10):
            found = load("tiny", root=root).cls
            wrong.extend([found] if found.__name__ != kind or not found.__file__.startswith(str(root)) else [])

    threads = [threading.Thread(target=read, args=pair) for pair in ((workspace, "Train"), (other, "Dataset")) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_places_in_a_workspace_that_is_no_longer_in_use_are_whole(workspace: Path, other: Path) -> None:
    first = load("tiny").cls
    load("tiny", root=other)
    assert shorten(first.__file__) == str(workspace / "projects/tiny/default.py")
    assert resolve(first).batch_size == 2
    use(workspace)
    assert shorten(first.__file__) == "projects/tiny/default.py"


def test_users_files_are_those_of_the_workspace_in_use(workspace: Path) -> None:
    use(workspace)
    assert is_users(str(workspace / "workspace.py"))
    assert is_users(str(workspace / "projects/a/b.py"))
    assert not is_users(str(workspace / ".venv/a.py"))
    assert not is_users(lovecraft.__file__)
