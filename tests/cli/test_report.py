"""A config's own exception is shown with the user's frames: also what caused it, and what it groups."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lovecraft.cli import main

Write = Callable[[str, str], Path]


@pytest.fixture
def shown(workspace: Path, write: Write, capfd: pytest.CaptureFixture[str]) -> Callable[[str], list[str]]:
    """Return a function that shows a broken config and returns what stderr says, a line each."""

    def run(text: str) -> list[str]:
        write("projects/one/a.py", text)
        capfd.readouterr()
        assert main(["show", "one/a"]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert "lovecraft/config" not in err
        assert "importlib" not in err
        return err.replace(str(workspace), "…").splitlines()

    return run


def test_the_cause_of_an_exception_is_shown_too(shown: Callable[[str], list[str]], write: Write) -> None:
    write(
        "projects/one/helper.py",
        """
        import json

        def read() -> None:
            try:
                json.loads("{")
            except ValueError as error:
                raise OSError("no settings") from error
        """,
    )
    found = [line for line in shown("from projects.one import helper\nhelper.read()\n") if line[:5] != "    ^"]
    assert [line for line in found if line.startswith("  File")] == [
        '  File "…/projects/one/helper.py", line 5, in read',
        '  File "…/projects/one/a.py", line 2, in <module>',
        '  File "…/projects/one/helper.py", line 7, in read',
    ]
    assert found[0] == "Traceback (most recent call last; your files only):"
    assert "The above exception was the direct cause of the following exception:" in found
    assert found[-1] == "OSError: no settings"


def test_the_exceptions_of_a_group_are_shown_trimmed(shown: Callable[[str], list[str]]) -> None:
    found = shown(
        """
        import json

        def read(text: str) -> Exception:
            try:
                return json.loads(text)
            except ValueError as error:
                return error

        raise ExceptionGroup("both", [read("{"), KeyError("k")])
        """
    )
    assert [line.strip(" |") for line in found if "File" in line] == [
        'File "…/projects/one/a.py", line 9, in <module>',
        'File "…/projects/one/a.py", line 5, in read',
    ]
    assert any("KeyError: 'k'" in line for line in found)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (
            """
            from lovecraft import derived
            from projects.tiny import default

            class Train(default.Train):
                @derived
                def batch_size(self) -> int:
                    return 1 // 0
            """,
            "line 7, in batch_size",
        ),
        (
            """
            from lovecraft import derived
            from projects.tiny import default

            class Data(default.Dataset):
                def half(self) -> int:
                    return self.block_size // 0

            class Train(default.Train):
                dataset = Data

                @derived
                def batch_size(self) -> int:
                    return self.dataset.half()
            """,
            "line 6, in half",
        ),
        (
            """
            from typing import Annotated
            from projects.tiny import default

            def check(value: int) -> None:
                {}["x"]

            class Train(default.Train):
                mine: Annotated[int, check] = 1
            """,
            "line 5, in check",
        ),
    ],
)
def test_what_is_raised_while_values_are_computed_is_the_users_too(
    shown: Callable[[str], list[str]], text: str, place: str
) -> None:
    assert any(line.endswith(place) for line in shown(text))


def test_a_syntax_error_shows_its_line_and_a_caret(shown: Callable[[str], list[str]]) -> None:
    found = shown("x = 1\nclass Train(:\n")
    assert found[0].endswith('File "…/projects/one/a.py", line 2')
    assert found[-2].strip("~ ") == "^"
    assert found[-1] == "SyntaxError: invalid syntax"
