"""`lc` itself: help, exit codes, and how errors look."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft import __version__
from lovecraft.cli import COMMANDS, console, main
from lovecraft.cli import show as show_command
from lovecraft.errors import LovecraftError, TrainingFailed

Command = Callable[..., Any]
Write = Callable[[str, str], Path]
ROOT = Path(__file__).parents[2]


# --- help -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"]])
def test_help_lists_every_command(lc: Command, words: list[str]) -> None:
    done = lc(*words)
    assert (done.code, done.err) == (0, "")
    for name, line in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", done.out, re.MULTILINE)


def test_the_version_is_printed(lc: Command) -> None:
    assert lc("--version").out == f"lovecraft {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(lc: Command, name: str) -> None:
    command = importlib.import_module(f"lovecraft.cli.{name}")
    done = lc(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"usage: lc {name}")
    assert not done.out.partition("\n")[0].endswith(" ")
    assert COMMANDS[name] in done.out
    assert done.out.endswith(f"\nexample: {command.EXAMPLE}\n")
    assert command.EXAMPLE.startswith(f"lc {name}")


# --- errors -----------------------------------------------------------------------------------------


def test_an_unknown_command_suggests_one(lc: Command) -> None:
    done = lc("shwo", "tiny")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: no command 'shwo'; did you mean 'show'?\n\nhint: `lc --help` lists them\n"


def test_an_unknown_flag_of_a_command_is_refused(lc: Command) -> None:
    done = lc("ls", "--jsn")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: lc ls takes no '--jsn'\n\nhint: `lc ls --help` lists its flags\n"


def test_a_flag_without_its_value_is_refused_without_a_usage_dump(lc: Command, workspace: Path) -> None:
    done = lc("show", "tiny", "--why")
    assert done.code == 2
    assert done.err.startswith("error: lc show: argument --why: expected one argument\n")
    assert "usage" not in done.err


def test_flags_are_never_abbreviated(lc: Command, workspace: Path) -> None:
    assert lc("show", "tiny", "--js").code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [(LovecraftError("m", hint="h"), 2), (TrainingFailed("m", hint="h"), 3), (KeyboardInterrupt(), 130)],
)
def test_errors_become_messages_and_exit_codes(
    lc: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(args: object) -> int:
        raise error

    monkeypatch.setattr(show_command, "run", fail)
    done = lc("show")
    assert (done.code, done.out) == (code, "")
    assert done.err == ("" if code == 130 else "error: m\n\nhint: h\n")


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    def fail(args: object) -> int:
        raise RuntimeError("ours")

    monkeypatch.setattr(show_command, "run", fail)
    main(["ls"])
    with pytest.raises(RuntimeError, match="ours"):
        main(["show", "tiny"])


@pytest.fixture
def stderr(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return `lc` for the commands whose error has a traceback: it returns stderr, and checks exit code and stdout."""

    def run(*words: str) -> str:
        capfd.readouterr()
        assert main(words) == 2
        out, err = capfd.readouterr()
        assert out == ""
        return str(err)

    return run


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("import numpyy\n", "ModuleNotFoundError: No module named 'numpyy'"),
        ("import json\njson.loads('{')\n", "json.decoder.JSONDecodeError: "),
    ],
)
def test_an_error_of_a_users_module_keeps_its_traceback_trimmed_to_the_users_files(
    stderr: Callable[..., str], workspace: Path, write: Write, text: str, last: str
) -> None:
    file = write("projects/one/bad.py", text)
    lines = stderr("show", "one/bad").splitlines()
    assert lines[0] == "Traceback (most recent call last; your files only):"
    assert lines[1] == f'  File "{file}", line {len(text.splitlines())}, in <module>'
    assert lines[-1].startswith(last)
    assert [line for line in lines if line.startswith("  File ")] == [lines[1]]


def test_an_error_in_a_module_that_a_users_module_imports_shows_both(
    stderr: Callable[..., str], workspace: Path, write: Write
) -> None:
    inner = write("projects/one/inner.py", "1 / 0\n")
    outer = write("projects/one/outer.py", "import os\nfrom projects.one import inner\n")
    err = stderr("show", "one/outer")
    assert f'File "{outer}", line 2' in err
    assert f'File "{inner}", line 1' in err
    assert "importlib" not in err
    assert str(ROOT / "lovecraft") not in err


def test_an_error_in_a_derived_value_points_into_it(stderr: Callable[..., str], workspace: Path, write: Write) -> None:
    file = write(
        "projects/one/zero.py",
        """
        from lovecraft import derived
        from projects.tiny import default

        class Train(default.Train):
            @derived
            def batch_size(self) -> int:
                return 1 // (self.max_steps - 4)
        """,
    )
    err = stderr("show", "one/zero")
    assert f'File "{file}", line 7, in batch_size' in err
    assert err.endswith("ZeroDivisionError: integer division or modulo by zero\n")
    assert main(["show", "one/zero", "--max-steps", "5"]) == 0


@pytest.mark.parametrize("content", [b"class Train(:\n", b"def f():\nreturn\n"])
def test_a_module_that_cannot_be_compiled_is_shown_without_our_frames(
    stderr: Callable[..., str], workspace: Path, content: bytes
) -> None:
    (workspace / "projects" / "tiny" / "bad.py").write_bytes(content)
    err = stderr("show", "tiny/bad")
    assert "Error: " in err.splitlines()[-1]
    assert "lovecraft" not in err
    assert "importlib" not in err


def test_a_broken_workspace_file_is_the_users_too(stderr: Callable[..., str], workspace: Path, write: Write) -> None:
    write("workspace.py", "import numpyy\n")
    err = stderr("show", "tiny")
    assert 'workspace.py", line 1' in err
    assert 'tiny/default.py", line 2' in err
    assert err.endswith("ModuleNotFoundError: No module named 'numpyy'\n")


# --- streams ----------------------------------------------------------------------------------------


def test_a_reader_that_has_read_enough_ends_it_quietly(workspace: Path) -> None:
    """`lc show | head -1`: no traceback, no complaint at shutdown."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lovecraft", "show", "tiny"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, cwd=workspace, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


class Terminal:
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "fancy"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], fancy: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert console.fancy(Terminal()) is fancy  # type: ignore[arg-type]
    assert not console.fancy(sys.__stdout__) or sys.__stdout__.isatty()


def test_a_pipe_gets_no_escape_codes(lc: Command, workspace: Path) -> None:
    for words in (["show", "tiny"], ["ls"], ["show", "nowhere"], ["show", "--help"]):
        done = lc(*words)
        assert "\033" not in done.out + done.err


def test_a_terminal_gets_the_same_words_in_a_table(
    lc: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = lc("ls").out.split()
    monkeypatch.setattr(console, "fancy", lambda stream: True)
    assert re.sub(r"\033\[[\d;]*m", "", lc("ls").out).split() == plain


@pytest.mark.parametrize("width", [80, 50])
def test_a_name_in_a_table_is_never_broken_into_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(console, "fancy", lambda stream: True)
    console.table([("source", "/long" * 30, "projects/my_texts/default.py:9")], ("option", "value", "origin"))
    assert "projects/my_texts/default.py:9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (269e6, "269.0 MB"), (5e13, "50000.0 GB")]
)
def test_sizes_are_written_for_people(count: float, text: str) -> None:
    assert console.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.2, "4.2 s"), (59.96, "60.0 s"), (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (7440, "2 h 04 min")],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_help_of_a_command_is_its_help(lc) -> None:
    assert lc("help", "train").out == lc("train", "--help").out


def test_head_ends_the_help_quietly() -> None:
    command = f"{sys.executable} -m lovecraft --help | head -1"
    for _ in range(5):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert (done.stderr, done.stdout.count("\n")) == ("", 1)
