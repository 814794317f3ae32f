"""`lc data`: what it prints, with and without a tokenizer."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lovecraft.cli import console
from lovecraft.tokenizer import load_tokenizer
from lovecraft.train import loop
from tests.tiny import BOS_ID, tiny_model_dir, write_tokenizer

NUMBERS = ["documents", "characters", "tokens", "blocks", "supervised_tokens", "dropped_tokens"]


@pytest.fixture
def model(workspace: Path) -> Path:
    """Put the workspace's model, or at least its tokenizer, in its place."""
    write_tokenizer(workspace / "models" / "tiny")
    return workspace / "models" / "tiny"


def rows(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def characters(workspace: Path, *names: str) -> int:
    return sum(len((workspace / "texts" / f"{name}.txt").read_text()) for name in names)


# --- without a tokenizer --------------------------------------------------------------------------


def test_documents_and_characters_are_counted_without_a_tokenizer(lc: Callable[..., Any], workspace: Path) -> None:
    done = lc("data", "texts")

    assert done.code == 0
    assert [line.split() for line in done.out.splitlines()] == [
        ["split", "documents", "characters"],
        ["train", "2", f"{characters(workspace, 'a', 'b'):,}"],
        ["validation", "1", f"{characters(workspace, 'c'):,}"],
    ]
    assert "--tokenizer" in done.err


def test_json_without_a_tokenizer_has_null_for_tokens(lc: Callable[..., Any], workspace: Path) -> None:
    shown = json.loads(lc("data", "texts", "--json").out)

    assert shown["tokenizer"] is None
    assert list(shown["splits"]) == ["train", "validation"]
    assert list(shown["splits"]["train"]) == NUMBERS
    assert shown["splits"]["train"]["characters"] == characters(workspace, "a", "b")
    assert shown["splits"]["train"]["tokens"] is None


@pytest.mark.parametrize("view", [["--blocks"], ["--stats"], ["--histogram"], ["--find", "night"]])
def test_what_needs_tokens_names_the_flag(view: list[str], lc: Callable[..., Any], workspace: Path) -> None:
    done = lc("data", "texts", *view)

    assert (done.code, done.out) == (2, "")
    assert "--tokenizer" in done.err


def test_a_config_of_training_shows_its_dataset(lc: Callable[..., Any], workspace: Path) -> None:
    assert lc("data", "tiny").out == lc("data", "texts").out


def test_documents_are_shown_with_their_first_lines(lc: Callable[..., Any], workspace: Path) -> None:
    (workspace / "texts" / "b.txt").write_text("\n".join(f"line {i} " + "x" * 200 for i in range(9)))
    out = lc("data", "texts", "-n", "2").out

    assert f"── train · a.txt · {characters(workspace, 'a')} characters ──\nThe tale of a.\n" in out
    assert "line 4" in out
    assert "line 5" not in out
    assert max(map(len, out.splitlines())) == 100


def test_documents_are_cut_at_the_terminals_width(
    lc: Callable[..., Any], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, lc("data", "texts", "-n", "1").out.splitlines())) == 40


def test_documents_as_json_are_whole(lc: Callable[..., Any], workspace: Path) -> None:
    [shown] = rows(lc("data", "texts", "-n", "5", "--split", "validation", "--json").out)

    text = (workspace / "texts" / "c.txt").read_text()
    assert shown == {"document": "c.txt", "characters": len(text), "text": text}


# --- with one -------------------------------------------------------------------------------------


def test_the_table_counts_everything(lc: Callable[..., Any], model: Path) -> None:
    done = lc("data", "texts")
    head, train, *_ = (line.split() for line in done.out.splitlines())

    assert head == ["split", "documents", "characters", "tokens", "blocks", "supervised", "dropped", "shared", "full"]
    numbers = dict(zip(head[1:-1], (int(cell.replace(",", "")) for cell in train[1:-1]), strict=True))
    assert train[-1] == f"{(numbers['tokens'] + numbers['shared']) / (32 * numbers['blocks']):.1%}"
    assert numbers["tokens"] == numbers["supervised"] + numbers["documents"]
    assert numbers["shared"] == 8 * (numbers["blocks"] - numbers["documents"])
    assert done.err == ""


def test_json_has_the_documented_shape(lc: Callable[..., Any], model: Path) -> None:
    shown = json.loads(lc("data", "texts", "--json").out)

    assert list(shown) == ["tokenizer", "splits"]
    assert shown["tokenizer"] == "//models/tiny"
    assert [list(row) for row in shown["splits"].values()] == [NUMBERS, NUMBERS]
    assert all(type(number) is int for row in shown["splits"].values() for number in row.values())


def test_one_split_alone(lc: Callable[..., Any], model: Path) -> None:
    shown = json.loads(lc("data", "texts", "--json", "--split", "validation").out)

    assert list(shown["splits"]) == ["validation"]
    assert lc("data", "texts", "--check", "--split", "validation").out.count("validation:") == 2


def test_a_flag_gives_the_tokenizer(lc: Callable[..., Any], workspace: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "elsewhere")

    shown = json.loads(lc("data", "texts", "--json", "--tokenizer", tmp_path / "elsewhere").out)

    assert shown["splits"]["validation"]["tokens"] > 0


def test_blocks_as_json_lines_make_up_the_documents(lc: Callable[..., Any], model: Path, workspace: Path) -> None:
    blocks = rows(lc("data", "texts", "--split", "train", "--blocks", "--json").out)
    tokenizer = load_tokenizer(model)

    assert all(list(block) == ["document", "block", "input_ids", "labels"] for block in blocks)
    for name in ("a.txt", "b.txt"):
        own = [block for block in blocks if block["document"] == name]
        assert [block["block"] for block in own] == list(range(len(own)))
        assert own[0]["input_ids"][0] == BOS_ID
        assert all(block["labels"][0] == -100 for block in own)
        labels = [label for block in own for label in block["labels"] if label != -100]
        assert tokenizer.decode(labels) == (workspace / "texts" / name).read_text()
    assert len(rows(lc("data", "texts", "--blocks", "--json", "-n", "2").out)) == 2


def test_blocks_as_text_show_their_boundaries(lc: Callable[..., Any], model: Path) -> None:
    done = lc("data", "texts", "--blocks", "-n", "2", "--block-size", "20", "--stride", "4")

    first, second = done.out.split("\n\n── ")
    assert first.startswith("── train 0 · a.txt · block 0 · 20 tokens ──\n<s>The tale of a.\n\n")
    assert second.startswith("train 1 · a.txt · block 1 · 20 tokens, 4 of them shared ──\n⟦")
    shared = second.partition("⟦")[2].partition("⟧")[0]
    assert first.endswith(shared)
    assert done.err.startswith("2 of ")


def test_blocks_are_coloured_at_a_terminal_only(
    lc: Callable[..., Any], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\033[" not in lc("data", "texts", "--blocks").out

    monkeypatch.setattr(console, "fancy", lambda stream: True)
    out = lc("data", "texts", "--blocks").out

    assert "\033[1;35m<s>\033[0m" in out
    assert "⟦\033[2m" in out


def test_what_a_terminal_would_obey_is_shown_instead(lc: Callable[..., Any], model: Path, workspace: Path) -> None:
    (workspace / "texts" / "a.txt").write_text("a\033]0;title\a\tb\x9b2J")

    for view in ["--blocks"], ["-n", "1"]:
        assert "a␛]0;title␇\tb�2J" in lc("data", "texts", *view).out


def test_packed_blocks_show_their_pieces(lc: Callable[..., Any], model: Path, workspace: Path) -> None:
    (workspace / "texts" / "b.txt").write_text("Short.")
    (workspace / "texts" / "d.txt").write_text("Brief.")
    packed = ["data", "texts", "--packing", "best_fit"]
    table, done = lc(*packed), lc(*packed, "--blocks", "-n", "99")

    [several] = [block for block in rows(lc(*packed, "--blocks", "--json").out) if "pieces" in block]
    assert [piece["document"] for piece in several["pieces"]] == ["b.txt", "d.txt"]
    assert sum(piece["tokens"] for piece in several["pieces"]) == len(several["input_ids"]) == len(several["labels"])
    assert f" · 2 pieces · {len(several['input_ids'])} tokens ──\n·· b.txt · block 0 · " in done.out
    assert "\n<s>Short.</s>\n·· d.txt · block 0 · " in done.out
    assert table.err == "packing best_fit, of train alone\n"


def test_what_a_conversation_does_not_teach_is_enclosed(lc: Callable[..., Any], model: Path, workspace: Path) -> None:
    (workspace / "pairs.jsonl").write_text('{"q": "Who? ", "a": "I."}\n')
    pairs = ["data", "texts", "--source", "pairs.jsonl", "--validation", "none", "--prompt-field", "q"]
    pairs += ["--response-field", "a"]

    assert lc(*pairs, "--blocks").out.endswith("\n⟪<s>Who?⟫ I.</s>\n\n")
    assert lc(*pairs).out.splitlines()[0].split()[-2:] == ["masked", "full"]
    assert " masked + 0 dropped" in lc(*pairs, "--check").out


# --- a step of training ---------------------------------------------------------------------------


def test_a_steps_blocks_are_those_that_training_takes(
    lc: Callable[..., Any], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model_dir(workspace / "models" / "tiny")
    taken: list[list[int]] = []
    collate = loop.collate
    monkeypatch.setattr(
        loop, "collate", lambda b, some, device: taken.append(some.tolist()) or collate(b, some, device)
    )
    options = ["tiny", "--accumulation", "2", "--dataset.packing", "greedy", "--eval", "none", "--save", "none"]
    every = rows(lc("data", *options, "--blocks", "--json").out)

    assert lc("train", *options).code == 0
    for step in range(1, 5):
        passes = taken[2 * step - 2 : 2 * step]
        named = rows(lc("data", *options, "--step", str(step), "--json").out)
        blocks = rows(lc("data", *options, "--step", str(step), "--blocks", "--json").out)

        assert list(dict.fromkeys((row["pass"], row["number"]) for row in named)) == [
            (number, i) for number, numbers in enumerate(passes, 1) for i in numbers
        ]
        assert blocks == [every[i] for numbers in passes for i in numbers]
    table = lc("data", *options, "--step", "1").out
    assert table.split("\n")[0].split() == ["pass", "number", "document", "block", "tokens"]


def test_a_run_says_when_it_was_trained_on_another_corpus(
    lc: Callable[..., Any], workspace: Path, write: Callable[[str, str], Path]
) -> None:
    tiny_model_dir(workspace / "models" / "tiny")
    assert lc("train", "tiny", "--eval", "none", "--save", "none").code == 0
    run = "runs/tiny/default/001"
    assert lc("data", run, "--step", "1").err == ""

    write("texts/a.txt", "Another text, which the run has never seen.")
    expected = f"{run} was trained on another corpus than this, which is there now\n"
    assert [lc("data", run, *view).err for view in (["--step", "1"], ["--stats"], [])] == [expected] * 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny", "--step", "5"], "there is no step 5: the last one is 4"),
        (["tiny", "--step", "0"], "--step"),
        (["tiny", "--step", "1", "-n", "1"], "--step prints"),
        (["tiny", "--step", "1", "--split", "validation"], "--step prints"),
        (["tiny", "--step", "1", "--stats"], "--step prints"),
        (["texts", "--step", "1"], "name a Train config"),
    ],
)
def test_a_step_that_there_is_not_is_refused(
    words: list[str], message: str, lc: Callable[..., Any], model: Path
) -> None:
    done = lc("data", *words)

    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_stats_describe_documents_and_blocks(lc: Callable[..., Any], model: Path) -> None:
    shown = json.loads(lc("data", "texts", "--stats", "--json").out)
    table = lc("data", "texts", "--stats", "--split", "validation").out

    assert list(shown) == ["train", "validation"]
    assert shown["train"]["documents"]["count"] == 2
    assert shown["train"]["blocks"]["max"] == 32
    assert list(shown["train"]["blocks"]) == ["count", "min", "max", "mean", "median", "std"]
    assert [line.split()[:2] for line in table.splitlines()[1:]] == [
        ["validation", "documents"],
        ["validation", "blocks"],
    ]


def test_a_histogram_is_drawn_in_the_terminal_or_a_file(lc: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    bars = json.loads(lc("data", "texts", "--histogram", "--json").out)
    drawn = lc("data", "texts", "--histogram").out.splitlines()
    done = lc("data", "texts", "--histogram", tmp_path / "lengths.svg")

    assert (done.code, done.out) == (0, f"{tmp_path / 'lengths.svg'}\n")
    assert len(drawn) == len(bars)
    assert drawn[-1].split()[-1] == str(bars[-1]["blocks"])
    assert "█" * 50 in "\n".join(drawn)
    ElementTree.parse(tmp_path / "lengths.svg")


def test_a_histogram_that_is_no_svg_or_cannot_be_written_is_refused(
    lc: Callable[..., Any], model: Path, workspace: Path
) -> None:
    (workspace / "file").write_text("")

    assert lc("data", "texts", "--histogram", "lengths.png").code == 2
    assert lc("data", "texts", "--histogram", "file/lengths.svg").code == 2
    assert lc("data", "texts", "--histogram", "nowhere/lengths.svg").code == 2


def test_find_names_document_and_block(lc: Callable[..., Any], model: Path) -> None:
    [hit] = rows(lc("data", "texts", "--find", "tale of c", "--json").out)
    table = lc("data", "texts", "--find", "tale of").out.splitlines()

    assert hit == {"split": "validation", "document": "c.txt", "block": 0, "character": 4, "number": 0}
    assert [line.split()[:2] for line in table] == [
        ["split", "document"],
        ["train", "a.txt"],
        ["train", "b.txt"],
        ["validation", "c.txt"],
    ]


def test_find_exits_1_where_nothing_is_found(lc: Callable[..., Any], model: Path) -> None:
    done = lc("data", "texts", "--find", "tale of c", "--split", "train")

    assert (done.code, done.out) == (1, "")
    assert "none of train" in done.err
    assert lc("data", "texts", "--find", "").code == 2


def test_check_prints_the_identities_and_exits_0_without_trouble(lc: Callable[..., Any], model: Path) -> None:
    done = lc("data", "texts", "--check")

    assert done.code == 0
    assert "document tokens = " in done.out
    assert "block tokens = " in done.out
    assert done.out.endswith("0 notes, 0 troubles\n")
    shared = int(re.search(r"([\d,]+) shared", done.out)[1].replace(",", ""))
    again = f" supervised (and {shared * 7 // 8:,} again) + 2 first"  # all of the 8 shared tokens but the first
    assert again in lc("data", "texts", "--check", "--train-on-overlap").out


@pytest.mark.parametrize("with_tokens", [True, False])
def test_check_exits_1_on_trouble(lc: Callable[..., Any], workspace: Path, with_tokens: bool) -> None:
    if with_tokens:
        write_tokenizer(workspace / "models" / "tiny")
    (workspace / "texts" / "d.txt").write_bytes(b"\xef\xbb\xbf" + (workspace / "texts" / "c.txt").read_bytes())

    done = lc("data", "texts", "--check")

    assert done.code == 1
    assert "note: d.txt: byte order mark removed" in done.out
    assert "trouble: the same text is in train (d.txt) and in validation (c.txt)" in done.out
    shown = lc("data", "texts", "--check", "--json")
    assert (shown.code, len(json.loads(shown.out)["troubles"])) == (1, 1)
    plain = lc("data", "texts")
    assert plain.code == 0
    assert plain.err.splitlines()[-1] == "1 note, 1 trouble; --check prints them"


# --- wrong input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stride", "32"], "stride"),
        (["--min-length", "30"], "min_length (30)"),
        (["--split", "test", "-n", "1"], "has no test split"),
        (["--split", "testing"], "--split"),
        (["-n", "0"], "-n"),
        (["-n", "many"], "-n"),
        (["-n", "2", "--check"], "-n"),
        (["--blocks", "--stats"], "not allowed with"),
        (["--validation", "x.txt"], "matches no file"),
        (["--tokenizer", "nowhere"], "nowhere"),
        (["--source", "nowhere"], "does not exist"),
    ],
)
def test_a_wrong_word_is_answered_with_a_message(
    words: list[str], message: str, lc: Callable[..., Any], workspace: Path
) -> None:
    done = lc("data", "texts", *words)

    assert (done.code, done.out) == (2, "")
    assert message in done.err


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "b.txt is empty"), (b"caf\xe9", "b.txt is not UTF-8 at byte 3")]
)
def test_a_broken_text_is_named(content: bytes, message: str, lc: Callable[..., Any], workspace: Path) -> None:
    (workspace / "texts" / "b.txt").write_bytes(content)

    done = lc("data", "texts")

    assert done.code == 2
    assert message in done.err
