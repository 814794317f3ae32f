import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lovecraft.tokenizer import load_tokenizer
from tests.cli.test_serve import make_run
from tests.serving import TEXT, Running, running, serving
from tests.tiny import tiny_model_dir

GREEDY = ("--temperature", "0", "--max-tokens", "12", "--ignore-eos", "--dtype", "float32")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=64)


@pytest.fixture
def server(model_dir: Path) -> Iterator[Running]:
    with serving(load_tokenizer(model_dir)) as made, running(made) as found:
        yield found


def test_prompt_and_continuation_go_to_stdout_and_the_rate_to_stderr(lc: Any, model_dir: Path) -> None:
    outcome = lc("generate", model_dir, "The lamp", *GREEDY)
    assert outcome.code == 0
    assert outcome.out.startswith("The lamp")
    assert len(outcome.out) > len("The lamp\n")
    assert "12 tokens, " in outcome.err
    assert outcome.err.endswith("tokens/s, stopped at --max-tokens\n")
    bare = lc("generate", model_dir, "The lamp", *GREEDY, "--no-echo")
    assert "The lamp" + bare.out == outcome.out


def test_prompt_comes_from_stdin(lc: Any, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = lc("generate", model_dir, "The lamp", *GREEDY).out
    monkeypatch.setattr(sys, "stdin", io.StringIO("The lamp\n"))
    assert lc("generate", model_dir, *GREEDY).out == expected


def test_one_word_with_a_space_is_the_prompt_of_the_project_you_stand_in(
    lc: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(workspace, "001", 4)
    monkeypatch.chdir(workspace / "projects/tiny")
    outcome = lc("generate", "The lamp", *GREEDY)
    assert outcome.code == 0
    assert outcome.out.startswith("The lamp")


def test_same_seed_same_texts_and_each_of_n_is_another(lc: Any, model_dir: Path) -> None:
    words = ("generate", model_dir, "The lamp", "--max-tokens", "20", "--ignore-eos", "--n", "3")
    first = lc(*words, "--seed", "5").out
    texts = [part for part in first.split("---") if "lamp" in part]
    assert len(set(texts)) == 3
    assert "2 of 3" in first
    assert lc(*words, "--seed", "5").out == first
    assert lc(*words, "--seed", "6").out != first


def test_stop_string_ends_the_text(lc: Any, model_dir: Path) -> None:
    words = ("generate", model_dir, "The lamp", *GREEDY, "--no-echo")
    whole = lc(*words).out.removesuffix("\n")
    assert lc(*words, "--stop", whole[5:8]).out == whole[: whole.find(whole[5:8])] + "\n"


def test_context_policies(lc: Any, model_dir: Path) -> None:
    words = ("generate", model_dir, "The lamp", "--max-tokens", "200", "--ignore-eos")
    rolled = lc(*words)
    assert "200 tokens" in rolled.err
    assert re.search(r"context rolled \d times", rolled.err)
    assert "context rolled once" in lc(*words[:-2], "60", "--ignore-eos").err
    stopped = lc(*words, "--context", "stop")
    assert stopped.code == 0
    assert "200 tokens" not in stopped.err
    assert "the context is full" in stopped.err
    refused = lc(*words, "--context", "error")
    assert (refused.code, refused.out) == (2, "")
    assert "200 more" in refused.err
    assert "context is 64" in refused.err


def test_prompt_that_is_not_utf8_is_exit_2(lc: Any, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not UTF-8" in lc("generate", model_dir, "\udcff").err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
    assert "not UTF-8" in lc("generate", model_dir).err


def test_path_with_a_space_is_what_to_run(lc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model_dir(tmp_path / "my models")
    monkeypatch.setattr(sys, "stdin", io.StringIO("The lamp\n"))
    assert lc("generate", model, *GREEDY).out.startswith("The lamp")


def test_prompt_longer_than_the_context_is_exit_2_unless_it_may_roll(lc: Any, model_dir: Path) -> None:
    for policy in ("stop", "error"):
        outcome = lc("generate", model_dir, "lamp " * 100, "--context", policy)
        assert (outcome.code, outcome.out) == (2, "")
        assert "context is 64" in outcome.err


def test_prompt_longer_than_the_context_is_rolled(lc: Any, model_dir: Path) -> None:
    outcome = lc("generate", model_dir, "lamp " * 100, *GREEDY)
    assert outcome.code == 0
    assert outcome.out.startswith("lamp " * 100)
    assert "its beginning and end are read, 40 in all" in outcome.err
    assert "12 tokens" in outcome.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "nan"], "expected a number from 0 to 2, not 'nan'"),
        (["--top-p", "0"], "top-p"),
        (["--max-tokens", "0"], "expected a whole number from 1 to 1000000, not '0'"),
        (["--max-tokens", "none"], "max-tokens"),
        (["--context", "x"], "context"),
        (["--tempreature", "1"], "tempreature"),
        (["--model", "m"], "--url"),
        (["--stop", ""], "stop"),
    ],
)
def test_wrong_flags_are_exit_2(lc: Any, model_dir: Path, words: list[str], said: str) -> None:
    outcome = lc("generate", model_dir, "so", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err


def test_url_takes_the_text_from_a_server(lc: Any, server: Running, tmp_path: Path) -> None:
    outcome = lc("generate", "so", "--url", server.url, "--max-tokens", "100")
    assert (outcome.code, outcome.out) == (0, f"so{TEXT}\n")
    assert outcome.err.endswith("tokens/s, ended by the model\n")
    (tmp_path / "key").write_text("# mine\nsesame\n")
    words = ("--url", server.url + "/v1", "--stop", " had", "--api-key-file", tmp_path / "key", "--seed", "3")
    assert lc("generate", "so", *words, "--max-tokens", "100", "--no-echo").out == TEXT.partition(" had")[0] + "\n"


def test_url_mistakes_are_exit_2(lc: Any, server: Running, tmp_path: Path) -> None:
    for words, said in [
        (["so", "more"], "only the prompt"),
        (["so", "--model", "other"], "'other' does not exist"),
        (["so", "--context", "roll"], "--context has no effect with --url"),
        (["so", "--dtype", "float32"], "--dtype has no effect"),
        (["so", "--api-key-file", tmp_path / "none"], "No such file"),
    ]:
        outcome = lc("generate", *words, "--url", server.url)
        assert (outcome.code, outcome.out) == (2, "")
        assert said in outcome.err
    assert "cannot reach" in lc("generate", "so", "--url", "http://127.0.0.1:1").err


def test_head_ends_it_quietly(server: Running) -> None:
    command = f"{sys.executable} -m lovecraft generate 'so' --url {server.url} --max-tokens 100 | head -c 4"
    outcome = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert outcome.stdout == f"so{TEXT}"[:4]
    assert "Traceback" not in outcome.stderr
    assert "Broken" not in outcome.stderr


def test_ctrl_c_ends_the_line_with_code_130(lc: Any, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Iterator[dict[str, Any]]:
        yield {"choices": [{"text": " far"}]}
        raise KeyboardInterrupt

    monkeypatch.setattr("lovecraft.serve.client.stream", interrupted)
    outcome = lc("generate", "so", "--url", server.url)
    assert (outcome.code, outcome.out) == (130, "so far\n")
