"""The byte formulas against the bytes of real tensors on a CPU."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lovecraft import SGD, Adafactor, AdamW, Memory, OptimizerConfig
from lovecraft.checkpoint import load_model
from lovecraft.config.resolve import resolve
from lovecraft.errors import ConfigError
from lovecraft.models import read_architecture
from lovecraft.models.llama import Block
from lovecraft.train import memory
from lovecraft.train.optim.step import new_state
from tests.tiny import tiny_model_dir
from tests.train.bench import Bench

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_gradients_and_optimizer_are_counted_exactly(
    bench: Bench, tmp_path: Path, dtype: torch.dtype, tied: bool
) -> None:
    path = tiny_model_dir(tmp_path / "m", tie_word_embeddings=tied)
    model = load_model(path, dtype=dtype, device=CPU)
    model.hidden(torch.zeros(1, 3, dtype=torch.int64)).sum().backward()
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    table = memory.table(bench.config(), model.architecture, dtype, CPU, "none", "none")
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
    numbers = memory.parameter_count(arch)
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
    tables = [memory.table(config, arch, torch.float32, GPU, *choice) for choice in memory.CHOICES]
    for wanted in tables:
        limited = bench.config(batch_size=64, memory__limit=(wanted.peak + 1) / memory.GIB)
        chosen = memory.choose(limited, arch, torch.float32, GPU)
        assert (chosen.checkpointing, chosen.offload) == (wanted.checkpointing, wanted.offload)
        assert chosen.fits
    assert [t.peak for t in tables] == sorted((t.peak for t in tables), reverse=True)


def test_auto_on_a_cpu_with_room_gives_up_nothing_and_never_offloads(bench: Bench) -> None:
    arch = read_architecture(bench.model_dir)
    chosen = memory.choose(bench.config(), arch, torch.float32, CPU)
    assert (chosen.checkpointing, chosen.offload) == ("none", "none")
    assert memory.choices(resolve(Memory), CPU) == [("none", "none"), ("block", "none")]
    assert memory.choices(Memory(offload="block_inputs"), CPU) == [("block", "block_inputs")]


def test_offload_without_checkpointing_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="checkpointing"):
        memory.choices(Memory(checkpointing="none", offload="block_inputs"), CPU)


def test_what_may_not_fit_is_said_before_the_first_step(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.train(bench.config(memory__limit=1e-4, max_steps=1), bench.run())
    said = capfd.readouterr().err
    assert "checkpointing block" in said
    assert "may not fit" in said
