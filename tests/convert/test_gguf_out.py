"""GGUF files that we write: read by the gguf package and by transformers, and turned back by our own reader."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from lovecraft import convert as package
from lovecraft.checkpoint import load_model
from lovecraft.convert import convert, write
from lovecraft.convert.gguf import open_gguf, quantise
from lovecraft.convert.gguf_tokenizer import SPLITTINGS
from lovecraft.errors import ConversionFailed, ModelError
from lovecraft.models import read_architecture
from lovecraft.pieces import UNUSED
from lovecraft.tokenizer import load_tokenizer
from tests.convert.gguf_writer import PIECES, permute, tiny_gguf
from tests.test_pieces import vocabulary, write_model
from tests.tiny import LLAMA3_ROPE, TEXT, tiny_model_dir

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
MODELS = {
    "llama": ("llama", {}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "biased": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "rows of no whole blocks": ("llama", {"hidden_size": 48}),
    "spare rows": ("llama", {"vocab_size": 320}),
    "linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "llama3": ("llama", {"rope_scaling": LLAMA3_ROPE}),
    "yarn": ("llama", {"rope_scaling": YARN}),
    "mistral": ("mistral", {"head_dim": 32}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32}),
}
NAMES = PIECES | {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}


def weights(path: Path) -> dict[str, Tensor]:
    return load_file(path / "model.safetensors")


def expected(tensor: Tensor, kind: str) -> np.ndarray:
    """Return what a reader must find of a tensor, by the gguf package's arithmetic."""
    gguf = pytest.importorskip("gguf")
    if tensor.ndim == 1:
        return tensor.numpy()
    if kind != "Q8_0" or tensor.shape[-1] % 32:
        return tensor.to(torch.bfloat16 if kind == "BF16" else torch.float16).float().numpy()
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    return gguf.quants.dequantize(gguf.quants.quantize(tensor.numpy(), q8_0), q8_0)


# --- there and back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_as_its_type_rounds_it(tmp_path: Path, name: str, kind: str) -> None:
    family, changes = MODELS[name]
    source = tiny_model_dir(tmp_path / "a", family, **changes)
    done = convert(source, tmp_path / "a.gguf", kind=kind)
    assert done.dtype == kind.upper()
    assert done.files == {"a.gguf": (tmp_path / "a.gguf").stat().st_size}
    assert done.difference is not None
    assert done.difference < {"f16": 0.005, "bf16": 0.03, "q8_0": 0.08}[kind]
    convert(tmp_path / "a.gguf", tmp_path / "b", dtype="float32")
    found = weights(tmp_path / "b")
    assert found.keys() == weights(source).keys()
    for tensor_name, tensor in weights(source).items():
        assert np.array_equal(found[tensor_name].numpy(), expected(tensor, kind.upper())), tensor_name
    before, after = read_architecture(source), read_architecture(tmp_path / "b")
    assert attrs.evolve(after, model_type=family) == before


@pytest.mark.parametrize("add_bos", [True, False])
def test_the_tokenizer_comes_back(tmp_path: Path, add_bos: bool) -> None:
    source = tiny_model_dir(tmp_path / "a", add_bos=add_bos)
    (source / "chat_template.jinja").write_text("{{ messages[0] }} ÿ")
    (source / "generation_config.json").write_text('{"eos_token_id": [1, 7, 9]}')
    convert(source, tmp_path / "a.gguf")
    convert(tmp_path / "a.gguf", tmp_path / "b")
    ours, theirs = load_tokenizer(source), load_tokenizer(tmp_path / "b")
    for name in ("bos_id", "eos_id", "stop_ids", "adds_bos", "vocab_size"):
        assert getattr(theirs, name) == getattr(ours, name), name
    assert json.loads((tmp_path / "b" / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages[0] }} ÿ"

    @given(text=st.text())
    def same(text: str) -> None:
        assert theirs.encode(text) == ours.encode(text)

    same()
    assert theirs.encode(TEXT) == ours.encode(TEXT)


@pytest.mark.parametrize("kind", sorted(set(SPLITTINGS) - {"default"}))
def test_each_way_to_cut_gets_its_name(tmp_path: Path, kind: str) -> None:
    convert(tiny_gguf(tmp_path / "a.gguf", tokenizer__ggml__pre=kind), tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b.gguf")
    assert open_gguf(tmp_path / "b.gguf").metadata["tokenizer.ggml.pre"] == kind


def test_a_gguf_becomes_another(tmp_path: Path) -> None:
    done = convert(tiny_gguf(tmp_path / "a.gguf", "F16"), tmp_path / "b.gguf")
    assert (done.dtype, done.reason) == ("F16", "the source is float16")
    a, b = open_gguf(tmp_path / "a.gguf"), open_gguf(tmp_path / "b.gguf")
    assert all(np.array_equal(a.read(name), b.read(name)) for name in a.tensors)
    assert b.metadata["general.license"] == "apache-2.0"


# --- other readers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("name", ["llama", "biased", "qwen3"])
def test_the_gguf_package_finds_every_tensor_and_key(tmp_path: Path, name: str, kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    family, changes = MODELS[name]
    source = tiny_model_dir(tmp_path / "a", family, **changes)
    convert(source, tmp_path / "a.gguf", kind=kind.lower())
    reader, arch = gguf.GGUFReader(tmp_path / "a.gguf"), read_architecture(source)
    found = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    assert all(t.data_offset % 32 == 0 for t in reader.tensors)
    for ours, tensor in weights(source).items():
        theirs, rows = ours, expected(tensor, kind)
        for piece, other in NAMES.items():
            theirs = theirs.replace(piece, other)
        heads = arch.num_attention_heads if "q_proj" in ours else arch.num_key_value_heads if "k_proj" in ours else 0
        rows = permute(rows, heads) if heads and family == "llama" else rows
        assert np.array_equal(np.asarray(found.pop(theirs), np.float32), rows), theirs
    assert not found
    said = {key: field.contents() for key, field in reader.fields.items()}
    sizes = {
        "block_count": 2, "context_length": 512, "embedding_length": 64, "feed_forward_length": 128,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": arch.head_dim,
        "attention.value_length": arch.head_dim, "rope.dimension_count": arch.head_dim, "vocab_size": 300,
        "rope.freq_base": 10000.0, "attention.layer_norm_rms_epsilon": np.float32(1e-5),
    }  # fmt: skip
    assert {key: said[f"{family}.{key}"] for key in sizes} == sizes
    assert said["general.architecture"] == family
    assert said["general.file_type"] == gguf.LlamaFileType[f"MOSTLY_{kind}"]
    library = load_tokenizer(source).library
    assert said["tokenizer.ggml.tokens"] == [library.id_to_token(i) for i in range(300)]
    assert said["tokenizer.ggml.token_type"] == [3, 3] + [1] * 298
    assert [merge.split(" ") for merge in said["tokenizer.ggml.merges"]] == json.loads(library.to_str())["model"][
        "merges"
    ]
    assert {key: said[f"tokenizer.ggml.{key}"] for key in ("model", "pre", "bos_token_id", "add_bos_token")} == {
        "model": "gpt2", "pre": "gpt-2", "bos_token_id": 0, "add_bos_token": True
    }  # fmt: skip


@pytest.mark.parametrize("name", ["llama", "tied", "qwen2", "qwen3"])
def test_transformers_computes_our_logits_from_it(tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    family, changes = MODELS[name]
    if family == "qwen3":
        changes = {"head_dim": 128}  # its reader overlooks attention.key_length
    source = tiny_model_dir(tmp_path / "a", family, **changes)
    convert(source, tmp_path / "a.gguf", kind="f16")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf", dtype=torch.float32)
    ours = load_model(source, dtype=torch.float32, device=torch.device("cpu"))
    ids = torch.tensor([load_tokenizer(source).encode(TEXT)])
    with torch.no_grad():
        found, wanted = theirs.eval()(ids).logits, ours(ids)
        losses = [torch.nn.functional.cross_entropy(x[0, :-1], ids[0, 1:]).item() for x in (found, wanted)]
    assert (found - wanted).std() < 0.005 * wanted.std()
    assert losses[0] == pytest.approx(losses[1], rel=0.005)


@given(rows=numpy_st.arrays(np.float32, (3, 64), elements=st.floats(-1e4, 1e4, width=32)))
def test_q8_0_rounds_as_the_gguf_package_does(rows: np.ndarray) -> None:
    gguf = pytest.importorskip("gguf")
    with np.errstate(all="ignore"):  # a denormal scale has an infinite inverse in both
        wanted = gguf.quants.quantize(rows, gguf.GGMLQuantizationType.Q8_0)
    assert quantise("Q8_0", torch.from_numpy(rows)).tobytes() == wanted.tobytes()


def test_llama_3s_scaling_is_the_tensor_that_llama_cpp_wants(tmp_path: Path) -> None:
    convert(tiny_model_dir(tmp_path / "a", rope_scaling=LLAMA3_ROPE), tmp_path / "a.gguf")
    factors = []
    for i in range(0, 16, 2):  # as in convert_hf_to_gguf.py
        wavelength = 2 * np.pi * 10000.0 ** (i / 16)
        smooth = (64 / wavelength - 1.0) / (4.0 - 1.0)
        factors.append(1 if wavelength < 64 / 4.0 else 8 if wavelength > 64 / 1.0 else 1 / ((1 - smooth) / 8 + smooth))
    assert np.allclose(open_gguf(tmp_path / "a.gguf").read("rope_freqs.weight"), factors, rtol=1e-5)


# --- what is refused --------------------------------------------------------------------------------

WRONG = {
    "dynamic": ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "the RoPE scaling dynamic"),
    "own yarn": ("llama", {"rope_scaling": {**YARN, "beta_fast": 16.0}}, "yarn with its own parameters"),
    "a window": ("mistral", {"sliding_window": 128}, "sliding window of 128 tokens, and the context is 512"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    family, changes, complaint = WRONG[name]
    with pytest.raises(ModelError, match=complaint):
        convert(tiny_model_dir(tmp_path / "a", family, **changes), tmp_path / "a.gguf", dry_run=True)


def test_a_context_within_the_window_can_be_written(tmp_path: Path) -> None:
    source = tiny_model_dir(tmp_path / "a", "mistral", sliding_window=128)
    convert(source, tmp_path / "a.gguf", max_context=128)
    assert open_gguf(tmp_path / "a.gguf").metadata["llama.context_length"] == 128


def change_pieces(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel()])


def change_case(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()


def metaspace(tokenizer: Tokenizer) -> None:
    tokenizer.model = models.BPE({"<s>": 0, "</s>": 1, "<unk>": 2}, [], byte_fallback=True)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Prepend("▁"), pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()


@pytest.mark.parametrize("change", [change_pieces, change_case, metaspace])
def test_a_tokenizer_without_a_name_is_refused(tmp_path: Path, change) -> None:
    source = tiny_model_dir(tmp_path / "a")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    change(tokenizer)
    tokenizer.save(str(source / "tokenizer.json"))
    with pytest.raises(ModelError, match="cuts texts in a way that no GGUF name stands for"):
        convert(source, tmp_path / "a.gguf")


def sentencepiece_dir(path: Path) -> Path:
    """Write a tiny model whose tokenizer is a tokenizer.model of SentencePiece."""
    rows = vocabulary()
    tiny_model_dir(path, vocab_size=len(rows) + 3, bos_token_id=1, eos_token_id=2)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).unlink()
    (path / "generation_config.json").write_text('{"eos_token_id": 2}')
    write_model(path, rows)
    return path


def test_a_sentencepiece_vocabulary_goes_out_and_comes_back(tmp_path: Path) -> None:
    convert(source := sentencepiece_dir(tmp_path / "a"), gguf := tmp_path / "a.gguf")
    said, rows = open_gguf(gguf).metadata, vocabulary()
    assert said["tokenizer.ggml.model"] == "llama"
    assert said["tokenizer.ggml.token_type"].tolist() == [row.kind for row in rows] + [UNUSED] * 3
    assert said["tokenizer.ggml.unknown_token_id"] == 0
    convert(gguf, back := tmp_path / "back")
    before, after = load_tokenizer(source), load_tokenizer(back)
    for text in ("that  é\n", " th", "", "a" * 50):
        assert after.encode(text) == before.encode(text)
    assert (after.bos_id, after.stop_ids, after.adds_bos) == (1, (2,), True)
    convert(back, again := tmp_path / "again.gguf")
    scores = [open_gguf(file).metadata["tokenizer.ggml.scores"].tolist() for file in (gguf, again)]
    assert scores[0] == scores[1]


def change_tokenizer(source: Path, change: Callable[[Tokenizer], None]) -> None:
    library = load_tokenizer(source).library
    change(library)
    library.save(str(source / "tokenizer.json"))


def test_a_blank_that_llama_cpp_puts_more_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def as_transformers_5_writes_it(library: Tokenizer) -> None:
        library.normalizer = None
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)

    change_tokenizer(source := sentencepiece_dir(tmp_path / "a"), as_transformers_5_writes_it)
    convert(source, tmp_path / "a.gguf")
    assert "puts a blank before every text" in caplog.text
    assert open_gguf(tmp_path / "a.gguf").metadata["tokenizer.ggml.add_space_prefix"] is True


def test_merges_that_no_scores_say_are_refused(tmp_path: Path) -> None:
    source = sentencepiece_dir(tmp_path / "a")
    content = json.loads(load_tokenizer(source).library.to_str())
    content["model"]["merges"].pop(0)
    (source / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="no scores say them"):
        convert(source, tmp_path / "a.gguf")


# --- what is written is checked ---------------------------------------------------------------------


def test_rows_in_the_wrong_order_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "reorder", lambda weight, name, architecture: weight)
    with pytest.raises(ConversionFailed, match=r"q_proj\.weight in \d+ of 4096 numbers, by up to \d"):
        convert(tiny_model_dir(tmp_path / "a"), tmp_path / "a.gguf")
    assert os.listdir(tmp_path) == ["a"]


def test_a_network_that_reads_back_otherwise_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = package.metadata
    monkeypatch.setattr(package, "metadata", lambda *args: honest(*args) | {"llama.attention.head_count_kv": 4})
    with pytest.raises(ModelError, match=r"k_proj\.weight \(32, 64\) instead of \(64, 64\)"):
        convert(tiny_model_dir(tmp_path / "a"), tmp_path / "a.gguf")
    monkeypatch.setattr(package, "metadata", lambda *args: honest(*args) | {"llama.rope.freq_base": 5e5})
    with pytest.raises(ConversionFailed, match=r"rope_parameters is .*500000"):
        convert(tiny_model_dir(tmp_path / "a"), tmp_path / "a.gguf")
    assert os.listdir(tmp_path) == ["a"]


def test_logits_that_are_not_the_sources_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides of the tensor check are wrong in the same way; only the logits tell."""
    swap = {"model.norm.weight": "model.layers.0.input_layernorm.weight"}
    monkeypatch.setattr(write, "rounded", lambda source, name: source.read(swap.get(name, name)).bfloat16())
    source = tiny_model_dir(tmp_path / "a")
    tensors = weights(source)
    tensors["model.norm.weight"] *= torch.linspace(-2, 2, 64)
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(
        ConversionFailed, match=r"on prompts of 32 tokens the logits differ by \d+\.\d% of their spread"
    ):
        convert(source, tmp_path / "b", dtype="bfloat16")
    assert os.listdir(tmp_path) == ["a"]


def test_a_tokenizer_that_reads_back_otherwise_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = package.tokenizer_metadata
    for changes, complaint in (
        ({"tokenizer.ggml.merges": ["t h"]}, r"of .In 1928 .* they make"),
        ({"tokenizer.ggml.add_bos_token": False}, "adds_bos is False, not True"),
        ({"tokenizer.ggml.eos_token_id": 5}, "eos_id is 5, not 1"),
    ):
        monkeypatch.setattr(package, "tokenizer_metadata", lambda *args, new=changes: honest(*args) | new)
        with pytest.raises(ConversionFailed, match=complaint):
            convert(tiny_model_dir(tmp_path / "a"), tmp_path / "a.gguf")
