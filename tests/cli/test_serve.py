import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openai import OpenAI

from lovecraft import ServeConfig, resolve
from lovecraft.cli.serve import find_served
from lovecraft.errors import ConfigError, LovecraftError, RunError
from lovecraft.serve.server import bind
from tests.hub import hubs
from tests.tiny import tiny_model_dir

Write = Callable[[str, str], Path]


def make_run(workspace: Path, number: str, *steps: int) -> Path:
    """Make a run of tiny/default with checkpoints, each a model directory."""
    run = workspace / "runs/tiny/default" / number
    for step in steps:
        tiny_model_dir(run / f"checkpoints/step-{step:08d}")
    run.mkdir(parents=True, exist_ok=True)
    (run / "record.json").write_text("{}")
    return run


def test_model_directory_is_served_under_its_name(workspace: Path) -> None:
    model = tiny_model_dir(workspace / "models/tiny")
    assert find_served(str(model), "latest") == (model, "tiny", ServeConfig, None)


def test_run_is_served_by_its_latest_checkpoint_or_a_given_one(workspace: Path) -> None:
    run = make_run(workspace, "002", 2, 10)
    for word in (str(run), "tiny/default/002"):
        assert find_served(word, "latest")[:2] == (run / "checkpoints/step-00000010", "tiny/default/002")
    assert find_served(str(run), "2")[0] == run / "checkpoints/step-00000002"
    with pytest.raises(LovecraftError, match="no 5 checkpoint"):
        find_served(str(run), "5")


def test_config_is_served_by_its_newest_run_that_has_a_checkpoint(workspace: Path) -> None:
    make_run(workspace, "001", 4)
    run = make_run(workspace, "002", 4)
    make_run(workspace, "003")
    assert find_served("tiny", "latest")[:2] == (run / "checkpoints/step-00000004", "tiny/default")


def test_config_that_was_never_trained_says_how(workspace: Path) -> None:
    with pytest.raises(RunError, match="no run of tiny/default") as caught:
        find_served("tiny", "latest")
    assert caught.value.hint == "lc train tiny/default"


def test_model_config_is_served_by_its_path(workspace: Path, write: Write) -> None:
    tiny_model_dir(workspace / "models" / "tiny")
    write("projects/tiny/base.py", "import workspace\n\n\nclass Model(workspace.Model):\n    max_context = 64\n")
    assert find_served("tiny/base", "latest")[:2] == (workspace / "models/tiny", "tiny/base")


def test_dataset_cannot_be_served(workspace: Path) -> None:
    with pytest.raises(ConfigError, match="texts/default is not a model"):
        find_served("texts", "latest")


def test_serve_class_beside_the_config_gives_the_options(workspace: Path, write: Write) -> None:
    text = (workspace / "projects/tiny/default.py").read_text()
    write(
        "projects/tiny/default.py",
        text + "\n\nfrom lovecraft import ServeConfig\n\n\nclass Serve(ServeConfig):\n    port = 9\n",
    )
    make_run(workspace, "001", 4)
    assert resolve(find_served("tiny", "latest")[2]).port == 9


def test_gguf_is_converted_once(lc: Any, workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lc("convert", tiny_model_dir(workspace / "models" / "tiny"), "small.gguf")
    path, name, *_ = find_served("small.gguf", "latest")
    assert (path.parent, name) == (workspace / ".lc" / "cache" / "models", "small")
    assert "converting small.gguf once" in capfd.readouterr().err
    shutil.move("small.gguf", "other.gguf")
    assert find_served("other.gguf", "latest")[:2] == (path, "other")
    assert capfd.readouterr().err == ""
    outcome = lc("generate", "other.gguf", "The lamp", "--max-tokens", "3")
    assert (outcome.code, outcome.out[:8]) == (0, "The lamp")


def test_model_of_the_hub_is_served_by_its_name(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {file.name: file.read_bytes() for file in tiny_model_dir(workspace / "tiny").iterdir()}
    with hubs(monkeypatch, workspace / "huggingface") as serve_hub:
        commit = serve_hub({"org/tiny": files}).commit("org/tiny")
        assert find_served("hf:org/tiny", "latest")[1] == "org/tiny"
        path, name, *_ = find_served(f"hf:org/tiny@{commit}", "latest")
    assert (path.name, name) == (commit, "org/tiny")
    assert f"hf:org/tiny at commit {commit[:12]}" in capfd.readouterr().err


def test_port_in_use_is_exit_2_with_a_hint(lc: Any, tmp_path: Path) -> None:
    model = tiny_model_dir(tmp_path / "tiny")
    with bind("127.0.0.1", 0) as taken:
        outcome = lc("serve", model, "--port", taken.getsockname()[1])
    assert outcome.code == 2
    assert "Address already in use" in outcome.err
    assert "--port" in outcome.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "no API key"),
        (["--port", "x"], "--port"),
        (["--port", "99999"], "at most 65535"),
        (["--prot", "1"], "--port"),
        (["--context", "never"], "--context"),
        (["--port", "0", "--max-context", "100000"], "max_context is 100000"),
        (["--port", "0", "--dtype", "float8"], "--dtype"),
        (["--port", "0", "--device", "tpu"], "tpu"),
    ],
)
def test_wrong_options_are_exit_2(lc: Any, tmp_path: Path, words: list[str], said: str) -> None:
    outcome = lc("serve", tiny_model_dir(tmp_path / "tiny"), *words)
    assert outcome.code == 2
    assert said in outcome.err


Said = Callable[..., str]


@pytest.fixture
def said(lc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Return a function that gives what `lc serve` says when it is ready at a URL, and ends."""

    def one(url: str, *words: str | Path) -> str:
        served = SimpleNamespace(engine=SimpleNamespace(context=64))

        def run(config: Any, names: Any, load: Any, ready: Any) -> None:
            ready(url, dict.fromkeys(names, served))

        monkeypatch.setattr("lovecraft.serve.server.run", run)
        return lc("serve", tiny_model_dir(tmp_path / "tiny"), *words).err

    return one


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("http://0.0.0.0:80", "http://127.0.0.1:80"),
        ("http://[::]:80", "http://[::1]:80"),
        ("http://10.0.0.0:80", "http://10.0.0.0:80"),
    ],
)
def test_examples_ask_an_address_that_can_be_asked(said: Said, url: str, there: str) -> None:
    words = said(url)
    assert f"serving tiny at {url}/v1" in words
    assert f"lc generate --url {there} 'The" in words
    assert f"curl {there}/v1/completions -H 'Content" in words


def test_examples_give_the_key(said: Said, tmp_path: Path) -> None:
    file = tmp_path / "my keys"
    file.write_text("# ours\n\nsesame\nother\n")
    words = said("http://127.0.0.1:80", "--api-key-file", file)
    assert f"lc generate --url http://127.0.0.1:80 --api-key-file '{file}' 'The" in words
    curl = next(line for line in words.splitlines() if line.startswith("  curl"))
    sent = subprocess.run(["bash", "-c", curl.replace("curl", "printf '%s\n'", 1)], capture_output=True, text=True)
    assert "Authorization: Bearer sesame" in sent.stdout.splitlines()


def test_shell_prompt_comes_on_a_line_of_its_own(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert said("http://127.0.0.1:80").endswith("'\n\n")


def test_others_are_served_beside_it(said: Said, tmp_path: Path) -> None:
    base = tiny_model_dir(tmp_path / "base")
    words = said("http://127.0.0.1:80", "--also", base, "--name", "mine")
    assert "serving mine at" in words
    assert "serving base at" in words


def test_two_models_of_one_name_are_refused(lc: Any, tmp_path: Path) -> None:
    model = tiny_model_dir(tmp_path / "tiny")
    outcome = lc("serve", model, "--also", model)
    assert outcome.code == 2
    assert "two models are called tiny" in outcome.err
    assert "--name" in outcome.err


def test_missing_model_is_exit_2(lc: Any, workspace: Path) -> None:
    outcome = lc("serve", "tinny")
    assert outcome.code == 2
    assert "tinny" in outcome.err


def test_help_lists_the_options(lc: Any) -> None:
    outcome = lc("serve", "--help")
    assert outcome.code == 0
    assert "--drain-timeout" in outcome.out
    assert "--checkpoint" in outcome.out


def test_serving_a_model_from_start_to_sigterm(tmp_path: Path) -> None:
    model = tiny_model_dir(tmp_path / "tiny")
    words = f"-m lovecraft serve {model} --port 0 --context roll --name mine".split()
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            said = [server.stderr.readline() for _ in range(5)]
            assert [line.split()[0] for line in said] == ["loading", "serving", "write", "lc", "curl"]
            url = said[1].split()[3].rstrip(",")
            client = OpenAI(base_url=url, api_key="EMPTY", max_retries=0)
            stream = client.completions.create(
                model="mine", prompt="The lamp", max_tokens=200, stream=True, extra_body={"ignore_eos": True}
            )
            chunks = list(stream)
            assert chunks[-1].choices[0].finish_reason == "length"
            client.close()
        finally:
            server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=10)
    assert server.returncode == 0
    assert out == ""
    assert "200 tokens" in err
    assert len(err.splitlines()) == 1
