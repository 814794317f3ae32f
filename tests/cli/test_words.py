"""Taking a command line apart: own flags, bare words, options."""

import argparse

import pytest

from lovecraft.cli.words import Words, split


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    """Return a parser with a flag of each kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--diff", nargs="?", const="default")
    parser.add_argument("--why")
    parser.add_argument("--number", "-n", type=float)
    return parser


@pytest.mark.parametrize(
    ("line", "own", "bare", "options"),
    [
        ("", "", "", ""),
        ("tiny", "", "tiny", ""),
        ("--json tiny", "--json", "tiny", ""),
        ("tiny --json", "--json", "tiny", ""),
        ("tiny --max-steps 10", "", "tiny", "--max-steps 10"),
        ("tiny --max-steps=10 --json", "--json", "tiny", "--max-steps=10"),
        ("tiny --why max_steps", "--why=max_steps", "tiny", ""),
        ("--why max_steps tiny", "--why=max_steps", "tiny", ""),
        ("tiny --why --max-steps", "--why=--max-steps", "tiny", ""),
        ("tiny --why", "--why", "tiny", ""),
        ("tiny -n 3", "-n=3", "tiny", ""),
        ("tiny -n -1e-3", "-n=-1e-3", "tiny", ""),
        ("tiny --number=-3", "--number=-3", "tiny", ""),
        ("--diff tiny", "--diff", "tiny", ""),
        ("tiny --diff", "--diff", "tiny", ""),
        ("tiny --diff parent", "--diff=parent", "tiny", ""),
        ("--diff=parent tiny", "--diff=parent", "tiny", ""),
        ("tiny --diff --seed 1", "--diff", "tiny", "--seed 1"),
        ("tiny --optimizer.lr -1e-3 --json", "--json", "tiny", "--optimizer.lr -1e-3"),
        ("tiny --no-dataset.shuffle --json", "--json", "tiny", "--no-dataset.shuffle"),
        ("tiny --dataset.shuffle false", "", "tiny", "--dataset.shuffle false"),
        ("tiny extra", "", "tiny", "extra"),
        ("--seed 1 tiny", "", "", "--seed 1 tiny"),
        ("-- --json", "", "--json", ""),
        ("tiny -- --json", "", "tiny", "--json"),
        ("tiny -x", "", "tiny", "-x"),
    ],
)
def test_a_line_is_taken_apart(parser: argparse.ArgumentParser, line: str, own: str, bare: str, options: str) -> None:
    assert split(line.split(), parser, 1) == Words(own.split(), bare.split(), options.split())


def test_a_command_may_take_several_bare_words(parser: argparse.ArgumentParser) -> None:
    assert split(["a", "--json", "b", "c"], parser, 2) == Words(["--json"], ["a", "b"], ["c"])


def test_the_parser_understands_what_is_its_own(parser: argparse.ArgumentParser) -> None:
    words = split(["tiny", "-n", "-1e-3", "--why", "--seed", "--diff", "parent"], parser, 1)
    args = parser.parse_args(words.own)
    assert (args.number, args.why, args.diff, args.json) == (-1e-3, "--seed", "parent", False)


def test_an_empty_value_stays_a_value(parser: argparse.ArgumentParser) -> None:
    assert split(["tiny", "--dataset.test", "", "--why", ""], parser, 1) == Words(
        ["--why="], ["tiny"], ["--dataset.test", ""]
    )
