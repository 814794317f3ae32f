"""New models: their weights and files, and every command that starts from one."""

import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lovecraft import Init, override, resolve
from lovecraft.checkpoint import load_model
from lovecraft.errors import ConfigError
from lovecraft.models import read_architecture
from lovecraft.runs import Run
from lovecraft.tokenizer import Tokenizer, load_tokenizer
from lovecraft.train import loop
from lovecraft.train.metrics import read
from lovecraft.train.scratch import build_model, model_path
from tests.tiny import write_tokenizer

Lc = Callable[..., Any]
ROOT = Path(__file__).parents[2]
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIG = '''
"""Train a small model from nothing."""
import workspace
from lovecraft import BPE, Init
from projects.texts import default as texts


class Tokenizer(BPE):
    vocab_size = 300


class Dataset(texts.Dataset):
    bpe = Tokenizer


class New(Init):
    hidden_size = 64
    intermediate_size = 96
    num_hidden_layers = 2
    num_attention_heads = 4
    num_key_value_heads = 2
    max_position_embeddings = 128


class Model(workspace.Model):
    path = None
    init = New


class Train(workspace.Train):
    dataset = Dataset
    model = Model
    batch_size = 2
    epochs = 50
    max_steps = 4
    device = "cpu"
'''


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    write_tokenizer(tmp_path / "tokenizer")
    return load_tokenizer(tmp_path / "tokenizer")


@pytest.fixture
def fresh(workspace: Path, write: Callable[[str, str], Path]) -> Path:
    write("projects/fresh/default.py", CONFIG)
    return workspace


def small(**options: Any) -> Init:
    return resolve(override(Init, {**SMALL, **options}))


def load(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path, dtype=torch.float32, device=torch.device("cpu")).state_dict()


# --- weights --------------------------------------------------------------------------------------


def test_weights_have_the_spread_that_their_place_asks_for(tokenizer: Tokenizer, tmp_path: Path) -> None:
    init = small(hidden_size=256, intermediate_size=512, num_hidden_layers=8)
    weights = load(build_model(init, tokenizer, 1, tmp_path / "cache"))
    assert not [name for name in weights if "bias" in name]
    for name, weight in weights.items():
        if name.endswith("norm.weight"):
            assert (weight == 1).all(), name
        else:
            wanted = 0.02 / 4 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02  # 4: root of 2 x 8
            assert weight.std() == pytest.approx(wanted, rel=0.05), name
            assert abs(weight.mean()) < wanted / 20, name


def test_the_stream_does_not_grow_with_the_depth_and_the_loss_is_that_of_guessing(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    ids = torch.arange(64)[None]
    for layers in (2, 24):
        init = small(hidden_size=128, num_hidden_layers=layers)
        path = build_model(init, tokenizer, 1, tmp_path / "cache")
        model = load_model(path, dtype=torch.float32, device=torch.device("cpu"))
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(model(ids)[0, :-1].float(), ids[0, 1:])
        assert float(loss) == pytest.approx(math.log(320), abs=0.3)


def test_the_seed_and_nothing_else_changes_the_weights(tokenizer: Tokenizer, tmp_path: Path) -> None:
    one, again = (load(build_model(small(), tokenizer, 1, tmp_path / cache)) for cache in ("a", "b"))
    torch.manual_seed(5)
    other = load(build_model(small(), tokenizer, 2, tmp_path / "a"))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_a_head_of_its_own_is_made_on_request(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert "lm_head.weight" not in load(build_model(small(), tokenizer, 1, tmp_path))
    untied = load(build_model(small(tie_word_embeddings=False), tokenizer, 1, tmp_path))
    assert untied["lm_head.weight"].std() == pytest.approx(0.02, rel=0.05)


# --- the directory --------------------------------------------------------------------------------


def test_transformers_loads_it_with_its_tokenizer_and_gives_the_same_logits(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = build_model(small(num_key_value_heads=2, rope_theta=500.0), tokenizer, 1, tmp_path / "cache")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    ours = load_model(path, dtype=torch.float32, device=torch.device("cpu"))
    ids = torch.tensor([tokenizer.encode("The lamp on the pier had burned for eleven winters.")])
    assert not any(report.values())
    with torch.no_grad():
        assert (theirs(ids).logits - ours(ids)).abs().max() <= 1e-5
    assert (theirs.config.vocab_size, theirs.config.rope_parameters["rope_theta"]) == (320, 500.0)
    assert (theirs.generation_config.bos_token_id, theirs.generation_config.eos_token_id) == (0, 1)
    assert transformers.AutoTokenizer.from_pretrained(path)("The lamp")["input_ids"] == [
        0,
        *tokenizer.encode("The lamp"),
    ]


def test_it_is_made_once_and_without_weights_apart(tokenizer: Tokenizer, tmp_path: Path) -> None:
    bare = build_model(small(), tokenizer, 1, tmp_path, weights=False)
    path = build_model(small(), tokenizer, 1, tmp_path)
    before = (path / "model.safetensors").stat().st_mtime_ns
    assert build_model(small(), tokenizer, 1, tmp_path) == path == model_path(small(), tokenizer, 1, tmp_path)
    assert (path / "model.safetensors").stat().st_mtime_ns == before
    assert [file.name for file in bare.iterdir()] == ["config.json"]
    assert read_architecture(bare) == read_architecture(path)


@pytest.mark.parametrize(
    "options", [{"num_attention_heads": 5}, {"num_key_value_heads": 3}, {"num_attention_heads": 64}]
)
def test_heads_that_do_not_divide_are_refused(options: dict[str, int], tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.init: .* key-value heads") as caught:
        build_model(small(**options), tokenizer, 1, tmp_path / "cache")
    assert "multiple" in caught.value.hint
    assert not (tmp_path / "cache").exists()


# --- the commands ---------------------------------------------------------------------------------


def test_it_is_trained_resumed_measured_and_served(lc: Lc, fresh: Path) -> None:
    done = lc("train", "fresh", "--max-steps", "30", "--save.every", "10")
    assert done.code == 0, done.err
    run = Run(Path(done.out.strip()))
    assert "a new model of 82,240 parameters, 320 rows for the tokenizer's" in done.err
    first, *_, last = (row for row in read(run.directory) if "split" in row)
    assert last["loss"] < first["loss"] < 6.5
    base = json.loads(lc("eval", "fresh", "--json").out)
    assert base["loss"] == pytest.approx(first["loss"], rel=1e-6)
    assert "is finished" in lc("train", "fresh", "--max-steps", "30", "--save.every", "10").err
    assert lc("generate", "fresh", "The tale", "--max-tokens", "4").code == 0
    assert json.loads(lc("show", run.directory / "checkpoints" / "step-00000030", "--json").out)["vocabulary"] == 320


def test_the_run_remembers_what_its_model_was_made_of(lc: Lc, fresh: Path) -> None:
    def model_of(*words: str) -> str:
        return Run(Path(lc("train", "fresh", *words).out.strip())).record["inputs"]["model"]

    first = model_of()
    assert (fresh / ".lc" / "cache" / "models" / first / "model.safetensors").is_file()
    assert model_of("--new") == first
    assert model_of("--seed", "7") != first
    assert model_of("--model.init.num-hidden-layers", "3") != first


def test_a_stopped_run_goes_on_where_it_was(lc: Lc, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path(lc("train", "fresh").out.strip())
    take_step = loop.take_step

    def stopped(t: loop.Training) -> dict[str, Any]:
        if t.progress.step == 1:
            signal.raise_signal(signal.SIGTERM)
        return take_step(t)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", stopped)
        part = Path(lc("train", "fresh", "--new").out.strip())
    done = lc("train", part)
    assert "resuming fresh/default/002 at step 2" in done.err
    assert "bit-exact" not in done.err
    ends = [load(run / "checkpoints" / "step-00000004") for run in (whole, part)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_plan_makes_no_weights(lc: Lc, fresh: Path) -> None:
    found = json.loads(lc("plan", "fresh", "--json", "--tflops", "1").out)
    assert found["parameters"] == 82_240
    assert not list((fresh / ".lc").rglob("*.safetensors"))


def test_a_build_prints_where_it_is_and_a_dry_run_makes_nothing(lc: Lc, fresh: Path) -> None:
    def states() -> list[tuple[str, str]]:
        return [(p["part"], p["state"]) for p in json.loads(lc("build", "fresh", "--dry-run", "--json").out)]

    assert states() == [(part, "never built") for part in ("tokenizer", "dataset", "model")]
    assert lc("build", "fresh", "dataset").code == 0
    assert states() == [("tokenizer", "fresh"), ("dataset", "fresh"), ("model", "never built")]
    path = Path(lc("build", "fresh", "model").out.strip())
    assert load(path)
    assert states()[-1] == ("model", "fresh")


def test_without_a_tokenizer_it_is_said_how_to_get_one(lc: Lc, fresh: Path) -> None:
    done = lc("train", "fresh", "--dataset.bpe", "none")
    assert done.code == 2
    assert "dataset.bpe = BPE trains one" in done.err


def test_rope_is_scaled_like_that_of_any_model(lc: Lc, fresh: Path) -> None:
    done = lc("train", "fresh", "--model.rope-scaling", "LinearScaling", "--model.rope-scaling.factor", "2")
    assert done.code == 0, done.err
    arch = read_architecture(Path(done.out.strip()) / "checkpoints" / "step-00000004")
    assert (arch.rope_parameters.rope_type, arch.context) == ("linear", 256)


def test_the_shipped_project_trains_a_tokenizer_and_a_model(
    lc: Lc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "projects", copy / "projects", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "workspace.py", copy)
    monkeypatch.chdir(copy)
    assert "from_scratch/default" in lc("ls").out
    sizes = ("hidden-size 48", "intermediate-size 64", "num-hidden-layers 1")
    small = [word for size in sizes for word in f"--model.init.{size}".split()]
    done = lc("train", "from_scratch", "--max-steps", "2", "--device", "cpu", "--dataset.bpe.vocab-size", "400", *small)
    assert done.code == 0, done.err
    assert "448 rows for the tokenizer's 400 tokens" in done.err
    checkpoint = Path(done.out.strip()) / "checkpoints" / "step-00000002"
    assert transformers.AutoModelForCausalLM.from_pretrained(checkpoint).config.vocab_size == 448
