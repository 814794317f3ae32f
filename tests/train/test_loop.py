"""The loop: what a step's loss is the mean over, what refuses to go on, what is written down."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from lovecraft import SGD, Cosine, DynamicScaling, RopeScaling, YarnScaling
from lovecraft.checkpoint import load_model
from lovecraft.data.blocks import CONTEXT, LENGTH
from lovecraft.errors import ConfigError, RunError, TrainingFailed
from lovecraft.models import read_architecture
from lovecraft.runs import Run
from lovecraft.tokenizer import load_tokenizer
from lovecraft.train import evaluate, held_out, loop, state
from lovecraft.train.control import LOCK
from lovecraft.train.schedule import multiplier
from lovecraft.train.updates import AfterBackward
from tests.train.bench import Bench, rows


def weights(run: Run) -> dict[str, Tensor]:
    directory = state.checkpoint_directory(run)
    assert directory is not None
    return load_file(directory / "model.safetensors")


def test_accumulation_changes_neither_loss_nor_gradient_nor_weights(bench: Bench) -> None:
    results = {}
    for size, accumulation in ((4, 1), (2, 2), (1, 4), (3, 2)):  # the last: a step of 6 blocks, for contrast
        run = bench.run(f"{size}{accumulation}")
        sgd = {"optimizer": SGD, "optimizer__lr": 0.01, "max_steps": 4}
        bench.train(bench.config(batch_size=size, accumulation=accumulation, **sgd), run)
        results[size, accumulation] = [r for r in rows(run) if "lr" in r], weights(run)
    whole, whole_weights = results[4, 1]
    for split in ((2, 2), (1, 4)):
        found, found_weights = results[split]
        for ours, theirs in zip(found, whole, strict=True):
            assert ours["tokens"] == theirs["tokens"]
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)
        for name, tensor in whole_weights.items():
            torch.testing.assert_close(found_weights[name], tensor, rtol=1e-5, atol=1e-6)
    assert results[3, 2][0][0]["loss"] != pytest.approx(whole[0]["loss"], rel=1e-3)


def test_a_pass_without_labels_takes_no_part_in_its_step(bench: Bench) -> None:
    config = bench.config(optimizer=SGD, max_steps=1, eval=None)
    built = bench.built(config)
    table = built.splits["train"].table.copy()
    table[::2, CONTEXT] = table[::2, LENGTH]
    half = attrs.evolve(built, splits={"train": attrs.evolve(built.splits["train"], table=table)})
    found = []
    for size, accumulation in ((12, 1), (1, 12)):
        run = bench.run(str(size))
        config = bench.config(optimizer=SGD, max_steps=1, eval=None, batch_size=size, accumulation=accumulation)
        loop.train(config, run, half, bench.tokenizer)
        found += rows(run)
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-6)
    assert found[0]["grad_norm"] == pytest.approx(found[1]["grad_norm"], rel=1e-5)


def test_memory_options_do_not_change_a_bit(bench: Bench) -> None:
    plain, checkpointed, offloaded = bench.run("1"), bench.run("2"), bench.run("3")
    bench.train(bench.config(memory__checkpointing="none"), plain)
    bench.train(bench.config(memory__checkpointing="block"), checkpointed)
    bench.train(bench.config(memory__offload="block_inputs"), offloaded)
    assert rows(plain) == rows(checkpointed) == rows(offloaded)
    assert all(torch.equal(tensor, weights(offloaded)[name]) for name, tensor in weights(plain).items())


def test_the_same_seed_repeats_every_bit_and_another_does_not(bench: Bench) -> None:
    runs = [bench.run(name) for name in ("1", "2", "3")]
    for run, seed in zip(runs, (1, 1, 2), strict=True):
        bench.train(bench.config(seed=seed, model__dtype="bfloat16"), run)
    assert rows(runs[0]) == rows(runs[1])
    assert rows(runs[0]) != rows(runs[2])


def test_rows_have_the_documented_shape(bench: Bench) -> None:
    from lovecraft.train.metrics import read

    run = bench.run()
    bench.train(bench.config(eval__every=3), run)
    training = ["step", "loss", "lr", "grad_norm", "tokens", "tokens_per_second", "memory", "seconds"]
    evaluation = ["step", "split", "loss", "tokens", "perplexity", "bits_per_byte"]
    found = [(row["step"], list(row)) for row in read(run.directory)]
    expected = [(0, evaluation), *((s, training) for s in (1, 2, 3)), (3, evaluation)]
    assert found == [*expected, *((s, training) for s in (4, 5, 6)), (6, evaluation)]


def test_log_every_leaves_rows_out_but_never_the_last(bench: Bench) -> None:
    run = bench.run()
    bench.train(bench.config(log__every=4, eval=None), run)
    assert [row["step"] for row in rows(run)] == [4, 6]


def test_learning_rates_follow_optimizer_steps_whatever_the_accumulation(bench: Bench) -> None:
    schedule = Cosine(warmup=2)
    run = bench.run()
    bench.train(bench.config(schedule=type(schedule), schedule__warmup=2, accumulation=2, eval=None), run)
    assert [row["lr"] for row in rows(run)] == [1e-3 * multiplier(schedule, step, 6) for step in range(6)]


def test_clipping_reports_the_norm_before_it(bench: Bench) -> None:
    free, clipped = bench.run("1"), bench.run("2")
    bench.train(bench.config(eval=None, max_steps=1), free)
    bench.train(bench.config(eval=None, max_steps=1, max_grad_norm=0.01), clipped)
    assert rows(free)[0]["grad_norm"] == rows(clipped)[0]["grad_norm"] > 1
    assert any(not torch.equal(tensor, weights(clipped)[name]) for name, tensor in weights(free).items())


def test_the_loss_falls_on_held_out_text_too(bench: Bench) -> None:
    run = bench.run()
    bench.train(bench.config(epochs=4.0, max_steps=None), run)
    before, *_, after = [row["loss"] for row in rows(run) if "split" in row]
    assert after < before - 1


@pytest.mark.parametrize("rounding", ["stochastic", "master"])
def test_a_checkpoint_is_what_the_forward_pass_uses_and_masters_lie_beside_it(bench: Bench, rounding: str) -> None:
    run = bench.run()
    outcome = bench.train(bench.config(model__dtype="bfloat16", optimizer__rounding=rounding), run)
    used = dict(outcome.model.named_parameters())
    saved = weights(run)
    assert all(torch.equal(used[name], tensor) and tensor.dtype == torch.bfloat16 for name, tensor in saved.items())
    directory = state.checkpoint_directory(run)
    assert directory is not None
    optimizer = state.read_optimizer(directory, torch.device("cpu"))
    masters = {name: slots["master"] for name, slots in optimizer.items() if "master" in slots}
    assert bool(masters) == (rounding == "master")
    assert all(torch.equal(master.bfloat16(), used[name]) for name, master in masters.items())


def test_masters_start_from_the_float32_weights_on_disk(bench: Bench) -> None:
    run = bench.run()
    config = bench.config(model__dtype="bfloat16", optimizer__rounding="master", optimizer__lr=1e-12, max_steps=1)
    bench.train(config, run)
    directory = state.checkpoint_directory(run)
    assert directory is not None
    on_disk = load_file(bench.model_dir / "model.safetensors")
    for name, slots in state.read_optimizer(directory, torch.device("cpu")).items():
        torch.testing.assert_close(slots["master"], on_disk[name], rtol=0, atol=1e-9)


# --- what refuses -------------------------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Make the norm of the gradients NaN at one step."""
    norm = AfterBackward.norm
    calls = iter(range(1, 100))
    monkeypatch.setattr(AfterBackward, "norm", lambda self: torch.nan if next(calls) == step else norm(self))


def test_nan_stops_before_the_update_and_names_step_and_documents(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench.run()
    poison(monkeypatch, step=3)
    with pytest.raises(TrainingFailed, match=r"step 3: .* nan .*\(blocks? \d+.* of documents? [ab]\.txt") as caught:
        bench.train(bench.config(save__every=2), run)
    assert caught.value.exit_code == 3
    assert "nothing of the step is kept" in caught.value.message
    assert "optimizer.lr" in caught.value.hint
    assert run.status["status"] == "failed"
    assert run.status["reason"] == "not finite"
    assert list(state.checkpoints(run.directory)) == [2]


def ruin(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the update of one step leave a NaN in the weights."""

    def finished(self: AfterBackward, scale: float) -> None:
        finish(self, scale)
        if self._step is not None and self._step.number == step:
            next(iter(self.parameters.values())).data.view(-1)[0] = torch.nan

    finish = AfterBackward.finish
    monkeypatch.setattr(AfterBackward, "finish", finished)


def test_a_held_out_loss_that_is_not_finite_is_a_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.run()
    monkeypatch.setattr(evaluate, "linear_cross_entropy", lambda *_: torch.tensor(torch.nan))
    with pytest.raises(TrainingFailed, match="after step 0: the model's logits are not finite") as caught:
        bench.train(bench.config(), run)
    assert "weights are damaged" in caught.value.hint
    assert (run.status["status"], run.status["reason"]) == ("failed", "not finite")


@pytest.mark.parametrize("changes", [{"save__every": 1}, {"max_steps": 3}, {"save__every": 1, "eval": None}])
def test_ruined_weights_are_not_saved(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    run = bench.run()
    ruin(monkeypatch, step=3)
    with pytest.raises(TrainingFailed, match=r"after step 3: .* not finite") as caught:
        bench.train(bench.config(**changes), run)
    assert "optimizer.lr" in caught.value.hint
    assert (run.status["status"], run.status["reason"]) == ("failed", "not finite")
    assert list(state.checkpoints(run.directory)) == ([1, 2] if "save__every" in changes else [])


def test_running_out_of_memory_names_the_knobs_and_may_be_resumed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    run = bench.run()
    with monkeypatch.context() as patch:
        patch.setattr(AfterBackward, "finish", no_memory)
        with pytest.raises(TrainingFailed, match="out of memory") as caught:
            bench.train(bench.config(), run)
    assert "batch_size" in caught.value.hint
    assert run.status["reason"] == "out of memory"
    assert bench.train(bench.config(), run).reason == ""


def test_other_errors_of_torch_are_not_hidden(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(AfterBackward, "finish", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        bench.train(bench.config(), bench.run())


def test_a_step_without_supervised_tokens_is_refused(bench: Bench) -> None:
    config = bench.config(eval=None)
    built = bench.built(config)
    table = built.splits["train"].table.copy()
    table[:, CONTEXT] = table[:, LENGTH]
    import attrs

    empty = attrs.evolve(built, splits={"train": attrs.evolve(built.splits["train"], table=table)})
    with pytest.raises(TrainingFailed, match="step 1 supervises no token"):
        loop.train(config, bench.run(), empty, bench.tokenizer)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__dtype": "float16"}, "float16"),
        ({"dataset__block_size": 65}, "block_size is 65, but the model's context is 64"),
        ({"memory__checkpointing": "none", "memory__offload": "block_inputs"}, "checkpointing"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    bench: Bench, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        bench.train(bench.config(**changes), bench.run())


def test_max_context_lets_a_model_learn_a_longer_one(bench: Bench) -> None:
    bench.train(bench.config(dataset__block_size=65, model__max_context=128, max_steps=1), bench.run())


def test_a_second_process_on_a_run_is_refused_with_the_pid_of_the_first(bench: Bench) -> None:
    run = bench.run()
    run.say(status="running", pid=4242)
    with FileLock(run.directory / LOCK), pytest.raises(RunError, match="by process 4242"):
        bench.train(bench.config(), run)


def test_a_missing_validation_split_is_said(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    run = bench.run()
    bench.train(bench.config(dataset__validation=()), run)
    assert "no validation split" in capfd.readouterr().err
    assert all("split" not in row for row in rows(run))


def test_prompts_are_continued_at_each_evaluation_without_touching_the_training(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    plain, sampled = bench.run("1"), bench.run("2")
    bench.train(bench.config(eval__every=2), plain)
    capfd.readouterr()
    bench.train(bench.config(eval__every=2, eval__prompts=("the night",)), sampled)
    assert capfd.readouterr().err.count("  the night") == 4
    assert rows(plain) == rows(sampled)


# --- what is kept -------------------------------------------------------------------------------------


def losses(values: list[float]) -> Callable[..., object]:
    """Return an `evaluate` that gives these losses in turn."""
    from lovecraft.train.evaluate import Evaluation

    turn = iter(values)
    return lambda *_, **__: Evaluation(loss=next(turn), bits_per_byte=None, tokens=1, documents=1)


def test_the_newest_and_the_best_are_kept_and_only_the_newest_has_optimizer_state(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench.run()
    monkeypatch.setattr(held_out, "evaluate", losses([1.0, 5.0, 3.0, 4.0, 4.5, 6.0, 7.0]))  # step 0 does not count
    bench.train(bench.config(eval__every=1, save__every=1, save__keep=2), run)
    assert list(state.checkpoints(run.directory)) == [2, 5, 6]
    assert [state.has_optimizer(d) for d in state.checkpoints(run.directory).values()] == [False, False, True]
    best = state.checkpoint_directory(run, "best")
    assert best is not None
    assert best.name == "step-00000002"
    assert state.checkpoint_directory(run, "5") is not None
    assert state.checkpoint_directory(run, "4") is None


def test_an_improvement_is_saved_between_the_regular_checkpoints(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.run()
    monkeypatch.setattr(held_out, "evaluate", losses([9.0, 5.0, 4.0, 4.1, 4.2, 4.3, 4.4]))
    bench.train(bench.config(eval__every=1, save__keep=1), run)
    assert list(state.checkpoints(run.directory)) == [2, 6]


def test_without_save_nothing_is_written_but_the_metrics(bench: Bench) -> None:
    run = bench.run()
    bench.train(bench.config(save=None), run)
    assert state.checkpoint_directory(run) is None
    assert run.status["status"] == "finished"
    assert len(rows(run)) == 8


def test_without_a_final_checkpoint_a_run_is_not_finished(bench: Bench) -> None:
    run = bench.run()
    bench.train(bench.config(save__final=False, save__best=False), run)
    assert run.status["status"] == "stopped"


def test_a_checkpoint_has_the_tokenizer_of_the_dataset(bench: Bench, tmp_path: Path) -> None:
    own = tmp_path / "tokenizer"
    own.mkdir()
    shutil.copy(bench.model_dir / "tokenizer_config.json", own)
    content = json.loads((bench.model_dir / "tokenizer.json").read_text(encoding="utf-8"))
    del content["model"]["merges"][5:]
    (own / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    bench, run = attrs.evolve(bench, tokenizer=load_tokenizer(own)), bench.run()
    bench.train(bench.config(dataset__tokenizer=own), run)
    directory = state.checkpoint_directory(run)
    assert directory is not None
    assert load_tokenizer(directory).fingerprint == bench.tokenizer.fingerprint


def test_a_saved_run_is_a_model_that_transformers_loads(bench: Bench) -> None:
    import transformers

    run = bench.run()
    outcome = bench.train(bench.config(), run)
    directory = state.checkpoint_directory(run)
    assert directory is not None
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    ids = torch.arange(2, 22)[None]
    with torch.no_grad():
        torch.testing.assert_close(outcome.model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
    assert len(transformers.AutoTokenizer.from_pretrained(directory)("the night").input_ids) > 1


@pytest.mark.parametrize("kind", [YarnScaling, DynamicScaling])
def test_a_scaling_is_trained_with_saved_and_resumed(bench: Bench, kind: type[RopeScaling]) -> None:
    scaled = {"model__rope_scaling": kind, "model__rope_scaling__factor": 2.0, "dataset__block_size": 100}
    with pytest.raises(ConfigError, match="context is 64"):
        bench.train(bench.config(dataset__block_size=100), bench.run("1"))
    whole, parts = bench.run("2"), bench.run("3")
    bench.train(bench.config(**scaled, max_steps=4), whole)
    bench.train(bench.config(**scaled, max_steps=4, max_minutes=1e-9), parts)
    bench.train(bench.config(**scaled, max_steps=4), parts)
    assert len(rows(parts)) == len(rows(whole))
    assert all(torch.equal(tensor, weights(parts)[name]) for name, tensor in weights(whole).items())
    directory = state.checkpoint_directory(whole)
    assert directory is not None
    assert read_architecture(directory).context == 128
    theirs = AutoModelForCausalLM.from_pretrained(directory)
    ours = load_model(directory, dtype=torch.float32, device=torch.device("cpu"))
    ids = torch.arange(100)[None]
    with torch.no_grad():
        assert (ours(ids) - theirs(ids).logits).abs().max() < 5e-5


# --- what ends a run early ------------------------------------------------------------------------------


def test_without_a_lower_loss_for_long_enough_the_run_is_finished(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench.run()
    monkeypatch.setattr(held_out, "evaluate", losses([1.0, 5.0, 4.0, 4.5, 4.0, 1.0]))  # step 0 does not count
    outcome = bench.train(bench.config(eval__every=1, eval__patience=2), run)
    assert (outcome.step, outcome.reason) == (4, "patience")
    assert (run.status["status"], run.status["reason"]) == ("finished", "patience")
    assert list(state.checkpoints(run.directory))[-1] == 4


def test_a_lower_loss_begins_the_waiting_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bench.run()
    monkeypatch.setattr(held_out, "evaluate", losses([1.0, 5.0, 6.0, 4.0, 5.0, 3.0, 4.0]))
    assert bench.train(bench.config(eval__every=1, eval__patience=2), run).reason == ""
    assert run.status["status"] == "finished"


def test_a_spike_ends_the_run_before_the_update(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls = bench.run(), iter(range(1, 100))
    cross_entropy = loop.linear_cross_entropy
    monkeypatch.setattr(loop, "linear_cross_entropy", lambda *w: cross_entropy(*w) * (3 if next(calls) == 4 else 1))
    with pytest.raises(TrainingFailed, match=r"step 4: .* times its running mean .*nothing of the step is kept"):
        bench.train(bench.config(save__every=2, stop_on_spike=2.0, eval=None), run)
    assert (run.status["status"], run.status["reason"]) == ("failed", "loss spike")
    assert 2 < run.status["ratio"] < 4
    assert list(state.checkpoints(run.directory)) == [2]


def test_the_running_mean_goes_on_where_a_run_does(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from lovecraft.train.metrics import read
    from lovecraft.train.state import read_progress

    run = bench.run()
    bench.train(bench.config(save__every=3, save__keep=9), run)
    steps = [row["loss"] for row in read(run.directory) if "lr" in row]
    for step, directory in state.checkpoints(run.directory).items():
        shares = [0.9 ** (step - i) for i in range(1, step + 1)]
        mean = sum(w * x for w, x in zip(shares, steps, strict=False)) / sum(shares)
        assert read_progress(directory).mean_loss == pytest.approx(mean)
