"""`lc train`: which run it takes, what it says, how it ends."""

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lovecraft.config import record
from lovecraft.runs import Run
from lovecraft.train import control, held_out, loop, state
from lovecraft.train.metrics import read
from lovecraft.train.updates import AfterBackward
from tests.tiny import tiny_model_dir

Lc = Callable[..., Any]


@pytest.fixture(autouse=True)
def model(workspace: Path) -> Path:
    """Put the workspace's model in its place."""
    return tiny_model_dir(workspace / "models" / "tiny", max_position_embeddings=128)


def run_of(workspace: Path, number: str = "001") -> Run:
    return Run(workspace / "runs" / "tiny" / "default" / number)


def after(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    """Let something happen at the end of one step."""
    take_step = loop.take_step

    def taken(t: object) -> dict[str, Any]:
        row = take_step(t)
        if row["step"] == step:
            act()
        return row

    monkeypatch.setattr(loop, "take_step", taken)


def test_a_training_says_what_it_is_what_it_brought_and_how_to_use_it(lc: Lc, workspace: Path) -> None:
    done = lc("train", "tiny")
    assert done.code == 0
    assert done.out == f"{run_of(workspace).directory}\n"
    assert "batch_size" in done.err.split("step 0")[0]
    for words in (
        "run tiny/default/001",
        "validation loss",
        "→",
        "\nThe tale of c.",
        "lc serve tiny/default/001",
        "lc generate --url",
    ):
        assert words in done.err
    rows = read(run_of(workspace).directory)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 4]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_the_same_command_again_says_that_the_run_is_finished(lc: Lc, workspace: Path) -> None:
    first = lc("train", "tiny")
    again = lc("train", "tiny")
    assert again.code == 0
    assert again.out == first.out
    assert "tiny/default/001 is finished" in again.err
    assert "--new" in again.err
    assert "validation loss" in again.err
    assert "lc serve tiny/default/001" in again.err
    assert not run_of(workspace, "002").directory.exists()


def test_new_starts_another_run_that_is_the_same_to_the_bit(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    done = lc("train", "tiny", "--new")
    assert "run tiny/default/002" in done.err
    assert "nothing differs" in done.err
    first, second = (state.checkpoint_directory(run_of(workspace, n)) for n in ("001", "002"))
    assert first is not None
    assert second is not None
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_another_option_starts_the_next_number_and_says_what_differs(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    done = lc("train", "tiny", "--optimizer.lr", "0.002")
    assert "run tiny/default/002" in done.err
    said = " ".join(done.err.split("compared with tiny/default/001:")[1].split("step 0")[0].split())
    assert said == "option value was origin optimizer.lr 0.002 0.001 --optimizer.lr 0.002"


def test_another_corpus_starts_the_next_number_and_says_so(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    (workspace / "texts" / "a.txt").write_text("the tide, the tide, " * 30, encoding="utf-8")
    done = lc("train", "tiny")
    assert "run tiny/default/002" in done.err
    assert "another corpus" in done.err


def test_a_file_that_no_split_reads_is_not_of_the_corpus(lc: Lc, workspace: Path) -> None:
    (readme := workspace / "texts" / "README").write_text("Three tales.", encoding="utf-8")
    built = lc("build", "tiny", "dataset").out
    lc("train", "tiny")
    readme.write_text("Three short tales.", encoding="utf-8")

    assert lc("build", "tiny", "dataset", "--dry-run").out == f"dataset  fresh  {built}"
    assert "tiny/default/001 is finished" in lc("train", "tiny").err
    assert lc("build", "tiny", "dataset", "--dry-run", "--dataset.train", "*").out.splitlines() == [
        "dataset  stale  train: none → *  (--dataset.train '*')",
        "dataset  stale  corpus: README added  (//texts)",
    ]


def test_an_interrupted_run_is_resumed_by_the_same_command(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        after(patch, 2, lambda: signal.raise_signal(signal.SIGTERM))
        stopped = lc("train", "tiny")
    assert stopped.code == 143
    assert "stopped after step 2 of 4 (SIGTERM)\nthe same command goes on from step 2" in stopped.err
    done = lc("train", "tiny")
    assert done.code == 0
    assert "resuming tiny/default/001 at step 2 of 4" in done.err
    assert [row["step"] for row in read(run_of(workspace).directory)] == [0, 1, 2, 3, 4, 4]


def test_a_run_aborted_before_its_first_checkpoint_begins_again(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        after(patch, 2, lambda: control.request(run_of(workspace).directory, "abort"))
        aborted = lc("train", "tiny")
    assert aborted.code == 130
    assert "stopped after step 2 of 4 (abort)\nthe same command begins again" in aborted.err
    assert "resuming tiny/default/001 at step 0 of 4 (steps up to 2 were not saved)" in lc("train", "tiny").err


def test_a_run_is_resumed_by_its_name_and_by_its_record(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in (("001", "tiny/default/001"), ("002", run_of(workspace, "002").directory / "record.json")):
        with monkeypatch.context() as patch:
            after(patch, 2, lambda: signal.raise_signal(signal.SIGTERM))
            assert lc("train", "tiny", "--new").code == 143
        done = lc("train", name)
        assert done.code == 0
        assert f"resuming tiny/default/{number} at step 2 of 4" in done.err
        assert run_of(workspace, number).status["status"] == "finished"
        assert f"tiny/default/{number} is finished" in lc("train", name).err
    assert not run_of(workspace, "003").directory.exists()


def test_a_record_with_an_option_on_top_starts_a_new_run_and_says_what_differs_from_its_own(
    lc: Lc, workspace: Path
) -> None:
    lc("train", "tiny")
    lc("train", "tiny", "--seed", "7")
    done = lc("train", run_of(workspace).directory / "record.json", "--max-steps", "2")
    assert "run tiny/default/003" in done.err
    said = " ".join(done.err.split("compared with tiny/default/001:")[1].split("step 0")[0].split())
    assert said == "option value was origin max_steps 2 4 --max-steps 2"
    assert "tiny/default/003 is finished" in lc("train", "tiny/default/001", "--max-steps", "2").err


def test_a_record_from_elsewhere_starts_a_run_of_this_workspace(
    lc: Lc, workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lc("train", "tiny")
    elsewhere = tmp_path_factory.mktemp("mail")
    shutil.move(run_of(workspace).directory / "record.json", elsewhere / "record.json")
    shutil.rmtree(workspace / "runs")
    shutil.rmtree(workspace / "projects")  # the record is enough
    for place in (elsewhere, workspace):
        if place == workspace:
            shutil.move(elsewhere / "record.json", workspace / "record.json")
        done = lc("train", place / "record.json", "--new")
        assert done.code == 0, done.err
    assert sorted(p.name for p in run_of(workspace).directory.parent.iterdir()) == ["001", "002"]
    assert not [*elsewhere.iterdir()]


def test_an_option_that_a_newer_lovecraft_has_is_named(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    content = run_of(workspace).record
    content["options"].append({"path": "dropout", "value": 0.1, "type": "float", "origin": "x.py:3"})
    record.write(run_of(workspace).directory / "record.json", content)
    refused = lc("train", "tiny/default/001")
    assert (refused.code, refused.out) == (2, "")
    assert "'dropout', which this lovecraft does not have" in refused.err
    assert "dropout" in lc("show", "tiny/default/001").out
    assert "dropout" in lc("diff", "tiny", "tiny/default/001").out


def test_the_words_of_the_command_are_recorded_whoever_calls_it(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny", "--max-steps", "1")
    assert run_of(workspace).record["argv"] == ["train", "tiny", "--max-steps", "1"]


def test_what_was_measured_on_other_text_is_not_compared(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        after(patch, 2, lambda: control.request(run_of(workspace).directory, "stop"))
        lc("train", "tiny", "--eval.every", "1")
    file = run_of(workspace).directory / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    lines = [re.sub(r'(?<="loss": )[\d.]+', lambda m: "0.0".ljust(len(m[0])), x) if "split" in x else x for x in lines]
    file.write_text("".join(lines))

    done = lc("train", "tiny", "--eval.every", "1", "--eval.max-blocks", "1")

    assert "→" not in done.err.split("\n\n")[-1], "the first and the last loss are of other texts"
    best = state.checkpoint_directory(run_of(workspace), "best")
    assert best is not None
    assert best.name in ("step-00000003", "step-00000004"), "a loss of other text is not the one to beat"


def test_a_run_from_before_an_option_was_there_is_resumed_by_its_name(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        after(patch, 2, lambda: control.request(run_of(workspace).directory, "stop"))
        lc("train", "tiny")
    record = run_of(workspace).record
    older = [option for option in record["options"] if option["path"] != "dataset.train_on_overlap"]
    written = {**record, "options": older, "fingerprint": "of other options"}
    (run_of(workspace).directory / "record.json").write_text(json.dumps(written), encoding="utf-8")
    assert "resuming tiny/default/001 at step 2" in lc("train", "tiny/default/001").err


def test_what_does_not_change_the_result_may_change_on_a_resume_and_is_written_down(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        after(patch, 2, lambda: control.request(run_of(workspace).directory, "stop"))
        lc("train", "tiny")
    done = lc("train", "tiny", "--save.every", "1", "--memory.loss-chunk", "8")
    assert "resuming tiny/default/001 at step 2" in done.err
    assert "not bit-exact" in done.err
    assert 3 in state.checkpoints(run_of(workspace).directory)
    [change] = run_of(workspace).record["changes"]
    assert change["step"] == 2
    assert [(option["path"], option["b"]) for option in change["options"]] == [
        ("memory.loss_chunk", 8),
        ("save.every", 1),
    ]


def test_a_change_that_a_later_resume_takes_back_is_written_down_too(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step, words in enumerate(([], ["--save.every", "3"], ["--save.every", "3"], []), 1):
        with monkeypatch.context() as patch:
            after(patch, step, lambda: control.request(run_of(workspace).directory, "stop"))
            lc("train", "tiny", *words)
    options = [option for change in run_of(workspace).record["changes"] for option in change["options"]]
    assert [(option["a"], option["b"]) for option in options] == [(None, 3), (3, None)]


def test_after_a_loss_that_is_not_finite_only_a_change_helps(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(AfterBackward, "norm", lambda _: float("nan"))
        failed = lc("train", "tiny", "--save", "none")
    assert failed.code == 3
    assert "step 1" in failed.err
    for words in ([], ["--save", "none"]):
        refused = lc("train", "tiny", *words)
        assert refused.code == 2
        assert "--new" in refused.err
    assert lc("train", "tiny", "--new").code == 0
    assert lc("train", "tiny", "--optimizer.lr", "0.0005").code == 0


def test_after_a_spike_only_a_change_or_a_higher_limit_helps(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cross_entropy = loop.linear_cross_entropy
    calls = iter(range(1, 100))
    words = ["tiny", "--stop-on-spike", "2", "--eval", "none", "--save.every", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "linear_cross_entropy", lambda *w: cross_entropy(*w) * (3 if next(calls) == 3 else 1))
        failed = lc("train", *words)
    assert failed.code == 3
    assert re.search(r"step 3: the loss is .* times its running mean .*\(blocks? .* of documents? [ab]", failed.err)
    refused = lc("train", *words)
    assert refused.code == 2
    assert "raise --stop-on-spike" in refused.err
    gone_on = lc("train", "tiny", "--stop-on-spike", "4", "--eval", "none", "--save.every", "1")
    assert gone_on.code == 0
    assert "resuming tiny/default/001 at step 2 of 4" in gone_on.err


def test_a_run_that_learns_no_more_is_finished_early_and_goes_on_with_more_patience(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lovecraft.train.evaluate import Evaluation

    losses = iter([9.0, 3.0, 4.0, 5.0, 6.0])

    def measured(*_: object, **__: object) -> Evaluation:
        return Evaluation(loss=next(losses), bits_per_byte=1.0, tokens=9, documents=1)

    monkeypatch.setattr(held_out, "evaluate", measured)
    words = ["tiny", "--eval.every", "1", "--eval.patience"]
    done = lc("train", *words, "2")
    assert done.code == 0
    assert "finished early, after step 3 of 4: the held-out loss falls no more" in done.err
    assert "it was lowest after step 1: `lc serve tiny/default/001 --checkpoint best`" in done.err
    [row] = json.loads(lc("runs", "--json").out)
    assert (row["status"], row["reason"], row["step"]) == ("finished", "patience", 3)
    assert "tiny/default/001 is finished" in lc("train", *words, "1").err
    gone_on = lc("train", *words, "none")
    assert gone_on.code == 0
    assert "resuming tiny/default/001 at step 3 of 4" in gone_on.err
    assert run_of(workspace).status["reason"] == ""


def test_the_last_evaluation_is_what_lc_eval_measures(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    last = read(run_of(workspace).directory)[-1]
    found = json.loads(lc("eval", "tiny/default/001", "--json").out)
    names = ("loss", "perplexity", "bits_per_byte", "tokens")
    assert [last[name] for name in names] == [found[name] for name in names]


def test_a_sink_without_its_package_makes_no_run(lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "wandb" else find(name, *more))
    done = lc("train", "tiny", "--log.sinks", "wandb")
    assert done.code == 2
    assert "pip install 'lovecraft-lc[wandb]'" in done.err
    assert not (workspace / "runs").exists()


def test_a_run_that_another_process_trains_is_left_alone(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        after(patch, 2, lambda: control.request(run_of(workspace).directory, "stop"))
        lc("train", "tiny")
    with FileLock(run_of(workspace).directory / control.LOCK):
        run_of(workspace).say(status="running", pid=4242)
        done = lc("train", "tiny", "--save.every", "1")
    assert run_of(workspace).record["changes"] == []
    assert done.code == 2
    assert "tiny/default/001 is being trained by process 4242" in done.err
    assert "`lc stop tiny/default/001`" in done.err
    assert "resuming" not in done.err


def test_a_run_that_cannot_be_locked_is_refused_and_listed_as_it_said(
    lc: Lc, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        after(patch, 2, lambda: control.request(run_of(workspace).directory, "stop"))
        lc("train", "tiny")
    run = run_of(workspace)
    (run.directory / control.LOCK).unlink()
    (run.directory / control.LOCK).mkdir()  # cannot be opened, as one that belongs to another user
    done = lc("train", "tiny")
    assert done.code == 2
    assert "not writable" in done.err
    run.say(status="running", pid=1)
    assert "running" in lc("runs").out


def test_without_save_nothing_is_resumed_served_or_called_the_same(lc: Lc, workspace: Path) -> None:
    done = lc("train", "tiny", "--save", "none")
    assert done.code == 0
    assert "nothing saved" in done.err
    assert "lc serve" not in done.err
    assert "run tiny/default/002" in lc("train", "tiny", "--save", "none").err


def test_an_interrupted_training_without_save_says_so(lc: Lc, monkeypatch: pytest.MonkeyPatch) -> None:
    after(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    stopped = lc("train", "tiny", "--save", "none")
    assert stopped.code == 130
    assert "nothing saved" in stopped.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere"),
        (["tiny", "--model.path", "no/such/model"], "lc convert"),
        (["tiny", "--model.path", "models/smollm2_135m"], "make model"),
        (["tiny", "--dataset.source", "no/such/corpus"], "corpus"),
        (["tiny", "--dataset.stride", "32"], "stride"),
        (["tiny", "--dataset.block-size", "4096"], "context"),
        (["tiny", "--batch-sise", "3"], "--batch-size"),
        (["tiny", "--model.dtype", "float16"], "float16"),
        (["texts"], "lc train tiny --dataset texts/default"),
    ],
)
def test_mistakes_end_with_a_message_and_make_no_run(lc: Lc, workspace: Path, words: list[str], said: str) -> None:
    done = lc("train", *words)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


def test_a_record_of_the_run_holds_its_inputs(lc: Lc, workspace: Path) -> None:
    lc("train", "tiny")
    record = json.loads((run_of(workspace).directory / "record.json").read_text())
    assert record["inputs"].keys() == {"corpus", "tokenizer", "model"}
    assert all(re.fullmatch("[0-9a-f]{32,64}", content) for content in record["inputs"].values())


def test_a_longer_context_that_was_trained_is_the_checkpoint_s_context(lc: Lc, workspace: Path) -> None:
    tiny_model_dir(workspace / "models" / "short", max_position_embeddings=16)
    done = lc("train", "tiny", "--model.path", workspace / "models" / "short", "--model.max-context", "32")
    assert done.code == 0
    checkpoint = state.checkpoint_directory(run_of(workspace))
    assert checkpoint is not None
    assert json.loads((checkpoint / "config.json").read_text())["max_position_embeddings"] == 32
    assert lc("generate", "tiny", "The night", "--max-tokens", "24", "--context", "error").code == 0
