import numpy as np
import pytest
import torch

from lovecraft import Adafactor
from lovecraft.models import Architecture, read_architecture
from lovecraft.models.architecture import RopeParameters, parameter_count
from lovecraft.train.memory import GIB, Limits, choose
from lovecraft.train.plan import measured_rate, piece_flops, plan
from tests.train.bench import Bench, packed

CPU = torch.device("cpu")


def mistral_7b(window: int | None) -> Architecture:
    return Architecture(
        model_type="mistral",
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=32768,
        rms_norm_eps=1e-5,
        rope_parameters=RopeParameters(rope_type="default", rope_theta=10000.0),
        sliding_window=window,
    )


@pytest.mark.parametrize(
    ("block", "window", "gigaflops"),
    [
        (2048, None, 44.3),
        (4096, None, 45.9),
        (8192, None, 49.1),
        (8192, 4096, 47.5),
        (16384, None, 55.6),
        (16384, 4096, 48.3),
    ],
)
def test_model_flops_of_mistral_7b(block: int, window: int | None, gigaflops: float) -> None:
    assert parameter_count(mistral_7b(window)) == 7_241_732_096
    assert piece_flops(mistral_7b(window), np.array([block])) / block / 1e9 == pytest.approx(gigaflops, abs=0.06)


def test_the_plan_counts_steps_and_tokens_and_takes_time_for_recomputing(bench: Bench) -> None:
    plans = {}
    for checkpointing in ("none", "block"):
        config = bench.config(memory__checkpointing=checkpointing)
        blocks = bench.built(config).splits["train"]
        arch = read_architecture(bench.model_dir)
        plans[checkpointing] = plan(config, arch, blocks, dtype=torch.float32, device=CPU, rate=1e9)
    assert plans["none"].steps == 6
    assert plans["block"].flops == plans["none"].flops
    assert plans["block"].seconds == pytest.approx(4 / 3 * plans["none"].seconds)
    assert plans["block"].bytes.peak <= plans["none"].bytes.peak


@pytest.mark.parametrize("size", [1, 4])
def test_the_plan_counts_attention_by_piece(bench: Bench, size: int) -> None:
    config, arch = bench.config(epochs=2.0, max_steps=None), read_architecture(bench.model_dir)
    pieces = bench.built(config).splits["train"]
    found = plan(config, arch, packed(pieces, size), dtype=torch.float32, device=CPU, rate=1e9)
    assert found.tokens == 2 * sum(len(piece.input_ids) for piece in pieces)
    alone = [piece_flops(arch, np.array([len(piece.input_ids)])).item() for piece in pieces]
    assert found.flops == pytest.approx(2 * sum(alone))
    assert piece_flops(arch, np.array([48])).item() > 2 * piece_flops(arch, np.array([24])).item()


def test_the_rate_of_this_machine_is_measured() -> None:
    assert measured_rate(CPU, torch.float32, seconds=0.01) > 1e8


@pytest.mark.parametrize(("block", "batch"), [(4096, 4), (8192, 2), (16384, 1)])
@pytest.mark.parametrize(("gib", "offload"), [(23.0, "none"), (22.0, "block_inputs")])
def test_mistral_7b_fits_one_gpu_of_24_gb(bench: Bench, block: int, batch: int, gib: float, offload: str) -> None:
    config = bench.config(optimizer=Adafactor, dataset__block_size=block, batch_size=batch)
    limits = Limits(int(gib * GIB))
    found = choose(config, mistral_7b(4096), torch.bfloat16, torch.device("cuda"), limits)
    assert found.fits
    assert (found.checkpointing, found.offload, found.update) == ("block", offload, "in_backward")
    assert found.peak / GIB == pytest.approx(22.5 if offload == "none" else 19.0, abs=0.2)
    assert found.weights / GIB == pytest.approx(13.49, abs=0.01)
