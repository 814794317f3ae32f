"""Whatever ends a training, the same command goes on as if nothing had: the same rows, the same bits."""

import os
import pty
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lovecraft import SGD, Adafactor, device
from lovecraft.errors import RunError
from lovecraft.models import read_architecture
from lovecraft.models.architecture import parameter_count
from lovecraft.runs import Run
from lovecraft.train import control, display, evaluate, held_out, loop, sample, state
from tests.train import children
from tests.train.bench import Bench, rows

OPTIMIZERS: dict[str, dict[str, object]] = {
    "float32": {},
    "stochastic": {"model__dtype": "bfloat16"},
    "master": {"model__dtype": "bfloat16", "optimizer__rounding": "master"},
    "adafactor": {"optimizer": Adafactor},
    "momentum": {"optimizer": SGD, "optimizer__momentum": 0.9},
    "no state": {"optimizer": SGD},
}


def tensors(run: Run) -> dict[str, Tensor]:
    """Return the newest checkpoint's weights and optimizer state."""
    directory = state.checkpoint_directory(run)
    assert directory is not None
    return load_file(directory / "model.safetensors") | load_file(directory / "trainer" / "optimizer.safetensors")


def assert_same(a: Run, b: Run) -> None:
    assert rows(a) == rows(b)
    left, right = tensors(a), tensors(b)
    assert left.keys() == right.keys()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def after(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    """Let something happen at the end of one step."""
    take_step = loop.take_step

    def taken(t: object) -> dict[str, object]:
        row = take_step(t)
        if row["step"] == step:
            act()
        return row

    monkeypatch.setattr(loop, "take_step", taken)


def uninterrupted(bench: Bench, changes: dict[str, object]) -> Run:
    run = bench.run("whole")
    bench.train(bench.config(**changes), run)
    return run


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_stopped_and_resumed_is_as_if_it_had_never_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    changes: dict[str, object] = {"eval__every": 2, **OPTIMIZERS[optimizer]}
    run, config = bench.run(), bench.config(**changes)
    with monkeypatch.context() as patch:
        after(patch, 3, lambda: control.request(run.directory, "stop"))
        outcome = bench.train(config, run)
    assert (outcome.step, outcome.reason, run.status["status"]) == (3, "stop", "stopped")
    assert bench.train(config, run).reason == ""
    assert run.status["status"] == "finished"
    assert_same(run, uninterrupted(bench, changes))


def test_a_run_stopped_at_the_end_of_an_epoch_goes_on_with_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, object] = {"epochs": 2.0, "max_steps": None, "batch_size": 7}
    run, config = bench.run(), bench.config(**changes)
    per_epoch = -(-len(bench.built(config).splits["train"]) // 7)
    with monkeypatch.context() as patch:
        after(patch, per_epoch, lambda: control.request(run.directory, "stop"))
        assert bench.train(config, run).step == per_epoch
    assert bench.train(config, run).step == 2 * per_epoch
    assert_same(run, uninterrupted(bench, changes))


@pytest.mark.parametrize("where", children.PLACES)
def test_killed_at_any_moment_and_resumed_is_as_if_nothing_had_happened(bench: Bench, where: str) -> None:
    changes: dict[str, object] = {"save__every": 2, "eval__every": 2, "save__best": False, "model__dtype": "bfloat16"}
    run = bench.run()
    child = children.start(bench, where, changes)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert list(state.checkpoints(run.directory)) == ([2, 4] if where == "step" else [2])
    assert bool(list((run.directory / "checkpoints").glob(".*.tmp*"))) == (where == "save")
    assert not control.is_running(run.directory)
    bench.train(bench.config(**changes), run)
    assert not list((run.directory / "checkpoints").glob(".*"))
    assert_same(run, uninterrupted(bench, changes))


def test_killed_before_the_first_checkpoint_starts_again(bench: Bench) -> None:
    run = bench.run()
    child = children.start(bench, "step", {})
    child.join(60)
    assert len(rows(run)) == 5
    bench.train(bench.config(), run)
    assert_same(run, uninterrupted(bench, {}))


# --- signals and requests -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_training_after_its_step_with_a_checkpoint(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    run = bench.run()
    handler = signal.getsignal(number)
    after(monkeypatch, 2, lambda: signal.raise_signal(number))
    outcome = bench.train(bench.config(), run)
    assert (outcome.step, outcome.reason) == (2, number.name)
    assert list(state.checkpoints(run.directory)) == [2]
    assert signal.getsignal(number) is handler


def test_under_nohup_a_training_outlives_its_terminal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        after(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGHUP))
        assert bench.train(bench.config(), bench.run()).reason == ""
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_went_to_a_closed_terminal_goes_nowhere_and_saving_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, printed = bench.run(), os.dup(2)
    ours, terminal = pty.openpty()
    os.dup2(terminal, 2)
    os.close(terminal)
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    hung_up = [signal.SIGHUP, signal.SIGHUP]  # from the shell and from the system
    after(monkeypatch, 2, lambda: (os.close(ours), [signal.raise_signal(number) for number in hung_up]))
    try:
        assert bench.train(bench.config(), run).reason == "SIGHUP"
    finally:
        os.dup2(printed, 2)
        os.close(printed)
    assert list(state.checkpoints(run.directory)) == [2]


def test_a_second_signal_ends_it_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.run()
    after(monkeypatch, 2, lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        bench.train(bench.config(), run)
    assert not state.checkpoints(run.directory)


def test_a_request_to_save_saves_and_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.run()
    after(monkeypatch, 2, lambda: control.request(run.directory, "save"))
    assert bench.train(bench.config(), run).step == 6
    assert list(state.checkpoints(run.directory)) == [2, 6]


def test_a_request_to_abort_ends_without_saving(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.run()
    after(monkeypatch, 2, lambda: control.request(run.directory, "abort"))
    assert bench.train(bench.config(), run).reason == "abort"
    assert not state.checkpoints(run.directory)


def test_max_minutes_saves_and_stops(bench: Bench) -> None:
    run = bench.run()
    outcome = bench.train(bench.config(max_minutes=1e-9, eval=None), run)
    assert outcome.reason == "max_minutes"
    assert run.status["status"] == "stopped"


def test_a_request_to_a_process_that_is_gone_does_not_stop_the_next(bench: Bench) -> None:
    run = bench.run()
    control.request(run.directory, "stop")
    assert bench.train(bench.config(), run).step == 6


def in_batch(monkeypatch: pytest.MonkeyPatch, batch: int, act: Callable[[], object]) -> None:
    """Let something happen while the held-out loss is measured, in one batch of all evaluations together."""
    collate, calls = evaluate.collate, iter(range(1, 100))

    def collated(*words: object) -> object:
        if next(calls) == batch:
            act()
        return collate(*words)

    monkeypatch.setattr(evaluate, "collate", collated)


@pytest.mark.parametrize(("batch", "step", "kept"), [(2, 0, []), (7, 3, [3]), (12, 6, [6])])
def test_a_signal_while_evaluating_saves_soon_and_the_evaluation_is_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, batch: int, step: int, kept: list[int]
) -> None:
    changes: dict[str, object] = {"eval__every": 3, "save__best": False}
    run, config = bench.run(), bench.config(**changes)
    with monkeypatch.context() as patch:
        in_batch(patch, batch, lambda: signal.raise_signal(signal.SIGTERM))
        outcome = bench.train(config, run)
    assert (outcome.step, outcome.reason, run.status["status"]) == (step, "SIGTERM", "stopped")
    assert list(state.checkpoints(run.directory)) == kept
    assert [row["step"] for row in rows(run) if "split" in row] == [0, 3, 6][: step // 3]
    assert bench.train(config, run).reason == ""
    assert run.status["status"] == "finished"
    assert_same(run, uninterrupted(bench, changes))


def test_a_best_loss_that_is_measured_only_after_a_stop_is_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run, config = bench.run(), bench.config(eval__every=2, save__every=1, save__keep=1)
    with monkeypatch.context() as patch:
        in_batch(patch, 7, lambda: signal.raise_signal(signal.SIGTERM))
        assert bench.train(config, run).step == 2
    measured = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(held_out, "evaluate", lambda *_, **__: evaluate.Evaluation(next(measured), None, 1, 1))
    bench.train(config, run)
    assert list(state.checkpoints(run.directory)) == [2, 6]
    best = state.checkpoint_directory(run, "best")
    assert best is not None
    assert best.name == "step-00000002"


def test_a_signal_while_sampling_ends_it_and_what_was_measured_holds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run, events = bench.run(), sample.events

    def stopping(*words: object, **more: object) -> Iterator[object]:
        for event in events(*words, **more):
            signal.raise_signal(signal.SIGTERM)
            yield event

    monkeypatch.setattr(sample, "events", stopping)
    outcome = bench.train(bench.config(eval__prompts=("the night", "the sea")), run)
    assert (outcome.step, outcome.reason) == (0, "SIGTERM")
    assert [row["step"] for row in rows(run)] == [0]
    assert "the sea" not in capfd.readouterr().err


# --- checkpoints --------------------------------------------------------------------------------------


def damage(run: Run, step: int, name: str) -> None:
    file = state.checkpoints(run.directory)[step] / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "trainer/optimizer.safetensors", "trainer/state.json"])
def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    run, config = bench.run(), bench.config(save__every=2, save__best=False)
    with monkeypatch.context() as patch:
        after(patch, 4, lambda: control.request(run.directory, "stop"))
        bench.train(config, run)
    damage(run, 4, name)
    capfd.readouterr()
    outcome = bench.train(config, run)
    said = capfd.readouterr().err
    assert f"step 4 is damaged and skipped: {name.removeprefix('trainer/')}" in said.replace("trainer/", "")
    assert "not bit-exact" in said, "only the newest checkpoint has the optimizer's state"
    assert outcome.step == 6
    assert [row["step"] for row in rows(run) if "lr" in row] == [1, 2, 3, 4, 5, 6]
    assert list(state.checkpoints(run.directory)) == [4, 6]


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Return what limits the bytes of a file, as a disk that is full does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("part", ["model.safetensors", "trainer/optimizer.safetensors"])
def test_a_full_disk_in_a_save_leaves_the_last_checkpoint_and_a_run_that_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, file_limit: Callable[[int], None], part: str
) -> None:
    changes: dict[str, object] = {"save__every": 2, "save__best": False, "eval": None}
    run, config = bench.run(), bench.config(**changes)

    def fill() -> None:
        file_limit((state.checkpoints(run.directory)[2] / part).stat().st_size - 1)

    with monkeypatch.context() as patch:
        after(patch, 4, fill)
        with pytest.raises(RunError, match="File too large") as caught:
            bench.train(config, run)
    assert "free some space" in caught.value.hint
    assert list(state.checkpoints(run.directory)) == [2]
    assert not list((run.directory / "checkpoints").glob(".*"))
    file_limit(resource.RLIM_INFINITY)
    bench.train(config, run)
    assert_same(run, uninterrupted(bench, changes))


@pytest.mark.parametrize(
    ("changes", "count", "states"),
    [
        ({"save__every": 1}, 4, 2),
        ({"save__every": 1, "save__best": False}, 3, 2),
        ({"save__every": 1, "save__optimizer": "all"}, 4, 4),
        ({"save__every": 1, "save__keep": 5}, 7, 2),
        ({}, 2, 2),  # the last, and one where it is stopped
        ({"eval__every": 3}, 4, 2),
    ],
)
def test_a_disk_too_small_for_the_checkpoints_is_refused_at_the_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], count: int, states: int
) -> None:
    run, config = bench.run(), bench.config(**changes)
    arch = read_architecture(bench.model_dir)
    needed = parameter_count(arch) * 4 * (count + 2 * states)  # two moments
    free = iter([needed - 1, needed])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free)))
    with pytest.raises(RunError, match=f"up to {count} checkpoints .* but the disk has") as caught:
        bench.train(config, run)
    assert "save.keep" in caught.value.hint
    assert not rows(run)
    bench.train(config, run)


def test_what_a_run_holds_already_counts_when_it_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run, config = bench.run(), bench.config(save__every=1)
    with monkeypatch.context() as patch:
        after(patch, 3, lambda: control.request(run.directory, "stop"))
        bench.train(config, run)
    one = parameter_count(read_architecture(bench.model_dir)) * 4
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4 * one))  # of 8, 4 and more are there
    assert bench.train(config, run).step == 6


def test_all_checkpoints_keep_the_optimizer_s_state_if_asked_and_a_damaged_newest_costs_no_exactness(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, object] = {"save__every": 2, "save__best": False, "save__optimizer": "all"}
    run, config = bench.run(), bench.config(**changes)
    with monkeypatch.context() as patch:
        after(patch, 4, lambda: control.request(run.directory, "stop"))
        bench.train(config, run)
    assert all(map(state.has_optimizer, state.checkpoints(run.directory).values()))
    damage(run, 4, "model.safetensors")
    bench.train(config, run)
    assert "not bit-exact" not in capfd.readouterr().err
    assert_same(run, uninterrupted(bench, changes))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be reset on Linux only")
def test_a_save_needs_no_more_memory_than_a_few_tensors(bench: Bench) -> None:
    model = bench.train(bench.config(save=None, eval=None, max_steps=1), bench.run()).model
    name, size = next(iter(dict(model.named_parameters()))), 4 << 20
    optimizer = {name: {str(i): torch.ones(size // 4) for i in range(24)}}  # 100 MB

    def resident(what: str) -> int:
        rows = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return int(rows[what].split()[0]) * 1024

    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    state.save(
        bench.run().directory,
        model=model,
        optimizer=optimizer,
        progress=state.Progress(step=1),
        like=bench.model_dir,
        tokenizer=bench.model_dir,
    )
    assert resident("VmHWM") - before < 10 * size  # of 24


def test_resuming_under_another_setting_says_that_it_is_not_exact(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = bench.run()
    with monkeypatch.context() as patch:
        after(patch, 3, lambda: control.request(run.directory, "stop"))
        bench.train(bench.config(), run)
    capfd.readouterr()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 96)
    bench.train(bench.config(memory__loss_chunk=0), run)
    said = capfd.readouterr().err
    assert "not bit-exact from here on: threads " in said
    assert " → 96, memory.loss_chunk 1024 → 0" in said


@pytest.mark.parametrize("begun", [torch.float32, torch.bfloat16])
def test_a_run_keeps_the_type_that_auto_meant_when_it_began(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, begun: torch.dtype
) -> None:
    run, config = bench.run(), bench.config(model__dtype="auto", optimizer__rounding="master")
    with monkeypatch.context() as patch:
        patch.setattr(device, "_computes_bfloat16", lambda _: begun == torch.bfloat16)
        after(patch, 3, lambda: control.request(run.directory, "stop"))
        bench.train(config, run)
    monkeypatch.setattr(device, "_computes_bfloat16", lambda _: begun != torch.bfloat16)
    bench.train(config, run)
    assert_same(run, uninterrupted(bench, {"model__dtype": str(begun)[6:], "optimizer__rounding": "master"}))


def test_resumed_without_save_a_run_whose_steps_were_saved_is_not_finished(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench.run()
    with monkeypatch.context() as patch:
        after(patch, 3, lambda: control.request(run.directory, "stop"))
        bench.train(bench.config(), run)
    bench.train(bench.config(save=None), run)
    assert (run.status["status"], list(state.checkpoints(run.directory))) == ("stopped", [3])


def test_what_was_asked_before_the_first_step_is_done_after_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run, measured = bench.run(), held_out.evaluate

    def asked(*words: object, **more: object) -> object:
        monkeypatch.setattr(held_out, "evaluate", measured)
        control.request(run.directory, "save")
        return measured(*words, **more)

    monkeypatch.setattr(held_out, "evaluate", asked)
    bench.train(bench.config(save__best=False), run)
    assert list(state.checkpoints(run.directory)) == [1, 6]


def test_optimizer_state_goes_by_name_not_by_order(bench: Bench) -> None:
    run = bench.run()
    bench.train(bench.config(), run)
    directory = state.checkpoint_directory(run)
    assert directory is not None
    found = state.read_optimizer(directory, torch.device("cpu"))
    assert found.keys() == load_file(directory / "model.safetensors").keys()
    assert all(found[name].keys() == {"exp_avg", "exp_avg_sq"} for name in found)
