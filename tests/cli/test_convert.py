"""`lc convert`: the destination on stdout, the talk on stderr, mistakes as messages."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lovecraft.checkpoint import load_model
from lovecraft.cli import main
from lovecraft.convert import write
from lovecraft.hub import fetch
from lovecraft.models import read_architecture
from tests.cli.terminal import Terminal
from tests.convert.gguf_writer import tiny_gguf
from tests.hub import hubs
from tests.tiny import tiny_model_dir

Lc = Callable[..., Any]
ROOT = Path(__file__).parents[2]


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


def test_a_directory_becomes_a_gguf_and_says_how_far_the_logits_are(lc: Lc, tmp_path: Path) -> None:
    done = lc("convert", tiny_model_dir(tmp_path / "a"), "b.gguf", "--type", "q8_0")
    assert (done.code, done.out) == (0, "b.gguf\n")
    assert re.search(
        r"wrote 21 tensors, 1\d\d\.\d kB in Q8_0 in .*, verified\nlogits .* differ by [0-7]\.\d\d%", done.err
    )


def test_a_dry_run_lists_the_shards_and_writes_nothing(lc: Lc, tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a", intermediate_size=4096)
    done = lc("convert", source, "b", "--shard-size", "4MB", "--dry-run")
    assert done.code == 0
    rows = re.findall(r"  model-0000(\d)-of-00002\.safetensors  \d", done.err)
    assert rows == ["1", "2"]
    assert ", 2 files" in done.err
    assert os.listdir(tmp_path) == ["a"]
    assert lc("convert", source, "b", "--shard-size", "4 MB").code == 0
    assert sorted(file.name for file in (tmp_path / "b").glob("*.safetensors"))[0] == "model-00001-of-00002.safetensors"
    load_model(tmp_path / "b", dtype=torch.float32, device=torch.device("cpu"))


def test_a_scaling_is_named_in_short_with_all_its_parameters(lc: Lc, tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a")
    assert lc("convert", source, "b", "--rope-scaling", "yarn,factor=4,beta_fast=16,original_context=256").code == 0
    assert json.loads((tmp_path / "b" / "config.json").read_text())["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 16.0,
        "beta_slow": 1.0,
        "original_max_position_embeddings": 256,
    }
    for kind in ("linear", "dynamic", "llama3"):
        assert lc("convert", source, kind, "--rope-scaling", kind).code == 0
        assert read_architecture(tmp_path / kind).context == 1024


def test_a_run_gives_its_checkpoints(lc: Lc, workspace: Path) -> None:
    tiny_model_dir(workspace / "models" / "tiny", max_position_embeddings=128)
    lc("train", "tiny", "--max-steps", "2", "--save.every", "1", "--save.keep", "2")
    for words, step in (([], 2), (["--checkpoint", "1"], 1)):
        assert lc("convert", "tiny/default/001", f"out{step}", *words).code == 0
        saved = workspace / "runs/tiny/default/001/checkpoints" / f"step-{step:08d}"
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            assert (workspace / f"out{step}" / name).read_bytes() == (saved / name).read_bytes()
        assert not (workspace / f"out{step}" / "trainer").exists()
    assert lc("convert", saved, "again.gguf").code == 0
    missing = lc("convert", "tiny/default/001", "out3", "--checkpoint", "3")
    assert (missing.code, "no 3 checkpoint" in missing.err) == (2, True)


def test_a_hub_model_with_pickled_weights_is_fetched_and_converted(
    lc: Lc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_model_dir(tmp_path / "a")
    expected = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save(expected, source / "pytorch_model.bin")
    fetch.cache_clear()
    with hubs(monkeypatch, tmp_path / "huggingface") as serve_hub:
        serve_hub({"org/tiny": {file.name: file.read_bytes() for file in source.iterdir()}})
        done = lc("convert", "hf:org/tiny", "b")
    assert done.code == 0, done.err
    found = load_file(tmp_path / "b" / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_mismatch_exits_with_1_and_numbers(lc: Lc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "reorder", lambda weight, name, architecture: weight)
    done = lc("convert", tiny_model_dir(tmp_path / "a"), "b.gguf")
    assert (done.code, done.out) == (1, "")
    assert re.search(r"q_proj\.weight in \d+ of 4096 numbers, by up to \d", done.err)
    assert os.listdir(tmp_path) == ["a"]


def test_a_terminal_sees_how_far_it_is(tmp_path: Path) -> None:
    tiny_model_dir(tmp_path / "a")
    lc = Terminal([sys.executable, "-m", "lovecraft", "convert", "a", "b.gguf"], tmp_path, PYTHONPATH=str(ROOT))
    for step in ("writing 21 of 21", "verifying 21 of 21", "computing logits 2 of 2", r"\r\x1b\[Kwrote 21 tensors"):
        lc.until(step)
    lc.close()


def test_a_killed_conversion_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    program = (
        "import os, sys; from lovecraft.convert import convert; from pathlib import Path\n"
        "convert(Path('a'), Path(sys.argv[1]), tell=lambda what, done, total: done == 9 and os.kill(os.getpid(), 9))"
    )
    tiny_model_dir(tmp_path / "a")
    for name in ("b", "b.gguf"):
        command = [sys.executable, "-c", program, name]
        assert subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == -9
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == ["a"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["absent.gguf", "out"], "there is no absent.gguf"),
        ([__file__, "out"], "it is no GGUF file"),
        (["only-one"], "a source and a destination"),
        (["a", "b", "c"], "takes no 'c'"),
        (["a", "b", "--dtype", "int8"], "invalid choice"),
        (["a", "b", "--epochs", "3"], "takes no '--epochs'"),
        (["a", "b", "--type", "q8_0"], "--type has no effect on b"),
        (["a", "b.gguf", "--type", "q4_k"], "invalid choice"),
        (["a", "b.gguf", "--dtype", "float16"], "--dtype has no effect on b.gguf"),
        (["a", "b.gguf", "--shard-size", "1GB"], "--shard-size has no effect on b.gguf"),
        (["a", "b", "--shard-size", "7"], "expected a size from 1MB"),
        (["a", "b", "--shard-size", "1e9GB"], "expected a size from 1MB"),
        (["a", "b", "--shard-size", "0GB"], "expected a size from 1MB"),
        (["a", "b", "--max-context", "0"], "expected a whole number from 1"),
        (["a", "b", "--rope-scaling", "ntk"], "expected one of linear, dynamic, llama3, yarn, not 'ntk'"),
        (["a", "b", "--rope-scaling", "yarn,factr=3"], "did you mean"),
        (["a", "b", "--rope-scaling", "linear,factor=x"], "factor"),
        (["a", "b", "--rope-scaling", "linear,factor=0.5"], "factor"),
        (["a", "b", "--checkpoint", "best"], "--checkpoint has no effect on a"),
        (["hf:not a name", "b"], "names no model"),
        ([".", "../b"], "config.json"),
    ],
)
def test_mistakes_are_messages(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert complaint in said.err
