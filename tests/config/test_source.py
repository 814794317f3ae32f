"""The sentence under an option and the comment behind a value, as the source says them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft import Config, TrainConfig, derived
from lovecraft.config.source import comment, last_comment, sentence

Write = Callable[[str, str], Path]


class Documented(Config):
    plain: int = 1
    """One line."""

    wrapped: int = 2
    """A sentence that
    goes on.

    And more.
    """

    bare: int = 3

    constant: int = 4
    5  # noqa: B018

    @derived
    def computed(self) -> int:
        """What a method says."""
        return 1


class Child(Documented):
    plain = 5
    """Not a declaration: an override says nothing of what the option is."""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plain", "One line."),
        ("wrapped", "A sentence that\ngoes on.\n\nAnd more."),
        ("bare", ""),
        ("constant", ""),
        ("computed", "What a method says."),
        ("nothing", ""),
    ],
)
def test_a_sentence_is_the_string_under_the_declaration(name: str, said: str) -> None:
    assert sentence(Documented, name) == said
    assert sentence(Child, name) == said


def test_a_sentence_is_found_in_classes_of_functions() -> None:
    class Local(Config):
        option: int = 1
        """Said here."""

    assert sentence(Local, "option") == "Said here."


def test_a_sentence_is_found_in_classes_inside_classes() -> None:
    class Outer(Config):
        inner: type[Documented]

        class inner(Documented):
            option: int = 1
            """Said inside."""

    assert sentence(Outer.inner, "option") == "Said inside."


def test_an_override_by_derived_keeps_the_sentence_of_the_declaration_unless_it_has_one() -> None:
    class Silent(TrainConfig):
        @derived
        def batch_size(self) -> int:
            return 1

    class Speaking(TrainConfig):
        @derived
        def batch_size(self) -> int:
            """As many as fit."""
            return 1

    assert sentence(Silent, "batch_size") == "Blocks in one forward pass."
    assert sentence(Speaking, "batch_size") == "As many as fit."


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x = 1", ""),
        ("x = 1  # because", "because"),
        ("x = 1  ## twice # more", "twice # more"),
        ("x = 'a # b'", ""),
        ('x = "a # b"  # real', "real"),
        ("x = '#'  # real", "real"),
        ('x = "it\'s # here"  # real', "real"),
        ('x = """a # b', ""),
        ('x = """a # b"""  # real', "real"),
        ("x = (  # opens", "opens"),
        ("x = ('a#b',  # opens", "opens"),
        ("x = f'{y}#'  # real", "real"),
        ("x = 1  # noqa: F401", ""),
        ("x = 1  # type: ignore[assignment]", ""),
        ("x = 1  # pyrefly: ignore", ""),
        ("    x = 'indented'  # real", "real"),
        ("# only", "only"),
        ("", ""),
    ],
)
def test_a_comment_is_what_ends_the_line_outside_of_strings(write: Write, line: str, said: str) -> None:
    assert comment(str(write("a.py", line + "\n")), 1) == said


def test_there_is_no_comment_where_there_is_no_source() -> None:
    assert comment("<stdin>", 1) == ""
    assert comment("/nowhere.py", 1) == ""


def test_a_functions_comment_is_its_last(define: Callable[..., Any]) -> None:
    text = """
        from lovecraft import derived
        import workspace

        class Train(workspace.Train):
            @derived
            def batch_size(self) -> int:  # not this one
                small = 1  # nor this one
                # nor one that stands alone
                return max(small, 2)  # this

            @derived
            def seed(self) -> int:
                return (
                    1  # deep
                    + 2
                )

            @derived
            def accumulation(self) -> int:
                return len("# none")
    """
    cls = define(text)
    found = {name: last_comment(vars(cls)[name].function) for name in ("batch_size", "seed", "accumulation")}
    assert found == {"batch_size": "this", "seed": "deep", "accumulation": ""}


def test_an_edited_file_is_read_again_after_forgetting(write: Write) -> None:
    from lovecraft.config.source import forget

    file = write("a.py", "x = 1  # old\n")
    assert comment(str(file), 1) == "old"
    write("a.py", "x = 1  # new, and longer\n")
    forget()
    assert comment(str(file), 1) == "new, and longer"
