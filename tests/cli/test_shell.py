"""`lc shell`: the same commands, each on the files as they are now."""

import builtins
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lovecraft import cli
from lovecraft.cli import ls, shell
from lovecraft.config import record
from lovecraft.config.load import load
from lovecraft.runs import create
from tests.cli.terminal import Terminal

Command = Callable[..., Any]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets the lines to be typed; a function among them is called for its line."""

    def lines(*words: str | Callable[[], str]) -> None:
        rest: Iterator[str | Callable[[], str]] = iter(words)

        def answer(prompt: str) -> str:
            line = next(rest, None)
            if line is None:
                raise EOFError
            return line() if callable(line) else line

        monkeypatch.setattr(builtins, "input", answer)

    return lines


def test_lines_are_commands_and_the_last_exit_code_is_returned(
    lc: Command, workspace: Path, typed: Callable[..., None]
) -> None:
    typed("ls", "", "show tinny")
    done = lc("shell")
    assert done.code == 2
    assert "tiny/default" in done.out
    assert "no config 'tinny'" in done.err


def test_it_ends_on_exit_and_goes_on_after_an_interrupt_and_a_quote_left_open(
    lc: Command, workspace: Path, typed: Callable[..., None]
) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    text = (workspace / "projects/tiny/default.py").read_text()
    (workspace / "projects/tiny/other.py").write_text(text + "    seed = 1\n")
    typed(interrupt, "show 'tiny", "diff tiny tiny/other", "exit", "show tinny")
    done = lc("shell")
    assert done.code == 1
    assert "error: no closing quotation" in done.err


def test_an_edited_config_is_read_again(lc: Command, workspace: Path, typed: Callable[..., None]) -> None:
    file = workspace / "projects" / "tiny" / "default.py"

    def edit() -> str:
        file.write_text(file.read_text().replace("batch_size = 2", "batch_size = 77  # larger"))
        return "show tiny --diff"

    typed("show tiny --diff", edit)
    out = lc("shell").out
    assert "batch_size          2" in out
    assert "batch_size          77" in out


def test_a_config_in_use_is_meant_where_none_is_named(lc: Command, workspace: Path, typed: Callable[..., None]) -> None:
    typed("show --json", "use tiny", "show --json", "show texts --json", "show --why batch_size", "use", "show --json")
    done = lc("shell")
    assert done.out.count('"config": "tiny/default"') == 1
    assert done.out.count('"config": "texts/default"') == 1
    assert "batch_size  2" in done.out
    assert done.err.count("no config is named") == 2
    assert done.code == 2


def test_it_may_begin_with_a_config(lc: Command, workspace: Path, typed: Callable[..., None]) -> None:
    typed("lc plan --json --tflops none", "ls tiny", "runs")
    done = lc("shell", "tiny:Train")
    assert "expected a number" in done.err
    assert "tiny/default" in done.out
    assert done.code == 0
    assert lc("shell", "tinny").code == 2


def test_a_run_may_be_the_current_one(lc: Command, workspace: Path, typed: Callable[..., None]) -> None:
    made = record.make(load("tiny").cls, "tiny/default", workspace, {})
    directory = create(workspace, "tiny/default", made).directory
    typed("use tiny/default/001", "show --json", f"use {directory}", "show --json")
    done = lc("shell")
    assert done.out.count('"config": "tiny/default"') == 2
    assert done.code == 0


def test_an_error_of_ours_is_shown_and_the_shell_goes_on(
    workspace: Path,
    typed: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ls, "find_root", lambda: 1 / 0)
    typed("ls", "show texts")
    assert cli.main(["shell"]) == 0
    out, err = capfd.readouterr()
    assert "ZeroDivisionError" in err
    assert "block_size" in out


def test_the_shell_does_not_nest_and_its_help_is_aligned(
    lc: Command, workspace: Path, typed: Callable[..., None]
) -> None:
    typed("help", "shell tiny")
    done = lc("shell")
    assert "this is lc shell already" in done.err
    assert done.code == 2
    starts = {
        line.index(said)
        for said in ("open a config", "make a config or", "leave")
        for line in done.out.splitlines()
        if said in line
    }
    assert len(starts) == 1


def test_a_prompt_is_no_config(workspace: Path) -> None:
    session = shell.Session(workspace, "tiny")
    assert session._named(["generate", "The old lamp", "--n", "2"]) == ["generate", "tiny", "The old lamp", "--n", "2"]
    assert session._named(["generate", "texts", "The old lamp"]) == ["generate", "texts", "The old lamp"]
    assert session._named(["diff", "texts", "tiny"]) == ["diff", "texts", "tiny"]
    for words in (["ls"], ["runs"], ["new", "project"], ["init"], ["doctor"], ["no-such"]):
        assert session._named(words) == words


def test_only_what_there_is_can_be_used_and_what_breaks_later_is_told(
    lc: Command, workspace: Path, typed: Callable[..., None]
) -> None:
    file = workspace / "projects/tiny/default.py"

    def broken() -> str:
        file.write_text("class Train(:")
        return "show"

    typed("use tinny", "use tiny texts", "use tiny", broken, "help", "ls tiny")
    done = lc("shell")
    assert "no config 'tinny'; did you mean tiny" in done.err
    assert "use takes one config, not 'tiny texts'" in done.err
    assert "projects/tiny/default.py" in done.err
    assert "make a config or a run the current one" in done.out
    assert done.code == 1


def test_lines_that_are_pasted_together_are_commands_one_by_one() -> None:
    assert shell.commands("show a\nlc show b --x '1 2'\n\n  \nls") == [
        ["show", "a"],
        ["show", "b", "--x", "1 2"],
        ["ls"],
    ]
    assert shell.commands("generate a \"one\ntwo\" ''") == [["generate", "a", "one\ntwo", ""]]
    assert shell.commands(" \n\n lc") == []


def test_lines_from_a_pipe_are_read_without_a_prompt(workspace: Path) -> None:
    command = [sys.executable, "-m", "lovecraft", "shell"]
    lines = "use tiny\nshow --why batch_size\nshow tinny\n"
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False, cwd=workspace)
    assert done.returncode == 2
    assert done.stdout.startswith("batch_size  2")
    assert "lc>" not in done.stdout + done.stderr
    assert not (workspace / ".lc/history").exists()


# --- at a terminal ------------------------------------------------------------------------------------


@pytest.fixture
def terminal(workspace: Path) -> Iterator[Callable[..., Terminal]]:
    """Return a function that starts Python in the workspace, `lc shell` by default."""
    started: list[Terminal] = []

    def start(*words: str) -> Terminal:
        command = words or ("-m", "lovecraft", "shell")
        started.append(Terminal([sys.executable, *command], workspace, INPUTRC="/dev/null", NO_COLOR="1"))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_the_prompt_names_the_config_and_tab_completes_the_line(terminal: Callable[..., Terminal]) -> None:
    lc = terminal()
    lc.until("lc> ")
    lc.type("us\ttin\t\n")
    lc.until("lc tiny> ")
    lc.type("sho\t--wh\toptimizer.l\t\n")
    assert "optimizer.lr  0.001" in lc.until("lc tiny> ")
    lc.type("show texts:D\t--js\t\n")
    assert '"config": "texts/default"' in lc.until("lc tiny> ")
    lc.type("show --optimizer=Adaf\t")
    lc.until("--optimizer=Adafactor ")
    time.sleep(0.2)
    lc.type("\x03")
    lc.until("lc tiny> ")
    lc.type("use\n")
    lc.until("lc> ")
    assert lc.leave() == 0


def test_control_c_drops_the_line_and_the_history_is_kept(terminal: Callable[..., Terminal], workspace: Path) -> None:
    lc = terminal()
    lc.until("lc> ")
    lc.type("show tin")
    lc.until("show tin")
    time.sleep(0.2)  # Python sees a signal that comes just before it waits for a key only at the next key
    lc.type("\x03")
    lc.until("lc> ")
    lc.type("show tinny\n")
    lc.until("no config 'tinny'[\\s\\S]*lc> ")
    assert lc.leave() == 2
    assert "show tinny" in (workspace / ".lc/history").read_text()

    again = terminal()
    again.until("lc> ")
    again.type("\x1b[A")
    again.until("show tinny")
    assert again.leave("\nexit\n") == 2


def test_a_history_that_cannot_be_written_and_a_python_without_readline_are_no_obstacle(
    terminal: Callable[..., Terminal], workspace: Path
) -> None:
    (workspace / ".lc").write_text("in the way")
    program = "import sys; sys.modules['readline'] = None; from lovecraft.cli import main; sys.exit(main(['shell']))"
    for lc in (terminal(), terminal("-c", program)):
        lc.until("lc> ")
        lc.type("show tiny --why seed\n")
        lc.until("seed  42[\\s\\S]*lc> ")
        assert lc.leave() == 0
