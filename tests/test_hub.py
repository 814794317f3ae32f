"""Models of the hub: what is fetched, what is read without the hub, and what is said when they cannot be had."""

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lovecraft.checkpoint import load_model, save_model
from lovecraft.errors import ModelError
from lovecraft.hub import WEIGHTS, fetch
from lovecraft.tokenizer import load_tokenizer
from tests.hub import Hub, hubs
from tests.tiny import tiny_model_dir

Serve = Callable[..., Hub]
NAME, REPOSITORY = "hf:org/tiny", "org/tiny"


@functools.cache
def tiny_files(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in tiny_model_dir(directory).iterdir()}


@pytest.fixture
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return dict(tiny_files(tmp_path_factory.getbasetemp() / "tiny_for_the_hub"))


@pytest.fixture
def serve_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serve]:
    fetch.cache_clear()
    with hubs(monkeypatch, tmp_path / "huggingface") as serve_hub:
        yield serve_hub
    fetch.cache_clear()


def in_a_new_process(name: str = NAME, **options: tuple[str, ...]) -> Path:
    """Fetch what this process has forgotten."""
    fetch.cache_clear()
    return fetch(name, **options)


def refusal(name: str = NAME, **options: tuple[str, ...]) -> ModelError:
    with pytest.raises(ModelError) as caught:
        in_a_new_process(name, **options)
    return caught.value


def fetched(hub: Hub) -> set[str]:
    """Return the files that were asked for."""
    return {line.rpartition("/")[2] for line in hub.requests if line.startswith("GET") and "/resolve/" in line}


# --- what is fetched ------------------------------------------------------------------------------


def test_a_model_is_fetched_and_loaded(serve_hub: Serve, files: dict[str, bytes]) -> None:
    hub = serve_hub({REPOSITORY: files})

    path = fetch(NAME)

    assert path.name == hub.commit(REPOSITORY)
    assert load_tokenizer(path).decode(load_tokenizer(path).encode("The lamp")) == "The lamp"
    assert load_model(path, dtype=torch.float32, device=torch.device("cpu")).architecture.hidden_size == 64


def test_nothing_but_settings_papers_and_safetensors_is_fetched(serve_hub: Serve, files: dict[str, bytes]) -> None:
    wanted = set(files) | {"LICENSE", "README.md", "chat_template.jinja"}
    others = ("pytorch_model.bin", "modeling.py", "consolidated.safetensors", "onnx/model.onnx", "original/params.json")
    hub = serve_hub({REPOSITORY: {name: name.encode() for name in (*wanted, *others)} | files})

    path = fetch(NAME)

    assert {file.name for file in path.iterdir()} == fetched(hub) == wanted


def test_a_tokenizer_is_had_without_the_weights(serve_hub: Serve, files: dict[str, bytes]) -> None:
    serve_hub({REPOSITORY: files})

    path = fetch(NAME, weights=())

    assert not list(path.glob("*.safetensors"))
    assert load_tokenizer(path).vocab_size
    assert fetch(NAME) == path
    assert list(path.glob("*.safetensors"))


def test_a_revision_is_a_commit_or_a_branch(serve_hub: Serve, files: dict[str, bytes]) -> None:
    hub = serve_hub({REPOSITORY: files})
    commit = hub.commit(REPOSITORY)

    assert fetch(f"{NAME}@{commit}") == fetch(f"{NAME}@main") == fetch(NAME)
    error = refusal(f"{NAME}@v9")
    assert error.message == "hf:org/tiny@v9 cannot be fetched: it has no such revision"
    assert "branch" in error.hint


def test_the_newest_commit_is_fetched_and_only_what_is_new_in_it(serve_hub: Serve, files: dict[str, bytes]) -> None:
    hub = serve_hub({REPOSITORY: files})
    first = fetch(NAME)
    hub.repositories[REPOSITORY]["README.md"] = b"A tiny model."
    hub.requests.clear()

    second = in_a_new_process()

    assert second.name == hub.commit(REPOSITORY) != first.name
    assert fetched(hub) == {"README.md"}


def test_one_process_reads_one_commit(serve_hub: Serve, files: dict[str, bytes]) -> None:
    hub = serve_hub({REPOSITORY: files})
    first = fetch(NAME)
    hub.repositories[REPOSITORY]["README.md"] = b"A tiny model."

    assert fetch(NAME) == first


@pytest.mark.parametrize("weights", [("model*.safetensors", "*.bin"), ("*.bin",)])
def test_a_conversion_may_ask_for_other_kinds(
    weights: tuple[str, ...], serve_hub: Serve, files: dict[str, bytes]
) -> None:
    serve_hub({REPOSITORY: files | {"pytorch_model.bin": b"y"}})

    path = fetch(NAME, weights=weights)

    assert [file.name for kind in (*WEIGHTS, "*.bin") for file in path.glob(kind)] == (
        ["model.safetensors"] if len(weights) == 2 else ["pytorch_model.bin"]
    )


# --- no network -----------------------------------------------------------------------------------


def test_without_the_hub_the_copy_is_read_and_that_is_said(
    serve_hub: Serve, files: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    hub = serve_hub({REPOSITORY: files})
    path, commit = fetch(NAME), hub.commit(REPOSITORY)
    assert not caplog.messages
    hub.close()

    assert in_a_new_process() == path
    assert in_a_new_process(f"{NAME}@{commit}") == path
    assert [f"the cached copy of commit {commit[:12]} is read" in line for line in caplog.messages] == [True, True]
    assert "Connection refused" in caplog.messages[0]


def test_a_copy_without_weights_is_no_model(serve_hub: Serve, files: dict[str, bytes]) -> None:
    hub = serve_hub({REPOSITORY: files})
    path = fetch(NAME, weights=())
    hub.close()

    assert in_a_new_process(weights=()) == path
    assert "the hub cannot be reached (" in refusal().message


def test_a_copy_that_lacks_a_shard_is_no_model(serve_hub: Serve, files: dict[str, bytes]) -> None:
    weights = files.pop("model.safetensors")
    shards = {f"model-0000{number}-of-00002.safetensors": weights for number in (1, 2)}
    hub = serve_hub({REPOSITORY: files | shards})
    (fetch(NAME) / "model-00002-of-00002.safetensors").unlink()
    hub.close()

    assert "the hub cannot be reached (" in refusal().message


def test_without_the_hub_and_a_copy_there_is_a_remedy(serve_hub: Serve) -> None:
    serve_hub({}).close()

    error = refusal()

    assert error.message.startswith(f"{NAME} cannot be fetched: the hub cannot be reached (")
    assert "online" in error.hint


def test_the_offline_switch_of_the_library_is_obeyed(
    serve_hub: Serve, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = serve_hub({REPOSITORY: files})
    path, asked = fetch(NAME), len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    assert in_a_new_process() == path
    assert len(hub.requests) == asked
    assert "HF_HUB_OFFLINE" in caplog.messages[0]
    assert "HF_HUB_OFFLINE" in refusal("hf:org/other").message


# --- what cannot be had ---------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code"), [(401, "GatedRepo"), (403, "GatedRepo"), (401, "RepoNotFound")])
def test_a_gated_or_private_model_says_how_to_get_in(
    status: int, code: str, serve_hub: Serve, files: dict[str, bytes]
) -> None:
    serve_hub({REPOSITORY: files}, refused={REPOSITORY: (status, code)})

    error = refusal()

    assert error.message == f"{NAME} cannot be fetched: it is not on the hub, or gated or private"
    assert "hf auth login" in error.hint


def test_a_model_without_safetensors_says_what_it_has(serve_hub: Serve) -> None:
    hub = serve_hub({REPOSITORY: {"config.json": b"{}", "pytorch_model.bin": b"y", "a.gguf": b"y"}})

    error = refusal()

    assert error.message == f"{NAME} has no model*.safetensors, only pytorch_model.bin, a.gguf"
    assert f"lc convert {NAME}" in error.hint
    assert not fetched(hub)


@pytest.mark.parametrize("name", ["hf:", "hf:tiny", "hf:org/name/more", "hf:org/name@", "hf:../x:y", "hf:org/na me"])
def test_what_is_no_name_of_a_model_is_refused(name: str, serve_hub: Serve) -> None:
    hub = serve_hub({})

    assert "hf:org/name@revision" in refusal(name).hint
    assert not hub.requests


def test_a_name_that_nobody_has_is_checked(serve_hub: Serve) -> None:
    serve_hub({})

    assert "check the name" in refusal("hf:org/none").hint


# --- the commands ---------------------------------------------------------------------------------


def test_a_run_starts_from_the_hub_and_another_readme_makes_no_other_run(
    lc: Callable[..., Any],
    workspace: Path,
    serve_hub: Serve,
    files: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = serve_hub({REPOSITORY: files | {"README.md": b"A tiny model."}})
    words = ("train", "tiny", "--model.path", NAME)

    done = lc(*words)

    assert done.code == 0, done.err
    assert f"{NAME} at commit {hub.commit(REPOSITORY)[:12]}" in done.err
    assert json.loads(lc("show", "tiny/default/001", "--json").out)["options"]
    hub.repositories[REPOSITORY]["README.md"] = b"A very tiny model."
    fetch.cache_clear()
    assert "is finished" in lc(*words).err
    hub.close()
    fetch.cache_clear()
    assert "is finished" in lc(*words).err
    assert "the cached copy of commit" in caplog.messages[0]
    assert lc("eval", NAME, "--dataset", "texts").code == 0


def test_a_dataset_takes_a_tokenizer_of_the_hub_and_no_weights(
    lc: Callable[..., Any], workspace: Path, serve_hub: Serve, files: dict[str, bytes]
) -> None:
    hub = serve_hub({REPOSITORY: files})

    assert lc("build", "texts", "--tokenizer", NAME).code == 0
    assert "tokenizer.json" in fetched(hub)
    assert "model.safetensors" not in fetched(hub)


# --- interruptions --------------------------------------------------------------------------------


def test_a_killed_download_goes_on_with_the_files_that_it_lacks(
    serve_hub: Serve, files: dict[str, bytes], tmp_path: Path
) -> None:
    whole = tmp_path / "shards"
    model = load_model(tiny_model_dir(tmp_path / "model"), dtype=torch.float32, device=torch.device("cpu"))
    save_model(whole, model, like=tmp_path / "model", dtype=torch.float32, shard_bytes=200_000)
    files = {file.name: file.read_bytes() for file in whole.iterdir()}
    first, *_, last = sorted(name for name in files if name.startswith("model-"))
    hub = serve_hub({REPOSITORY: files}, stalled={last: 1000})
    command = [
        sys.executable,
        "-c",
        "import sys; from lovecraft.hub import WEIGHTS, fetch; print(fetch(sys.argv[1]))",
        NAME,
    ]
    killed = subprocess.Popen(command)
    snapshot = tmp_path / "huggingface" / "hub" / "models--org--tiny" / "snapshots" / hub.commit(REPOSITORY)
    deadline = time.monotonic() + 30
    while len(list(snapshot.glob("*"))) < len(files) - 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    hub.close()
    assert (snapshot / first).exists()
    assert "the hub cannot be reached (" in refusal().message  # a half is no copy

    hub = serve_hub({REPOSITORY: files})
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(snapshot), "")
    assert fetched(hub) == {last}
    assert {file.name: file.read_bytes() for file in snapshot.iterdir()} == files
