"""Datasets of the hub: their splits and rows, what is asked for again, and what is said when they cannot be had."""

import io
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lovecraft import DatasetConfig
from lovecraft.data import hub as module
from lovecraft.data.build import build
from lovecraft.data.hub import cached_files, rows, split_names
from lovecraft.data.sources import content_hashes
from lovecraft.data.splits import Survey, survey
from lovecraft.errors import DataError
from lovecraft.tokenizer import Tokenizer
from tests.hub import Hub, hubs

Serve = Callable[..., Hub]
SOURCE, REPOSITORY = "hf:org/MyTales", "datasets/org/MyTales"
TRAIN, HELD_OUT = ["The lamp burned.", "The sea rose.", "Nobody counted."], ["The bell rang."]
CONFIGURATIONS = b"""\
---
configs:
- config_name: short
  data_files: short/*.jsonl
- config_name: long
  data_files: [{split: train, path: long/a.jsonl}, {split: test, path: long/b.jsonl}]
---
"""


def jsonl(texts: list[Any], field: str = "text") -> bytes:
    return "".join(json.dumps({"id": n, field: text}) + "\n" for n, text in enumerate(texts)).encode()


def parquet(table: dict[str, list[Any]]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(table), out)
    return out.getvalue()


def tales() -> dict[str, dict[str, bytes]]:
    return {REPOSITORY: {"data/train.jsonl": jsonl(TRAIN), "data/validation.jsonl": jsonl(HELD_OUT), "README.md": b""}}


def in_a_new_process(what: Callable[..., Any], *arguments: Any) -> Any:
    """Do what forgets what this process has loaded."""
    module._load.cache_clear()
    return what(*arguments)


def read(source: str, **options: Any) -> Survey:
    return survey(DatasetConfig(source=source, **options))


def refusal(source: str) -> DataError:
    with pytest.raises(DataError) as caught:
        in_a_new_process(split_names, source)
    return caught.value


@pytest.fixture
def serve_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serve]:
    module._load.cache_clear()
    with hubs(monkeypatch, tmp_path / "huggingface") as serve_hub:
        yield serve_hub
    module._load.cache_clear()


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_dataset_is_built_by_its_own_splits(
    kind: str, serve_hub: Serve, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    made = {"jsonl": jsonl, "parquet": lambda texts: parquet({"id": [*range(len(texts))], "text": texts})}[kind]
    serve_hub({REPOSITORY: {f"data/train.{kind}": made(TRAIN), f"data/validation.{kind}": made(HELD_OUT)}})

    built = build(DatasetConfig(source=SOURCE, block_size=64, stride=8), tokenizer, tmp_path / "cache")

    names = {split: [one.name for one in blocks.documents] for split, blocks in built.splits.items()}
    assert names == {"train": ["train:1", "train:2", "train:3"], "validation": ["validation:1"]}
    train = built.splits["train"]
    assert [tokenizer.decode(train[n].input_ids, skip_special=True) for n in range(len(train))] == TRAIN


def test_patterns_are_matched_against_the_splits(serve_hub: Serve) -> None:
    serve_hub(tales())

    found = read(SOURCE, train=("validation",), validation=("tr*",))

    assert {split: len(numbers) for split, numbers in found.division.splits.items()} == {"train": 1, "validation": 3}


def test_rows_hold_the_fields_that_are_asked_for_if_there_are_all(serve_hub: Serve) -> None:
    serve_hub(tales())

    assert list(rows(SOURCE, "validation", ["text"])) == [(1, {"text": HELD_OUT[0]})]
    assert list(rows(SOURCE, "validation", ["text", "label"])) == [(1, {"id": 0, "text": HELD_OUT[0]})]
    assert [number for number, _ in rows(SOURCE, "train")] == [1, 2, 3]


def test_conversations_and_pairs_are_rows_too(serve_hub: Serve) -> None:
    messages = [{"role": "user", "content": "Who is there?"}, {"role": "assistant", "content": "The keeper."}]
    pairs = {"ask": ["Who is there?"], "answer": ["The keeper."]}
    serve_hub(
        {
            "datasets/org/chats": {"train.jsonl": jsonl([messages], "messages")},
            "datasets/org/pairs": {"train.parquet": parquet(pairs)},
        }
    )

    chats = read("hf:org/chats", messages_field="messages")
    asked = read("hf:org/pairs", prompt_field="ask", response_field="answer")

    assert list(chats.characters) == list(asked.characters) == [len("Who is there?\n\nThe keeper.")]


def test_a_missing_field_and_one_that_is_no_text_are_named_with_the_row(serve_hub: Serve) -> None:
    images = [{"bytes": b"\x89PNG", "path": "a.png"}]
    head = b"---\ndataset_info: {features: [{name: image, dtype: image}, {name: label, dtype: string}]}\n---\n"
    serve_hub({REPOSITORY: {"train.parquet": parquet({"image": images, "label": ["sea"]}), "README.md": head}})

    with pytest.raises(DataError, match=f"{SOURCE}: train:1 has no field 'text'") as caught:
        read(SOURCE)
    assert "image, label" in caught.value.hint
    with pytest.raises(DataError, match=f"{SOURCE}: train:1: image is dict, not text"):
        read(SOURCE, text_field="image")


# --- configurations -------------------------------------------------------------------------------


def test_a_configuration_is_named_behind_the_dataset(serve_hub: Serve) -> None:
    files = {"short/a.jsonl": jsonl(["sea"]), "long/a.jsonl": jsonl(["bell"]), "long/b.jsonl": jsonl(["moor"])}
    hub = serve_hub({REPOSITORY: {"README.md": CONFIGURATIONS, **files}})

    assert split_names(f"{SOURCE}:short") == ["train"]
    assert split_names(f"{SOURCE}:long") == ["train", "test"]
    assert list(rows(f"{SOURCE}:long", "test", ["text"])) == [(1, {"text": "moor"})]
    for wrong in (SOURCE, f"{SOURCE}:tall"):
        error = refusal(wrong)
        assert "['short', 'long']" in error.message
        assert "hf:org/name:configuration" in error.hint
    hub.close()
    assert in_a_new_process(split_names, f"{SOURCE}:long") == ["train", "test"]
    assert "the hub cannot be reached" in refusal(SOURCE).message  # which of the two in the cache is not known
    assert "the hub cannot be reached" in refusal(f"{SOURCE}:tall").message


# --- what is asked for again ----------------------------------------------------------------------


def test_the_second_process_downloads_nothing(serve_hub: Serve, tmp_path: Path) -> None:
    hub = serve_hub(tales())
    first = content_hashes(SOURCE, tmp_path)
    asked = len(hub.requests)

    assert content_hashes(SOURCE, tmp_path) == first
    assert len(hub.requests) == asked
    assert in_a_new_process(content_hashes, SOURCE, tmp_path) == first
    assert hub.requests[asked]  # for the newest commit
    assert not [line for line in hub.requests[asked:] if line.startswith("GET") and "/resolve/" in line]


def test_the_content_is_another_when_a_row_is_and_the_same_in_another_commit(serve_hub: Serve, tmp_path: Path) -> None:
    hub = serve_hub(tales())
    first, files = content_hashes(SOURCE, tmp_path), cached_files(SOURCE)

    hub.repositories[REPOSITORY]["README.md"] = b"Tales of the sea."
    same = in_a_new_process(content_hashes, SOURCE, tmp_path)
    assert cached_files(SOURCE) != files
    hub.repositories[REPOSITORY]["data/validation.jsonl"] = jsonl(["The bell fell."])
    other = in_a_new_process(content_hashes, SOURCE, tmp_path)

    assert list(first) == ["my_tales-train.arrow", "my_tales-validation.arrow"]
    assert same == first
    assert [name for name in first if other[name] != first[name]] == ["my_tales-validation.arrow"]


def test_a_folder_of_the_same_name_is_not_meant(serve_hub: Serve, tmp_path: Path) -> None:
    serve_hub(tales())
    (tmp_path / "org" / "MyTales").mkdir(parents=True)
    (tmp_path / "org" / "MyTales" / "train.jsonl").write_bytes(jsonl(["mine"]))

    assert split_names(SOURCE) == ["train", "validation"]


# --- no network -----------------------------------------------------------------------------------


def test_without_the_hub_the_cached_copy_is_read_and_that_is_said(
    serve_hub: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub = serve_hub(tales())
    first, commit = content_hashes(SOURCE, tmp_path), hub.commit(REPOSITORY)
    assert not caplog.messages

    hub.close()

    assert in_a_new_process(content_hashes, SOURCE, tmp_path) == first
    assert [text["text"] for _, text in rows(SOURCE, "train")] == TRAIN
    [told] = caplog.messages
    assert "Connection refused" in told
    assert f"commit {commit[:8]}, configuration default" in told


def test_the_copy_fetched_last_is_the_one_that_is_read(serve_hub: Serve) -> None:
    hub = serve_hub(tales())
    split_names(SOURCE)
    hub.repositories[REPOSITORY]["data/train.jsonl"] = jsonl(["newer"])
    in_a_new_process(split_names, SOURCE)
    hub.close()

    assert in_a_new_process(lambda: list(rows(SOURCE, "train", ["text"]))) == [(1, {"text": "newer"})]


def test_a_copy_is_read_when_the_hub_gives_the_newest_commit_to_others_only(
    serve_hub: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    hub = serve_hub(tales())
    split_names(SOURCE)
    commit = hub.commit(REPOSITORY)
    hub.repositories[REPOSITORY]["data/train.jsonl"] = jsonl(["newer"])
    hub.refused[REPOSITORY] = (403, "GatedRepo")

    assert in_a_new_process(lambda: [row["text"] for _, row in rows(SOURCE, "train")]) == TRAIN
    [told] = caplog.messages
    assert f"does not give its newest commit; the cached copy of commit {commit[:8]}" in told


def test_without_the_hub_and_a_copy_there_is_a_remedy(serve_hub: Serve) -> None:
    serve_hub(tales()).close()

    error = refusal(SOURCE)

    assert error.message.startswith(f"{SOURCE} cannot be read: the hub cannot be reached (")
    assert "online" in error.hint


def test_the_offline_switch_of_the_libraries_is_obeyed(serve_hub: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = serve_hub(tales())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    assert "HF_HUB_OFFLINE" in refusal(SOURCE).message
    assert not hub.requests


def test_a_hub_that_says_nothing_is_not_waited_for(serve_hub: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_hub(tales()).close()
    monkeypatch.setattr(module, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")

        assert "the hub cannot be reached (timed out)" in refusal(SOURCE).message


# --- what cannot be had ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("code", ["GatedRepo", "RepoNotFound"])
def test_a_gated_or_private_dataset_says_how_to_get_in(status: int, code: str, serve_hub: Serve) -> None:
    serve_hub(tales(), refused={REPOSITORY: (status, code)})

    error = refusal(SOURCE)

    assert error.message == f"{SOURCE} cannot be read: it is not on the hub, or gated or private"
    assert "hf auth login" in error.hint


def test_a_name_that_nobody_has_is_checked(serve_hub: Serve) -> None:
    serve_hub(tales())

    error = refusal("hf:org/none")

    assert error.message == "hf:org/none cannot be read: it is not on the hub, or gated or private"
    assert "check the name" in error.hint


@pytest.mark.parametrize(
    "source", ["hf:", "hf:json", "hf:org/name/more", "hf:org/name:", "hf:../name:a", "hf:org/na me"]
)
def test_what_is_no_name_of_a_dataset_is_refused(source: str, serve_hub: Serve) -> None:
    hub = serve_hub(tales())

    assert refusal(source).hint
    assert len(hub.requests) < 3


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"train.jsonl": b'{"text": "sea"}\n{"text": \n'}, "JSON"),
        ({"train.parquet": b"PAR1 no PAR1"}, "Parquet"),
        ({"train.jsonl": b'{"text": "sea"}', "validation.jsonl": b'{"words": "sea"}'}, "column"),
        ({"README.md": b"Nothing else."}, "data files"),
        ({"MyTales.py": b"raise SystemExit"}, "scripts are no longer supported"),
        ({"train.jsonl": b'{"text": "sea"}', "README.md": b"---\nconfigs: [\n---\n"}, "parsing"),
        ({"train.jsonl": b'{"text": "sea"}', "README.md": b"---\nconfigs: [3]\n---\n"}, "int"),
        ({}, "any data files"),
    ],
)
def test_a_dataset_that_cannot_be_read_says_why(files: dict[str, bytes], why: str, serve_hub: Serve) -> None:
    serve_hub({REPOSITORY: files})

    error = refusal(SOURCE)

    assert why in error.message
    assert "\n" not in error.message


def test_nothing_is_printed_but_that_a_copy_is_read(serve_hub: Serve) -> None:
    hub = serve_hub(tales())
    command = "import sys; from lovecraft.data.hub import split_names; assert split_names(sys.argv[1])"

    def run() -> tuple[int, str, str]:
        words = [sys.executable, "-W", "error", "-c", command, SOURCE]
        done = subprocess.run(words, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    assert run() == (0, "", "")
    assert any(line.startswith("GET") and line.endswith("train.jsonl") for line in hub.requests)
    hub.close()
    code, out, err = run()
    assert (code, out, err.count("\n")) == (0, "", 1)
    assert err.startswith(f"{SOURCE}: the hub cannot be reached (")
