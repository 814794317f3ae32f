"""`lc convert`: the destination on stdout, the talk on stderr, mistakes as messages."""

from pathlib import Path

import pytest

from lovecraft.cli import main
from tests.convert.gguf_writer import tiny_gguf


def test_the_destination_is_data_and_the_rest_is_talk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(tiny_gguf(tmp_path / "a.gguf", "Q8_0")), str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert "wrote 20 tensors" in said.err
    assert "float32 (what Q8_0 weights" in said.err
    assert (out / "config.json").is_file()


def test_a_dry_run_says_what_it_would_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(tiny_gguf(tmp_path / "a.gguf"))
    assert main(["convert", "--dry-run", source, str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
    assert "would write 20 tensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["absent.gguf", "out"], "there is no absent.gguf"),
        ([__file__, "out"], "it is no GGUF file"),
        (["only-one"], "a source and a destination"),
        (["a", "b", "c"], "takes no 'c'"),
        (["a", "b", "--dtype", "int8"], "invalid choice"),
        (["a", "b", "--epochs", "3"], "takes no '--epochs'"),
    ],
)
def test_mistakes_are_messages(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert complaint in said.err
