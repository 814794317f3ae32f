"""The whole journey of the design, typed command by command, on a tiny model."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.tiny import tiny_model_dir

WORDS = ("night", "sea", "stone", "bell", "moor", "lamp", "tide", "salt", "door", "star")


@pytest.fixture
def root(tmp_path: Path, lc, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace made by `lc init`, a folder of five texts, and a tiny model where the workspace's Model says."""
    directory = tmp_path / "stories"
    assert lc("init", directory).code == 0
    texts = directory / "texts"
    texts.mkdir()
    for number in range(5):
        words = " ".join(WORDS[(i * (number + 3) + i // 4) % len(WORDS)] for i in range(150))
        (texts / f"tale_{number}.txt").write_text(f"Tale {number}.\n\n{words}.\n", encoding="utf-8")
    tiny_model_dir(directory / "models" / "base")
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], Path]]]:
    """Return a function that starts `lc` as a process of its own; it returns the process and the file of its stderr."""
    with contextlib.ExitStack() as stack:

        def one(*words: str) -> tuple[subprocess.Popen[bytes], Path]:
            said = tmp_path / f"{words[0]}.stderr"
            file = stack.enter_context(said.open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "lovecraft", *words],
                stdout=subprocess.DEVNULL,
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process, said

        yield one


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Wait until `condition` holds; fail when the process ends first or the time is up."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_from_a_folder_of_texts_to_a_streamed_story(lc, root: Path, start):
    # A dataset project from raw texts; look at it.
    assert lc("new", "project", "my_texts", "--texts", "texts", "--description", "Five tales.").code == 0
    assert "Five tales." in lc("ls").out
    config = lc("new", "config", "my_texts/k64", "--from", "my_texts")
    Path(config.out.strip()).write_text(
        Path(config.out.strip()).read_text().replace("pass  #", "block_size = 64\n    stride = 16  #"), encoding="utf-8"
    )
    counts = json.loads(lc("data", "my_texts/k64", "--json").out)["splits"]
    assert counts["train"]["documents"] == 4
    assert counts["validation"]["documents"] == 1
    assert "Tale 0." in lc("data", "my_texts/k64", "-n", "1").out
    assert "⟦" in lc("data", "my_texts/k64", "--blocks", "-n", "2").out
    assert lc("data", "my_texts/k64", "--stats").code == 0
    assert lc("data", "my_texts/k64", "--histogram", "lengths.svg").code == 0
    assert (root / "lengths.svg").read_text().startswith("<svg")
    assert "tale_3" in lc("data", "my_texts/k64", "--find", "Tale 3").out
    assert lc("data", "my_texts/k64", "--check").code == 0
    assert lc("build", "my_texts/k64").code == 0
    assert lc("build", "my_texts/k64", "--dry-run").out.startswith("dataset  fresh")
    stale = lc("build", "my_texts/k64", "--dry-run", "--packing", "best_fit")
    assert (stale.code, "packing: none → best_fit  (--packing best_fit)" in stale.out) == (1, True)
    packed = json.loads(lc("data", "my_texts/k64", "--packing", "best_fit", "--json").out)["splits"]
    assert packed["train"]["supervised_tokens"] == counts["train"]["supervised_tokens"]
    assert packed["train"]["blocks"] <= counts["train"]["blocks"]

    # A finetuning project; check what it resolves to.
    made = Path(lc("new", "project", "finetune").out.strip())
    made.write_text(
        '"""Train on five tales."""\n\nimport workspace\nfrom projects.my_texts.k64 import Dataset\n\n\n'
        'class Train(workspace.Train):\n    dataset = Dataset\n    batch_size = 2\n    device = "cpu"\n',
        encoding="utf-8",
    )
    shown = json.loads(lc("show", "finetune", "--json").out)
    assert {row["path"]: row["value"] for row in shown["options"]}["dataset.block_size"] == 64
    assert lc("show", "finetune", "--why", "batch_size").out.startswith("batch_size  2")
    assert lc("show", "finetune", "--diff=parent").code == 0
    assert lc("diff", "my_texts", "my_texts/k64").code == 1
    assert lc("ls", "--check").code == 0
    flat = lc("show", "finetune", "--python").out
    (root / "projects" / "finetune" / "flat.py").write_text(flat, encoding="utf-8")
    assert json.loads(lc("show", "finetune/flat", "--json").out)["fingerprint"] == shown["fingerprint"]
    assert "_lc" in lc("completion", "bash").out
    assert "--batch-size" in lc("train", "finetune", "--help").out
    plan = json.loads(lc("plan", "finetune", "--json", "--tflops", "1").out)
    assert plan["fits"]
    assert plan["steps"] > 0

    # Train, stop, resume.
    options = ["--epochs", "40", "--save.every", "50", "--eval.every", "50", "--max-grad-norm", "1.0"]
    training, _ = start("train", "finetune", *options)
    run = root / "runs" / "finetune" / "default" / "001"
    wait_for(lambda: (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_text()) > 500, training)
    assert lc("runs", "--json").out.count('"running"') == 1
    assert lc("stop", "finetune").code == 0
    assert training.wait(60) in (0, 130)
    stopped = json.loads(lc("runs", "finetune", "--json").out)[0]
    assert stopped["status"] == "stopped"
    assert 0 < stopped["step"] < stopped["steps"]
    resumed = lc("train", "finetune", *options)
    assert resumed.code == 0, resumed.err
    assert f"resuming finetune/default/001 at step {stopped['step']}" in resumed.err
    for same in (["finetune", *options], [run], [run / "record.json"]):
        again = lc("train", *same)
        assert (again.code, "is finished" in again.err) == (0, True), again.err
    assert lc("diff", "finetune", "finetune/default/001").code == 1
    assert lc("diff", run / "record.json", "finetune/default/001").code == 0
    assert json.loads(lc("runs", "finetune/default/001", "--json").out)[0]["status"] == "finished"
    named = ("finetune", "finetune/default/001")
    before, after = (json.loads(lc("eval", name, "--json").out)["loss"] for name in named)
    assert after < before - 0.3

    # Text in this process; the checkpoint is a model directory.
    text = lc("generate", "finetune", "The night", "--max-tokens", "8", "--seed", "1")
    assert text.out.startswith("The night")
    [checkpoint] = [p for p in (run / "checkpoints").iterdir() if p.name.endswith(f"{stopped['steps']:08d}")]
    assert "llama" in lc("show", checkpoint).out
    assert lc("convert", "finetune/default/001", "exported", "--dtype", "bfloat16").code == 0
    assert lc("convert", "exported", "exported.gguf", "--type", "f16").code == 0
    assert lc("generate", "exported.gguf", "The night", "--max-tokens", "4", "--seed", "1").code == 0

    # Serve, and stream more than the model's context through the OpenAI SDK and `lc generate --url`.
    serving, said = start("serve", "finetune/default/001", "--port", "0", "--context", "roll")
    wait_for(lambda: "/v1, context" in said.read_text(), serving)
    url = said.read_text().split(" at ")[1].split("/v1")[0]
    with OpenAI(base_url=f"{url}/v1", api_key="EMPTY", max_retries=0) as client:
        [model] = client.models.list()
        pieces = client.completions.create(
            model=model.id, prompt="The night", max_tokens=600, stream=True, seed=3, extra_body={"ignore_eos": True}
        )
        chunks = list(pieces)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert len("".join(chunk.choices[0].text for chunk in chunks)) > 600
    remote = lc("generate", "--url", url, "The night", "--max-tokens", "5", "--seed", "1")
    assert remote.out.startswith("The night")
    serving.send_signal(signal.SIGTERM)
    assert serving.wait(30) == 0
