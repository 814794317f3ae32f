"""Model directories and pickled weights: every byte comes through, what does not fit is refused, nothing runs."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lovecraft.checkpoint import load_model
from lovecraft.config.schema import DynamicScaling, RopeScaling, YarnScaling
from lovecraft.convert import convert
from lovecraft.errors import ConversionFailed, ModelError
from lovecraft.models import read_architecture
from tests.tiny import LLAMA3_ROPE, random_weights, tiny_config, tiny_model_dir


def weights(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        found |= load_file(file)
    return found


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def pickled(path: Path, parts: int = 1) -> Path:
    """Replace a directory's weights by pickled ones in so many files."""
    rows = list(weights(path).items())
    (path / "model.safetensors").unlink()
    names = [f"pytorch_model-{i + 1:05d}-of-{parts:05d}.bin" for i in range(parts)] if parts > 1 else []
    for i, name in enumerate(names or ["pytorch_model.bin"]):
        torch.save(dict(rows[i::parts]), path / name)
    if names:
        places = {name: names[i % parts] for i, (name, _) in enumerate(rows)}
        (path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    return path


# --- what comes through -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_directory_comes_through_to_the_byte_and_back(tmp_path: Path, dtype: str) -> None:
    source = tiny_model_dir(tmp_path / "a", torch_dtype=dtype, unknown_key=[1])
    kept = {"chat_template.jinja": "{{ messages }}", "LICENSE": "mine", "NOTICE.txt": "n", "README.md": "license: x"}
    for name, text in kept.items():
        (source / name).write_text(text)
    (source / "training_args.bin").write_bytes(b"what only a trainer needs")
    done = convert(source, tmp_path / "b", shard_bytes=100_000)
    assert (done.difference, done.dtype, done.reason) == (None, dtype, "")
    assert list(done.files) == sorted(file.name for file in (tmp_path / "b").glob("*.safetensors"))
    assert len(done.files) > 1
    convert(tmp_path / "b", tmp_path / "c")
    assert same(weights(source), weights(tmp_path / "b"))
    assert same(weights(source), weights(tmp_path / "c"))
    others = {p.name for p in source.iterdir()} - {"model.safetensors", "training_args.bin"}
    assert {p.name for p in (tmp_path / "c").iterdir()} == others | {"model.safetensors"}
    for name in others:
        assert (tmp_path / "c" / name).read_bytes() == (source / name).read_bytes(), name


def test_each_tensor_keeps_its_own_type(tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a", torch_dtype="bfloat16")
    mixed = {n: t.float() if "norm" in n else t for n, t in weights(source).items()}
    save_file(mixed, source / "model.safetensors")
    convert(source, tmp_path / "b", shard_bytes=100_000)
    assert same(mixed, weights(tmp_path / "b"))


def test_constants_of_old_checkpoints_and_a_second_copy_of_a_tied_head_are_left_out(tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a", tie_word_embeddings=True)
    network = weights(source)
    head = {"lm_head.weight": network["model.embed_tokens.weight"].clone()}
    constant = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file(network | head | constant, source / "model.safetensors")
    convert(source, tmp_path / "b")
    assert same(network, weights(tmp_path / "b"))


@pytest.mark.parametrize("parts", [1, 3])
def test_pickled_weights_become_the_same_safetensors(tmp_path: Path, parts: int) -> None:
    source = tiny_model_dir(tmp_path / "a", tie_word_embeddings=True)
    expected = weights(source)
    convert(pickled(source, parts), tmp_path / "b")
    assert same(expected, weights(tmp_path / "b"))
    load_model(tmp_path / "b", dtype=torch.float32, device=torch.device("cpu"))


def test_weights_pickled_the_old_way_are_read_too(tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a")
    expected = weights(source)
    torch.save(expected, pickled(source) / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    convert(source, tmp_path / "b")
    assert same(expected, weights(tmp_path / "b"))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_another_type_is_torchs_rounding_and_the_logits_say_by_how_much(tmp_path: Path, family: str) -> None:
    source = tiny_model_dir(tmp_path / "a", family)
    done = convert(source, tmp_path / "b", dtype="bfloat16")
    assert same({n: t.bfloat16() for n, t in weights(source).items()}, weights(tmp_path / "b"))
    assert json.loads((tmp_path / "b" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert done.difference is not None
    assert 0 < done.difference < 0.03


def test_a_prompt_is_longer_than_the_window(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    source = tiny_model_dir(tmp_path / "a", "mistral", sliding_window=48)
    convert(source, tmp_path / "b", dtype="float16", tell=lambda *step: told.append(step))
    assert [step for step in told if step[0] == "computing logits"] == [
        ("computing logits", i, 2) for _ in range(4) for i in (1, 2)
    ]  # source and result, short prompts and a long one
    assert read_architecture(tmp_path / "b").sliding_window == 48


# --- context ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scaling", "said"), [(YarnScaling, 2048), (DynamicScaling, 512)])
def test_a_scaling_is_written_and_the_tensors_stay(tmp_path: Path, scaling: type[RopeScaling], said: int) -> None:
    source = tiny_model_dir(tmp_path / "a")
    done = convert(source, tmp_path / "b", scaling=scaling(factor=4.0))
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["max_position_embeddings"] == said
    assert config["rope_scaling"]["factor"] == 4.0
    assert read_architecture(tmp_path / "b").context == 2048
    assert same(weights(source), weights(tmp_path / "b"))
    assert done.difference == 0


def test_a_longer_context_leaves_scaled_frequencies_alone(tmp_path: Path) -> None:
    rope = {key: value for key, value in LLAMA3_ROPE.items() if key != "original_max_position_embeddings"}
    source = tiny_model_dir(tmp_path / "a", rope_scaling=rope)
    convert(source, tmp_path / "b", max_context=1024)
    before, after = read_architecture(source), read_architecture(tmp_path / "b")
    assert (after.context, after.rope_parameters) == (1024, before.rope_parameters)


def test_a_context_that_the_scaling_denies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="reaches 2048 tokens, --max-context asks for 600"):
        convert(tiny_model_dir(tmp_path / "a"), tmp_path / "b", max_context=600, scaling=YarnScaling(factor=4.0))


# --- what is refused --------------------------------------------------------------------------------


class Code:
    """What a malicious pickle holds."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("ran",)


def truncate(name: str) -> Callable[[Path], None]:
    return lambda path: os.truncate(path / name, (path / name).stat().st_size // 2)


def forget(path: Path) -> None:
    (path / "pytorch_model-00002-of-00002.bin").unlink()


def rename(path: Path) -> None:
    (path / "pytorch_model-00002-of-00002.bin").rename(path / "elsewhere.bin")
    text = (path / "pytorch_model.bin.index.json").read_text()
    (path / "pytorch_model.bin.index.json").write_text(text.replace("00002-of-00002", "00003-of-00002"))


def code(path: Path) -> None:
    with (path / "pytorch_model.bin").open("wb") as out:
        pickle.dump({"model.norm.weight": Code()}, out, protocol=2)


def numbers(path: Path) -> None:
    torch.save({"epoch": 3, "model": {}}, path / "pytorch_model.bin")


def a_list(path: Path) -> None:
    torch.save([torch.ones(2)], path / "pytorch_model.bin")


def integers(path: Path) -> None:
    torch.save({"model.norm.weight": torch.ones(3, dtype=torch.int8)}, path / "pytorch_model.bin")


BROKEN = {
    "code": (1, code, "does not hold weights alone: it names the code (posix|nt).mkdir"),
    "half a file": (1, truncate("pytorch_model.bin"), "pytorch_model.bin (cannot be read|does not hold)"),
    "an empty file": (1, lambda path: (path / "pytorch_model.bin").write_bytes(b""), "cannot be read"),
    "no tensors": (1, numbers, "no floating-point tensor: epoch, model"),
    "a list": (1, a_list, "no floating-point tensor: list"),
    "integers": (1, integers, "no floating-point tensor: model.norm.weight"),
    "a missing shard": (2, forget, "there is no file .*00002-of-00002"),
    "an index that names an absent file": (2, rename, "there is no file .*00003-of-00002"),
    "half a shard": (2, truncate("pytorch_model-00002-of-00002.bin"), "00002-of-00002.bin"),
    "an index that is none": (2, lambda p: (p / "pytorch_model.bin.index.json").write_text("[]"), "not an index"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_pickles_that_are_not_whole_or_not_weights_are_refused(tmp_path: Path, name: str) -> None:
    parts, spoil, complaint = BROKEN[name]
    source = pickled(tiny_model_dir(tmp_path / "a"), parts)
    spoil(source)
    with pytest.raises(ModelError, match=complaint):
        convert(source, tmp_path / "b")
    assert os.listdir(tmp_path) == ["a"]  # and nothing ran


def test_half_a_safetensors_file_is_refused(tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a")
    truncate("model.safetensors")(source)
    with pytest.raises(ModelError, match=r"model\.safetensors: "):
        convert(source, tmp_path / "b")


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a")
    save_file({n: t for n, t in weights(source).items() if "up_proj" not in n}, source / "model.safetensors")
    with pytest.raises(ModelError, match=r"missing: model\.layers\.0\.mlp\.up_proj\.weight"):
        convert(source, tmp_path / "b", dry_run=True)


def test_a_tied_head_that_differs_is_refused(tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a", tie_word_embeddings=True)
    head = {"lm_head.weight": weights(source)["model.embed_tokens.weight"] + 1}
    save_file(weights(source) | head, source / "model.safetensors")
    with pytest.raises(ModelError, match="ties the head to the embedding, but the weights hold another"):
        convert(source, tmp_path / "b")


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a")
    config = tiny_config(vocab_size=290)
    (source / "config.json").write_text(json.dumps(config))
    save_file(random_weights(config), source / "model.safetensors")
    for name in ("b", "b.gguf"):
        with pytest.raises(ModelError, match="the tokenizer has 300 tokens, and the embedding 290 rows"):
            convert(source, tmp_path / name, dry_run=True)


def test_a_number_that_float16_cannot_hold_is_named(tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a")
    big = weights(source)
    big["model.layers.1.mlp.down_proj.weight"][0, 0] = 7e4
    save_file(big, source / "model.safetensors")
    for name, wanted in (("b", {"dtype": "float16"}), ("b.gguf", {"kind": "f16"})):
        with pytest.raises(ModelError, match=r"1\.mlp\.down_proj\.weight has weights that are not finite in") as caught:
            convert(source, tmp_path / name, **wanted)
        assert "65504" in caught.value.hint
    assert os.listdir(tmp_path) == ["a"]


def test_a_destination_that_exists_or_lies_inside_the_source_is_refused(tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a")
    for name in ("a/b", "a/b.gguf"):
        with pytest.raises(ModelError, match="lies inside"):
            convert(source, tmp_path / name)
    (tmp_path / "there.gguf").write_text("mine")
    with pytest.raises(ModelError, match="exists already"):
        convert(source, tmp_path / "there.gguf")
    assert (tmp_path / "there.gguf").read_text() == "mine"


def test_a_disk_without_room_is_seen_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_model_dir(tmp_path / "a")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=99))
    for name in ("new/b", "new/b.gguf"):
        with pytest.raises(ModelError, match=r"needs [\d,]+ bytes, and 99 are free"):
            convert(source, tmp_path / name)
    assert os.listdir(tmp_path) == ["a"]


# --- whole or not at all ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b", "b.gguf"])
@pytest.mark.parametrize("what", ["writing", "verifying", "computing logits"])
def test_an_interrupt_leaves_nothing(tmp_path: Path, name: str, what: str) -> None:
    def interrupt(now: str, done: int, total: int) -> None:
        if now == what:
            raise KeyboardInterrupt

    source = tiny_model_dir(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / name, tell=interrupt, **({} if name == "b.gguf" else {"dtype": "bfloat16"}))
    assert os.listdir(tmp_path) == ["a"]


def test_files_that_read_back_differently_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_model_dir(tmp_path / "a")
    honest = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: honest(self, data.replace(b"512", b"511")))
    with pytest.raises(ConversionFailed, match="max_position_embeddings is 511, not 512"):
        convert(source, tmp_path / "b")
    assert os.listdir(tmp_path) == ["a"]


def test_a_gguf_needs_a_tokenizer_and_a_directory_does_not(tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a")
    (source / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=f"there is no tokenizer.json in {source}"):
        convert(source, tmp_path / "a.gguf")
    convert(source, tmp_path / "b")
