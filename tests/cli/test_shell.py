"""`lc shell`: the same commands, each on the files as they are now."""

import builtins
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lovecraft.cli import shell

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
    assert (workspace / ".lc" / "history").is_file()


def test_it_ends_on_exit_and_goes_on_after_an_interrupt_and_a_quote_left_open(
    lc: Command, workspace: Path, typed: Callable[..., None]
) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    typed(interrupt, "show 'tiny", "diff tiny texts", "exit", "show tinny")
    done = lc("shell")
    assert done.code == 1
    assert "error: No closing quotation" in done.err


def test_an_edited_config_is_read_again(lc: Command, workspace: Path, typed: Callable[..., None]) -> None:
    file = workspace / "projects" / "tiny" / "default.py"

    def edit() -> str:
        file.write_text(file.read_text().replace("batch_size = 2", "batch_size = 77  # larger"))
        return "show tiny --diff"

    typed("show tiny --diff", edit)
    out = lc("shell").out
    assert "batch_size          2" in out
    assert "batch_size          77" in out


def test_the_first_word_completes_to_commands_and_the_others_to_configs(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complete(line: str) -> list[str]:
        text = line.rpartition(" ")[2]
        monkeypatch.setattr(shell.readline, "get_line_buffer", lambda: line)
        monkeypatch.setattr(shell.readline, "get_begidx", lambda: len(line) - len(text))
        found = []
        while (word := shell._complete(text, len(found))) is not None:
            found.append(word)
        return found

    assert complete("s") == ["show", "stop", "serve", "shell"]
    assert complete("show t") == ["texts/default", "tiny/default"]
    assert complete("show zz") == []
