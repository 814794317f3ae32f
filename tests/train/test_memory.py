"""The byte formulas against the bytes of real tensors on a CPU."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lovecraft import SGD, Adafactor, AdamW, OptimizerConfig
from lovecraft.checkpoint import load_model
from lovecraft.config.resolve import resolve
from lovecraft.errors import ConfigError
from lovecraft.models import read_architecture
from lovecraft.models.architecture import parameter_count
from lovecraft.models.llama import Block
from lovecraft.train import memory, setup
from lovecraft.train.loss import linear_cross_entropy
from lovecraft.train.optim.step import new_state
from tests.tiny import tiny_model_dir
from tests.train.bench import Bench

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ROOM = memory.Limits(1 << 50)
AFTER = [choice for choice in memory.CHOICES if choice[2] == "after"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_gradients_and_optimizer_are_counted_exactly(
    bench: Bench, tmp_path: Path, dtype: torch.dtype, tied: bool
) -> None:
    path = tiny_model_dir(tmp_path / "m", tie_word_embeddings=tied)
    model = load_model(path, dtype=dtype, device=CPU)
    model.hidden(torch.zeros(1, 3, dtype=torch.int64)).sum().backward()
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    table = memory.table(bench.config(), model.architecture, dtype, CPU, memory.CHOICES[0], ROOM)
    assert table.weights == sum(p.nbytes for p in parameters.values())
    assert table.gradients == table.weights
    for optimizer in (AdamW(), Adafactor(), SGD(), SGD(momentum=0.9)):
        state = new_state(optimizer, parameters)
        counted = sum(tensor.nbytes for slots in state.values() for tensor in slots.values())
        assert memory.state_bytes(optimizer, model.architecture, dtype) == counted


@pytest.mark.parametrize(("dtype", "bytes_each"), [(torch.bfloat16, 12), (torch.float32, 8)])
def test_masters_count_where_the_weights_are_narrower(bench: Bench, dtype: torch.dtype, bytes_each: int) -> None:
    arch = read_architecture(bench.model_dir)
    optimizer: OptimizerConfig = AdamW(rounding="master")
    numbers = parameter_count(arch)
    assert memory.state_bytes(optimizer, arch, dtype) == bytes_each * numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "lengths"), [(None, None), (8, None), (None, [25, 1, 14]), (8, [25, 1, 14])])
def test_what_a_block_keeps_is_counted_exactly(
    tmp_path: Path, dtype: torch.dtype, window: int | None, lengths: list[int] | None
) -> None:
    path = tiny_model_dir(tmp_path / "m", "mistral", num_hidden_layers=5, sliding_window=window)
    model = load_model(path, dtype=dtype, device=CPU)
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, list[int]] = {}

    def run(index: int, block: Block, hidden: Tensor) -> Tensor:
        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                kept.setdefault(index, []).append(storage.nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return block(hidden)

    ids = torch.zeros((2, 20) if lengths is None else (1, 40), dtype=torch.int64)
    hidden = model.hidden(ids, run_block=run, lengths=lengths)
    joined = (window, lengths) != (None, None)
    expected = memory.block_bytes(model.architecture, 40, dtype.itemsize, joined=joined)
    assert [sum(kept[index]) for index in range(1, 5)] == [expected] * 4  # block 0 also meets the shared RoPE tables
    del hidden


def test_auto_gives_up_as_little_as_the_limit_asks(bench: Bench) -> None:
    config = bench.config(batch_size=64, memory__limit=1.0)
    arch = read_architecture(bench.model_dir)
    tables = [memory.table(config, arch, torch.float32, GPU, choice, ROOM) for choice in AFTER]
    for wanted in tables:
        limits = memory.Limits(wanted.peak + 1)
        chosen = memory.choose(config, arch, torch.float32, GPU, limits)
        assert chosen.fits
        assert (chosen.checkpointing, chosen.offload) == (wanted.checkpointing, wanted.offload)
    assert [t.peak for t in tables] == sorted((t.peak for t in tables), reverse=True)


def test_auto_on_a_cpu_with_room_gives_up_nothing_and_never_offloads(bench: Bench) -> None:
    arch = read_architecture(bench.model_dir)
    chosen = memory.choose(bench.config(), arch, torch.float32, CPU)
    assert (chosen.checkpointing, chosen.offload, chosen.update) == ("none", "none", "after")
    open_choices = memory.choices(bench.config(), CPU)
    assert open_choices == list(memory.CHOICES[:4])
    offloaded = memory.choices(bench.config(memory__offload="block_inputs"), CPU)
    assert offloaded == [("block", "block_inputs", "after"), ("block", "block_inputs", "in_backward")]


def test_offload_without_checkpointing_is_refused_with_the_reason(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="checkpointing"):
        memory.choices(bench.config(memory__checkpointing="none", memory__offload="block_inputs"), CPU)


@pytest.mark.parametrize(
    ("other", "value"), [("accumulation", 2), ("max_grad_norm", 1.0), ("memory__optimizer_device", "host")]
)
def test_what_excludes_an_optimizer_in_backward_is_refused_and_auto_goes_without(
    bench: Bench, other: str, value: object
) -> None:
    with pytest.raises(ConfigError, match="optimizer_in_backward = on with " + other.replace("__", ".")):
        memory.choices(bench.config(memory__optimizer_in_backward="on", **{other: value}), CPU)
    assert all(update != "in_backward" for _, _, update in memory.choices(bench.config(**{other: value}), GPU))


def test_the_host_is_asked_last_and_only_where_there_is_a_gpu(bench: Bench) -> None:
    arch = read_architecture(bench.model_dir)
    config = bench.config(max_grad_norm=1.0)
    after = [memory.table(config, arch, torch.float32, GPU, choice, ROOM) for choice in AFTER]
    short = memory.Limits(min(t.peak for t in after) - 1, host=1 << 40)
    chosen = memory.choose(config, arch, torch.float32, GPU, short)
    assert (chosen.update, chosen.fits) == ("host", True)
    assert chosen.host > chosen.optimizer == memory.state_bytes(resolve(config.optimizer), arch, torch.float32)
    assert not memory.choose(config, arch, torch.float32, GPU, memory.Limits(short.device, host=1000)).fits
    for shared in (CPU, torch.device("mps")):  # where the host's memory is the device's
        assert all(
            choice[1:] in (("none", "after"), ("none", "in_backward")) for choice in memory.choices(config, shared)
        )


def peak_bytes(work: Callable[[], None]) -> int:
    """Return the most bytes of tensors that were alive at once of those that `work` made in this thread."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(sizes))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("choice", memory.CHOICES[:5])
def test_the_peak_is_what_the_tensors_of_a_step_take(
    bench: Bench, tmp_path: Path, choice: memory.Choice, accumulation: int, dtype: str
) -> None:
    if accumulation > 1 and choice[2] == "in_backward":
        return
    wide = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 6, "tie_word_embeddings": False}
    path = tiny_model_dir(tmp_path / "m", "mistral", sliding_window=32, **wide)
    options = {"dataset__block_size": 128, "batch_size": 4, "accumulation": accumulation, "memory__loss_chunk": 128}
    config = bench.config(model__path=path, model__dtype=dtype, **options)
    model = load_model(path, dtype=getattr(torch, dtype), device=CPU)
    table = memory.table(config, model.architecture, getattr(torch, dtype), CPU, choice, ROOM)
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    state = new_state(resolve(config.optimizer), parameters)
    updates = setup.updates(config, table, parameters, state)
    run_block = setup.run_block(table, model.architecture, 4 * 128)
    ids = torch.randint(300, (4, 128), generator=torch.Generator().manual_seed(0))
    model.rope.at(0, 128, torch.empty(0, dtype=getattr(torch, dtype)))

    def steps() -> None:
        for number in (1, 2):
            updates.begin(number, 1e-3)
            for _ in range(accumulation):
                hidden = model.hidden(ids, run_block=run_block).flatten(0, 1)
                linear_cross_entropy(hidden, model.head, ids.flatten(), 128).backward()
                del hidden
            updates.norm()
            updates.finish(1.0)

    counted = table.weights + table.optimizer + peak_bytes(steps)
    assert table.peak == pytest.approx(counted, rel=0.1)


def test_what_may_not_fit_is_said_and_what_cannot_is_refused_before_the_first_step(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    arch = read_architecture(bench.model_dir)
    smallest = min(
        memory.table(bench.config(), arch, torch.float32, CPU, choice, ROOM).peak for choice in memory.CHOICES[:4]
    )
    bench.train(bench.config(memory__limit=0.95 * smallest / memory.GIB, max_steps=1), bench.run())
    said = capfd.readouterr().err
    assert "checkpointing block" in said
    assert "may not fit" in said
    with pytest.raises(ConfigError, match=r"does not fit: it needs about .* with checkpointing block"):
        bench.train(bench.config(memory__limit=0.5 * smallest / memory.GIB), bench.run("2"))
