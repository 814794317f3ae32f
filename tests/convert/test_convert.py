"""From a GGUF file to a model directory: whole, exact, verified, or not there at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lovecraft import convert as package
from lovecraft.checkpoint import load_model
from lovecraft.convert import convert, gguf_model, write
from lovecraft.errors import ConversionFailed, ModelError
from lovecraft.models.architecture import Architecture, RopeParameters
from lovecraft.tokenizer import load_tokenizer
from tests.convert.gguf_writer import (
    HEAD,
    HEADS,
    INNER,
    KEY_HEADS,
    LAYERS,
    TOKENS,
    WIDTH,
    hf_weights,
    llama_metadata,
    llama_tensors,
    permute,
    tiny_gguf,
    write_gguf,
)

# --- what is written --------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_weights_and_their_order_are_hugging_faces(tmp_path: Path, tied: bool) -> None:
    convert(tiny_gguf(tmp_path / "a.gguf", tied=tied), tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    expected = hf_weights(tied)
    assert written.keys() == expected.keys()
    for name, weights in expected.items():
        assert np.array_equal(written[name].numpy(), weights), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is tied


def test_config_json_is_what_both_spellings_of_transformers_read(tmp_path: Path) -> None:
    convert(tiny_gguf(tmp_path / "a.gguf", tokenizer__ggml__padding_token_id=1), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(TOKENS),
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "use_cache": True,
        "license": "apache-2.0",
        "torch_dtype": "float32",
    }


def test_every_end_of_turn_stops_a_generation(tmp_path: Path) -> None:
    source = tiny_gguf(tmp_path / "a.gguf", tokenizer__ggml__eot_token_id=5, tokenizer__ggml__eom_token_id=1)
    convert(source, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {
        "bos_token_id": 0,
        "eos_token_id": [1, 5],
    }
    assert load_tokenizer(tmp_path / "out").stop_ids == (1, 5)


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    convert(tiny_gguf(tmp_path / "a.gguf"), tmp_path / "out")
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in (tmp_path / "out").iterdir()} == dict.fromkeys(
        os.listdir(tmp_path / "out"), "0o644"
    )


def test_linear_rope_scaling_is_kept(tmp_path: Path) -> None:
    changes = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    convert(tiny_gguf(tmp_path / "a.gguf", **changes), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "F16", "BF16"])
def test_logits_are_those_of_transformers_from_the_same_numbers(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    convert(tiny_gguf(tmp_path / "a.gguf", kind), tmp_path / "out", dtype="float32")
    ids = torch.tensor([load_tokenizer(tmp_path / "out").encode("the deep ones, 1928")])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    ours = load_model(tmp_path / "out", dtype=torch.float32, device=torch.device("cpu"))
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours(ids), expected, rtol=0, atol=1e-5)
    # And the numbers are near the unquantised ones: a wrong order of rows would be far off.
    exact = {name: torch.from_numpy(weights) for name, weights in hf_weights().items()}
    theirs.load_state_dict(exact, strict=False)
    with torch.no_grad():
        error = (theirs(ids).logits - expected).std() / expected.std()
    assert error < {"Q8_0": 0.02, "F16": 0.002, "BF16": 0.02}.get(kind, 0.25)


def test_transformers_reads_the_tokenizer_alike(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    convert(tiny_gguf(tmp_path / "a.gguf", tokenizer__ggml__add_bos_token=True), tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = load_tokenizer(tmp_path / "out")
    text = "the th 12 th\r\n ÿ"
    assert theirs(text)["input_ids"] == [ours.bos_id, *ours.encode(text)]
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, ours.eos_id)
    assert theirs.chat_template == "{{ messages }}"
    assert theirs.model_max_length == 128


# --- types ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "asked", "written"),
    [
        ("F32", "auto", "float32"),
        ("F16", "auto", "float16"),
        ("BF16", "auto", "bfloat16"),
        ("Q4_1", "auto", "float32"),
        ("Q8_0", "bfloat16", "bfloat16"),
        ("BF16", "float16", "float16"),
    ],
)
def test_the_type_is_the_asked_one_or_the_files(tmp_path: Path, kind: str, asked: str, written: str) -> None:
    done = convert(tiny_gguf(tmp_path / "a.gguf", kind), tmp_path / "out", dtype=asked)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, written)}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == written
    assert (done.dtype, done.tensors) == (written, len(tensors))
    assert done.files == {"model.safetensors": sum(tensor.nbytes for tensor in tensors.values())}
    assert bool(done.reason) is (asked == "auto")


def test_auto_goes_by_bytes_not_by_tensors(tmp_path: Path) -> None:
    tensors = {
        name: ("F16" if "ffn_" in name or "token" in name else "F32", weights)
        for name, (_, weights) in llama_tensors().items()
    }
    assert sum(kind == "F32" for kind, _ in tensors.values()) > len(tensors) / 2
    done = convert(write_gguf(tmp_path / "a.gguf", llama_metadata(), tensors), tmp_path / "out")
    assert (done.dtype, done.reason) == ("float16", "most of the file is F16")


def test_a_weight_that_the_type_cannot_hold_is_refused(tmp_path: Path) -> None:
    tensors = llama_tensors()
    tensors["blk.1.ffn_up.weight"][1][3, 5] = 70000
    try:
        source = write_gguf(tmp_path / "a.gguf", llama_metadata(), tensors)
    finally:
        hf_weights.cache_clear()  # its arrays are shared, and one was changed
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight .* not finite in float16"):
        convert(source, tmp_path / "out", dtype="float16")
    assert os.listdir(tmp_path) == ["a.gguf"]
    convert(source, tmp_path / "out", dtype="bfloat16")


# --- whole or not at all ----------------------------------------------------------------------------


def test_an_existing_destination_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="exists already") as caught:
        convert(tiny_gguf(tmp_path / "a.gguf"), tmp_path / "out")
    assert caught.value.hint
    assert list((tmp_path / "out").iterdir()) == []


def test_a_dry_run_writes_nothing_but_checks_the_file(tmp_path: Path) -> None:
    done = convert(tiny_gguf(tmp_path / "a.gguf"), tmp_path / "out", dry_run=True)
    assert done.tensors == len(hf_weights())
    assert os.listdir(tmp_path) == ["a.gguf"]
    with pytest.raises(ModelError):
        convert(tiny_gguf(tmp_path / "a.gguf", tokenizer__ggml__pre="mystery"), tmp_path / "out", dry_run=True)


def test_weights_that_read_back_differently_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def flip_one(file: Path, tensors: dict[str, torch.Tensor], read: Callable[[str], torch.Tensor]) -> None:
        weights = {name: read(name).clone() for name in tensors}
        weights["model.norm.weight"][0] += 1e-3
        save_file(weights, file)

    monkeypatch.setattr(write, "write_file", flip_one)
    with pytest.raises(ConversionFailed, match=r"model\.norm\.weight in 1 of 32 numbers, by up to 0\.001"):
        convert(tiny_gguf(tmp_path / "a.gguf"), tmp_path / "out")
    assert os.listdir(tmp_path) == ["a.gguf"]


def test_a_tokenizer_that_loses_text_is_refused(tmp_path: Path) -> None:
    tokens = [token for token in TOKENS if token != "9"]  # no token for the digit
    source = write_gguf(
        tmp_path / "a.gguf",
        llama_metadata(tokenizer__ggml__tokens=tokens, tokenizer__ggml__token_type=None),
        llama_tensors(),
    )
    with pytest.raises(ModelError, match=r"does not give back the text .In 1928"):
        convert(source, tmp_path / "out")
    assert os.listdir(tmp_path) == ["a.gguf"]


def test_a_disk_that_refuses_is_an_error_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_gguf(tmp_path / "a.gguf")
    with pytest.raises(ModelError, match="was not converted") as caught:
        convert(source, tiny_gguf(tmp_path / "b.gguf") / "out")  # a file cannot hold a directory
    assert caught.value.hint

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(write, "write_file", full)
    with pytest.raises(ModelError, match="No space left"):
        convert(source, tmp_path / "out")


# --- what is refused --------------------------------------------------------------------------------


WRONG = {
    "another architecture": ({"general__architecture": "gemma"}, "architecture 'gemma'"),
    "no layers": ({"llama__block_count": 0}, "num_hidden_layers is 0"),
    "4 billion layers": ({"llama__block_count": 2**32 - 1}, "too few for its layers"),
    "no heads": ({"llama__attention__head_count": 0}, "num_attention_heads is 0"),
    "heads that do not divide": ({"llama__attention__head_count_kv": 3}, "do not divide"),
    "another width": (
        {"llama__embedding_length": 64, "llama__attention__key_length": 8},
        r"embed_tokens\.weight \(\d+, 32\) instead of \(\d+, 64\)",
    ),
    "part of a head turns": ({"llama__rope__dimension_count": 4}, "rope.dimension_count in .* is 4"),
    "short values": ({"llama__attention__value_length": 4}, "value_length in .* is 4"),
    "longrope": (
        {"llama__rope__scaling__type": "longrope", "llama__rope__scaling__factor": 2.0},
        "RoPE scaling 'longrope'",
    ),
    "no epsilon": ({"llama__attention__layer_norm_rms_epsilon": None}, "has no llama.attention.layer_norm"),
    "more tokens than rows": ({"tokenizer__ggml__tokens": [*TOKENS, "x y"]}, "rows in token_embd.weight for"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_model_that_cannot_be_converted_is_refused(tmp_path: Path, name: str) -> None:
    changes, complaint = WRONG[name]
    with pytest.raises(ModelError, match=complaint):
        convert(tiny_gguf(tmp_path / "a.gguf", **changes), tmp_path / "out")


def test_missing_and_foreign_tensors_are_named(tmp_path: Path) -> None:
    tensors = llama_tensors()
    del tensors["blk.1.attn_k.weight"]
    tensors["blk.0.ffn_gate_exps.weight"] = ("F32", np.ones(HEAD // 2, np.float32))
    with pytest.raises(ModelError, match=r"missing: .*1\.self_attn\.k_proj\.weight; left over: blk\.0\.ffn_gate_exps"):
        convert(write_gguf(tmp_path / "a.gguf", llama_metadata(), tensors), tmp_path / "out")


def test_rope_factors_that_are_not_llama_3s_are_refused(tmp_path: Path) -> None:
    tensors = llama_tensors() | {"rope_freqs.weight": ("F32", np.array([1, 3, 2, 8], np.float32))}
    with pytest.raises(ModelError, match="not how Llama 3"):
        convert(write_gguf(tmp_path / "a.gguf", llama_metadata(), tensors), tmp_path / "out")


def test_the_embedding_may_have_rows_that_no_token_has(tmp_path: Path) -> None:
    tensors = llama_tensors()
    kind, rows = tensors["token_embd.weight"]
    tensors["token_embd.weight"] = (kind, np.concatenate([rows, rows[:3]]))
    convert(write_gguf(tmp_path / "a.gguf", llama_metadata(), tensors), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == len(TOKENS) + 3


@pytest.mark.parametrize("shape", [(), (3,)])
def test_rows_are_reordered_as_the_converter_does_and_back(shape: tuple[int, ...]) -> None:
    architecture = Architecture(
        model_type="llama", vocab_size=8, hidden_size=24, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=3, num_key_value_heads=1, head_dim=8, max_position_embeddings=8, rms_norm_eps=1e-5,
        rope_parameters=RopeParameters(rope_type="default", rope_theta=1e4),
    )  # fmt: skip
    rows = torch.arange(24.0).reshape(24, *[1] * len(shape)).expand(24, *shape)
    for name, heads in (("self_attn.q_proj", 3), ("self_attn.k_proj", 1), ("self_attn.v_proj", 0)):
        theirs = gguf_model.reorder(rows, f"model.layers.0.{name}.bias", architecture)
        expected = permute(rows.numpy(), heads) if heads else rows.numpy()
        assert np.array_equal(theirs.numpy(), expected)
        assert torch.equal(gguf_model.reorder(theirs, f"model.layers.0.{name}.bias", architecture, back=True), rows)
    qwen = attrs.evolve(architecture, model_type="qwen2")
    assert torch.equal(gguf_model.reorder(rows, "model.layers.0.self_attn.q_proj.bias", qwen), rows)


# --- the real thing ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter model, converted, where LOVECRAFT_GGUF names its file."""
    if "LOVECRAFT_GGUF" not in os.environ:
        pytest.skip("LOVECRAFT_GGUF names no GGUF of SmolLM2-135M-Instruct")
    out = tmp_path_factory.mktemp("real") / "smollm2"
    done = package.convert(Path(os.environ["LOVECRAFT_GGUF"]), out, dtype="bfloat16")
    assert (done.tensors, done.files) == (272, {"model.safetensors": 2 * 134_515_008})
    return out


def test_the_starter_model_has_its_published_sizes(real: Path) -> None:
    config = json.loads((real / "config.json").read_text())
    assert (config["rms_norm_eps"], config["rope_theta"], config["max_position_embeddings"]) == (1e-5, 1e5, 8192)
    tokenizer = load_tokenizer(real)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos, tokenizer.vocab_size) == (1, 2, False, 49152)


@pytest.mark.corpus
def test_the_starter_models_tokenizer_counts_the_corpus_right(real: Path) -> None:
    if not os.path.isdir(os.environ.get("LOVECRAFT_CORPUS", "")):
        pytest.skip("LOVECRAFT_CORPUS names no directory of the corpus")
    tokenizer = load_tokenizer(real)
    counts = {}
    for file in Path(os.environ["LOVECRAFT_CORPUS"]).glob("*.txt"):
        text = file.read_bytes().decode("utf-8")
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        counts[file.name] = len(ids)
    assert counts["the_call_of_cthulhu.txt"] == 15_558
    assert sum(counts.values()) == 588_803


def test_the_starter_models_weights_agree_with_the_gguf_package(real: Path) -> None:
    gguf = pytest.importorskip("gguf")
    written = load_file(real / "model.safetensors")
    theirs = {t.name: t for t in gguf.GGUFReader(os.environ["LOVECRAFT_GGUF"]).tensors}
    for ours, name in (("mlp.down_proj", "ffn_down"), ("input_layernorm", "attn_norm"), ("self_attn.v_proj", "attn_v")):
        tensor = theirs[f"blk.29.{name}.weight"]
        expected = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type)))
        assert torch.equal(written[f"model.layers.29.{ours}.weight"], expected.bfloat16())
