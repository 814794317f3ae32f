"""`lc build`: the parts of a config, and why they are stale."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lovecraft
from lovecraft.config.modules import forget
from tests.tiny import tiny_model_dir, write_tokenizer

Lc = Callable[..., Any]


@pytest.fixture(autouse=True)
def model(workspace: Path) -> Path:
    """Put the workspace's model in its place."""
    return tiny_model_dir(workspace / "models" / "tiny")


def start(program: str, workspace: Path) -> "subprocess.Popen[str]":
    """Start a Python program, which is to call `lc`, in the workspace."""
    environment = {**os.environ, "PYTHONPATH": str(Path(lovecraft.__file__).parents[1])}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=workspace, text=True, **streams)


# --- what is stale, and why -------------------------------------------------------------------------


def test_dry_run_says_never_built_then_fresh_then_which_option_made_it_stale(lc: Lc) -> None:
    first = lc("build", "texts", "--dry-run")
    built = lc("build", "texts")
    again = lc("build", "texts", "--dry-run")
    other = lc("build", "texts", "dataset", "--dry-run", "--block-size", "16", "--stride", "9")

    assert (first.code, first.out.strip()) == (1, "dataset  stale  never built")
    assert built.code == 0
    assert (again.code, again.out.strip()) == (0, f"dataset  fresh  {built.out.strip()}")
    assert other.code == 1
    assert other.out.splitlines() == [
        "dataset  stale  stride: 8 → 9  (--stride 9)",
        "dataset  stale  block_size: 32 → 16  (--block-size 16)",
    ]


def test_options_of_a_training_config_are_blamed_where_they_stand(lc: Lc, workspace: Path) -> None:
    lc("build", "tiny")
    (file := workspace / "projects" / "texts" / "default.py").write_text(
        file.read_text().replace("block_size = 32", "block_size = 16\n    add_bos = False"), encoding="utf-8"
    )

    forget()
    stale = lc("build", "tiny", "dataset", "--dry-run", "--dataset.train", "a.txt,b.txt")

    assert stale.out.splitlines() == [
        "dataset  stale  add_bos: true → false  (projects/texts/default.py:10)",
        "dataset  stale  train: none → a.txt, b.txt  (--dataset.train a.txt,b.txt)",
        "dataset  stale  block_size: 32 → 16  (projects/texts/default.py:9)",
    ]


def test_dry_run_names_the_files_that_changed(lc: Lc, workspace: Path) -> None:
    lc("build", "texts")
    (workspace / "texts" / "a.txt").write_text("Another tale.\n", encoding="utf-8")
    (workspace / "texts" / "b.txt").rename(workspace / "texts" / "d.txt")

    assert lc("build", "texts", "--dry-run").out.splitlines() == [
        "dataset  stale  corpus: a.txt has changed  (//texts)",
        "dataset  stale  corpus: d.txt added  (//texts)",
        "dataset  stale  corpus: b.txt removed  (//texts)",
    ]


def test_of_many_files_some_are_named_and_the_rest_are_counted(lc: Lc, workspace: Path) -> None:
    lc("build", "texts")
    for number in range(8):
        (workspace / "texts" / f"n{number}.txt").write_text(f"Tale {number}.", encoding="utf-8")

    lines = lc("build", "texts", "--dry-run", "--block-size", "16").out.splitlines()

    assert len(lines) == 7
    assert "dataset  stale  corpus: and 3 more files" in lines
    assert "dataset  stale  block_size: 32 → 16  (--block-size 16)" in lines


def test_dry_run_names_the_tokenizer_and_the_corpus_that_a_variable_names(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lc("build", "texts")
    file = workspace / "models" / "tiny" / "tokenizer.json"
    file.write_text(file.read_text() + " ")
    assert lc("build", "texts", "--dry-run").out.splitlines() == [
        "dataset  stale  tokenizer: content has changed  (//models/tiny)"
    ]
    shutil.copytree(workspace / "texts", workspace / "elsewhere")
    (workspace / "elsewhere" / "a.txt").write_text("Another tale.\n")
    monkeypatch.setenv("LOVECRAFT_CORPUS", str(workspace / "elsewhere"))
    config = workspace / "projects" / "texts" / "default.py"
    config.write_text("import os\n" + config.read_text().replace('ROOT / "texts"', 'os.environ["LOVECRAFT_CORPUS"]'))
    forget()
    assert "dataset  stale  corpus: a.txt has changed  (//elsewhere)" in lc("build", "texts", "--dry-run").out


def test_another_source_is_named_before_its_files(lc: Lc, workspace: Path) -> None:
    lc("build", "texts")
    shutil.copytree(workspace / "texts", workspace / "more")
    assert "fresh" in lc("build", "texts", "--dry-run", "--source", "more").out
    (workspace / "more" / "b.txt").unlink()
    lines = lc("build", "texts", "--dry-run", "--source", "more").out.splitlines()
    assert lines == [
        "dataset  stale  source: //texts → //more  (--source more)",
        "dataset  stale  corpus: b.txt removed  (//more)",
    ]


def test_options_are_told_as_they_were_given_and_habits_as_the_tokenizers(lc: Lc, workspace: Path) -> None:
    lc("build", "texts")
    assert lc("build", "texts", "--dry-run", "--stride", "0").out == "dataset  stale  stride: 8 → 0  (--stride 0)\n"
    write_tokenizer(workspace / "models" / "other", add_bos=False)
    lines = lc("build", "texts", "--dry-run", "--tokenizer", "models/other").out.splitlines()
    assert [line for line in lines if "add_bos" in line] == ["dataset  stale  add_bos: true → false  (//models/other)"]


def test_a_missing_model_is_not_called_a_missing_tokenizer(lc: Lc, workspace: Path) -> None:
    done = lc("build", "tiny", "--dry-run", "--model.path", "models")
    assert done.code == 2
    assert "models is not a model directory: it has no config.json" in done.err


def test_dry_run_as_json(lc: Lc, workspace: Path) -> None:
    built = json.loads(lc("build", "tiny", "--json").out)
    stale = lc("build", "tiny", "--json", "--dry-run", "--dataset.block-size", "16")

    assert [(part["part"], part["state"], part["changes"]) for part in built] == [
        ("dataset", "fresh", []),
        ("model", "fresh", []),
    ]
    assert stale.code == 1
    change = {"path": "block_size", "a": 32, "b": 16, "a_origin": "", "b_origin": "--dataset.block-size 16"}
    dataset, model = json.loads(stale.out)
    assert (dataset["state"], dataset["changes"]) == ("stale", [change])
    assert (model["state"], model["directory"]) == ("fresh", str(workspace / "models" / "tiny"))


def test_dry_run_makes_nothing_and_finds_damage(lc: Lc, workspace: Path) -> None:
    lc("build", "texts", "--dry-run")
    assert not (workspace / ".lc" / "cache" / "blocks").exists()
    directory = Path(lc("build", "texts").out.strip())
    (directory / "index.json").write_text("{")

    damaged = lc("build", "texts", "--dry-run")

    assert (damaged.code, damaged.out) == (1, "dataset  stale  damaged\n")
    assert lc("build", "texts").out.strip() == str(directory)
    assert lc("build", "texts", "--dry-run").code == 0


# --- the model --------------------------------------------------------------------------------------


def test_a_training_config_has_a_dataset_and_a_model(lc: Lc, workspace: Path) -> None:
    both, model = lc("build", "tiny"), lc("build", "tiny", "model")

    assert both.out.splitlines()[1:] == model.out.splitlines() == [str(workspace / "models" / "tiny")]
    assert "train blocks" in both.err
    assert "model: llama, " in model.err
    assert " parameters" in model.err


def test_a_model_config_is_built_alone(lc: Lc, workspace: Path, write: Callable[..., Path]) -> None:
    write("projects/tiny/model.py", "import workspace\n\n\nclass Model(workspace.Model):\n    pass\n")
    assert lc("build", "tiny/model", "--dry-run").out == f"model  fresh  {workspace / 'models' / 'tiny'}\n"
    refused = lc("build", "tiny/model", "dataset")
    assert (refused.code, refused.out) == (2, "")
    assert "tiny/model has no part 'dataset'" in refused.err


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def narrower(file: Path) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "intermediate_size": content["intermediate_size"] - 1}))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("config.json", Path.unlink, "lc convert"),
        ("model.safetensors", Path.unlink, "neither model.safetensors"),
        ("model.safetensors", half, "model.safetensors"),
        ("config.json", half, "config.json"),
        ("config.json", narrower, "do not fit config.json"),
    ],
)
@pytest.mark.parametrize("flag", [[], ["--dry-run"]])
def test_a_model_that_is_missing_or_not_whole_is_refused(
    lc: Lc, model: Path, name: str, damage: Callable[[Path], object], said: str, flag: list[str]
) -> None:
    damage(model / name)
    refused = lc("build", "tiny", "model", *flag)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err


# --- mistakes ---------------------------------------------------------------------------------------


def test_an_unknown_part_is_refused(lc: Lc) -> None:
    outcome = lc("build", "texts", "modle")

    assert outcome.code == 2
    assert "no part 'modle'" in outcome.err
    assert "parts: dataset" in outcome.err


def test_what_has_no_parts_is_refused(lc: Lc, write: Callable[..., Path]) -> None:
    write("projects/tiny/serve.py", "from lovecraft import ServeConfig\n\n\nclass Serve(ServeConfig):\n    port = 1\n")
    refused = lc("build", "tiny/serve")
    assert refused.code == 2
    assert "tiny/serve has nothing to build" in refused.err


def test_a_model_is_no_config(lc: Lc, model: Path) -> None:
    refused = lc("build", model)
    assert refused.code == 2
    assert f"{model} is a model, not a config" in refused.err


def test_without_a_tokenizer_the_error_names_the_flag(lc: Lc, workspace: Path) -> None:
    (workspace / "models" / "tiny" / "tokenizer.json").unlink()

    outcome = lc("build", "texts")

    assert outcome.code == 2
    assert "--tokenizer" in outcome.err


@pytest.mark.parametrize("flag", [[], ["--dry-run"]])
def test_options_that_contradict_each_other_are_refused_first(lc: Lc, workspace: Path, flag: list[str]) -> None:
    refused = lc("build", "texts", "--stride", "32", *flag)
    assert refused.code == 2
    assert "stride (32) must be below block_size (32)" in refused.err
    assert not (workspace / ".lc" / "cache" / "blocks").exists()


# --- several processes ------------------------------------------------------------------------------

SLOW = """
import sys, time
from pathlib import Path
from lovecraft.cli import main
from lovecraft.data import build

write = build._write
def slow(directory, *inputs):
    Path("begun").touch()
    time.sleep(1.5)
    with open("builders", "a") as log:
        log.write("x")
    write(directory, *inputs)
build._write = slow
sys.exit(main(["build", "texts"]))
"""


def test_two_at_once_build_once_and_the_second_says_that_it_waits(workspace: Path) -> None:
    first, second = start(SLOW, workspace), start(SLOW, workspace)
    said = [process.communicate() for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert said[0][0] == said[1][0]
    assert (workspace / "builders").read_text() == "x"
    waits = [f"waiting for another lc, which builds the same token blocks (pid {p.pid})" for p in (first, second)]
    assert sum(wait in err for wait in waits for _, err in said) == 1


STOPPED = """
import os, signal, sys
from lovecraft import files
from lovecraft.cli import main
from lovecraft.data import build

point, number = {point!r}, {number}
module, _, name = point.rpartition(".")
owner = {{"build": build, "np": build.np, "files": files, "os": os}}[module]
original = getattr(owner, name)
calls = []
def stop(*words, **more):
    calls.append(1)
    if len(calls) == {call}:
        os.kill(os.getpid(), number)
    return original(*words, **more)
setattr(owner, name, stop)
sys.exit(main(["build", "texts"]))
"""
POINTS = [
    ("build.encode", 1),
    ("build.pack", 1),
    ("build.count", 2),
    ("np.save", 1),
    ("np.save", 4),
    ("files._sync_file", 2),
    ("os.rename", 1),
]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize(("point", "call"), POINTS)
def test_a_build_that_is_stopped_anywhere_leaves_nothing_that_looks_finished(
    lc: Lc, workspace: Path, point: str, call: int, number: signal.Signals
) -> None:
    stopped = start(STOPPED.format(point=point, call=call, number=int(number)), workspace)
    _, err = stopped.communicate()
    assert stopped.returncode == (-9 if number == signal.SIGKILL else 130), err
    assert "Traceback" not in err
    blocks = workspace / ".lc" / "cache" / "blocks"
    left = [path.name for path in blocks.iterdir() if path.is_dir()]
    assert len(left) == (number == signal.SIGKILL)
    assert all(name.startswith(".") for name in left)
    assert lc("build", "texts", "--dry-run").out == "dataset  stale  never built\n"

    directory = Path(lc("build", "texts").out.strip())

    assert [path.name for path in blocks.iterdir() if path.is_dir()] == [directory.name]
    content = {file.name: file.read_bytes() for file in directory.iterdir()}
    shutil.rmtree(workspace / ".lc")
    undisturbed = Path(lc("build", "texts").out.strip())
    assert {file.name: file.read_bytes() for file in undisturbed.iterdir()} == content


# --- the tokenizer ----------------------------------------------------------------------------------

BPE = ("--bpe", "BPE", "--bpe.vocab-size", "280")


def test_a_tokenizer_is_trained_before_the_blocks_that_it_makes(lc: Lc) -> None:
    dry = lc("build", "texts", "--dry-run", *BPE)
    built = lc("build", "texts", *BPE)
    again = lc("build", "texts", "--dry-run", *BPE)
    alone = lc("build", "texts", "tokenizer", *BPE)

    assert dry.code == 1
    assert dry.out.splitlines() == ["tokenizer  stale  never built", "dataset  stale  never built"]
    assert built.code == 0, built.err
    tokenizer, blocks = built.out.splitlines()
    assert json.loads((Path(tokenizer) / "tokenizer.json").read_text())["model"]["type"] == "BPE"
    assert "tokenizer: 280 tokens" in built.err
    assert (again.code, again.out.splitlines()) == (0, [f"tokenizer  fresh  {tokenizer}", f"dataset  fresh  {blocks}"])
    assert alone.out.strip() == tokenizer


def test_a_dry_run_names_what_made_the_tokenizer_stale_and_trains_none(lc: Lc, workspace: Path) -> None:
    lc("build", "texts", "tokenizer", *BPE)
    dry = lc("build", "texts", "--dry-run", "--bpe", "BPE", "--bpe.vocab-size", "281")
    assert dry.code == 1
    assert dry.out.splitlines() == [
        "tokenizer  stale  bpe.vocab_size: 280 → 281  (--bpe.vocab-size 281)",
        "dataset  stale  never built",
    ]
    lc("build", "texts", "dataset", *BPE)
    dry = lc("build", "texts", "dataset", "--dry-run", "--bpe", "BPE", "--bpe.vocab-size", "281")
    assert dry.out == "dataset  stale  bpe.vocab_size: 280 → 281  (--bpe.vocab-size 281)\n"
    assert len(list((workspace / ".lc" / "cache" / "tokenizers").glob("[!.]*/tokenizer.json"))) == 1


def test_the_blocks_of_a_trained_tokenizer_are_made_of_its_tokens(lc: Lc) -> None:
    shown = lc("data", "texts", "--json", *BPE)
    assert shown.code == 0, shown.err
    assert "tokenizers" in json.loads(shown.out)["tokenizer"]
    assert lc("data", "texts", "--blocks", *BPE).code == 0


def test_there_is_no_tokenizer_to_build_where_none_is_trained(lc: Lc) -> None:
    wrong = lc("build", "texts", "tokenizer")
    assert wrong.code == 2
    assert "no part 'tokenizer'" in wrong.err


def test_a_vocabulary_that_does_not_fit_the_model_is_refused(lc: Lc, workspace: Path) -> None:
    words = [f"{i * 7919 % 26**4:x}" + chr(97 + i % 26) * 3 for i in range(3000)]
    (workspace / "texts" / "a.txt").write_text(" ".join(words * 2))
    for command in ("train", "plan", "eval"):
        wrong = lc(command, "tiny", "--dataset.bpe", "BPE", "--dataset.bpe.vocab-size", "4000")
        assert (command, wrong.code) == (command, 2)
        assert "tokens, but the model knows" in wrong.err
