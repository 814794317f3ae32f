import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from lovecraft.checkpoint import EMBEDDING, HEAD, INDEX, WEIGHTS, load_model, read_headers, save_model
from lovecraft.errors import ModelError
from lovecraft.models import read_architecture
from lovecraft.models.architecture import lengthened, read_config
from tests.tiny import LLAMA3_ROPE, tiny_model_dir

CPU = torch.device("cpu")
QUERY = "model.layers.0.self_attn.q_proj.weight"


def load(path, dtype=torch.float32):
    return load_model(path, dtype=dtype, device=CPU)


def save(directory, model, like, dtype=torch.float32, **options):
    save_model(directory, model, like=like, dtype=dtype, **options)
    return directory


def edit(path, change):
    """Rewrite the weights of a model directory: `change` gets them by name and alters the dict."""
    tensors = {name: tensor.clone() for name, tensor in load_file(path / WEIGHTS).items()}
    change(tensors)
    save_file(tensors, path / WEIGHTS, metadata={"format": "pt"})


@pytest.fixture
def model_dir(tmp_path):
    return tiny_model_dir(tmp_path / "model")


@pytest.fixture
def tied_dir(tmp_path):
    return tiny_model_dir(tmp_path / "tied", tie_word_embeddings=True)


# --- loading ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_weight_is_loaded_and_converted(model_dir, dtype):
    stored, model = load_file(model_dir / WEIGHTS), load(model_dir, dtype)
    assert model.state_dict().keys() == stored.keys()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert torch.equal(parameter, stored[name].to(dtype)), name


def test_weights_are_our_own_copy(model_dir):
    before = (model_dir / WEIGHTS).read_bytes()
    model = load(model_dir)
    with torch.no_grad():
        model.head.fill_(0)
    assert (model_dir / WEIGHTS).read_bytes() == before
    assert all(parameter.data_ptr() % 64 == 0 for parameter in model.parameters())


def test_what_we_wrote_stays_mapped_and_what_is_written_to_it_is_our_own(model_dir, tmp_path):
    saved = save(tmp_path / "saved", load(model_dir), model_dir)
    before = (saved / WEIGHTS).read_bytes()
    model = load(saved)
    addresses = [parameter.data_ptr() for parameter in model.parameters()]
    assert all(address % 64 == 0 for address in addresses)
    assert max(addresses) - min(addresses) < len(before)  # one mapping
    with torch.no_grad():
        model.head.fill_(0)
    assert (saved / WEIGHTS).read_bytes() == before
    shutil.rmtree(saved)
    assert model.model.norm.weight.isfinite().all()


def test_loading_holds_no_more_than_one_shard_beside_the_model(tmp_path):
    like = tiny_model_dir(tmp_path / "like", hidden_size=512, intermediate_size=2048, num_hidden_layers=16)
    shards = save(tmp_path / "shards", load(like), like, torch.bfloat16, shard_bytes=20_000_000)
    largest = max(file.stat().st_size for file in shards.glob("*.safetensors"))
    done = subprocess.run([sys.executable, "-c", PEAK, shards], capture_output=True, text=True, check=True)
    weights, grown = map(int, done.stdout.split())
    assert len(list(shards.glob("*.safetensors"))) > 3
    assert grown - weights <= 1.15 * largest


PEAK = """
import sys, torch
from pathlib import Path
from lovecraft.checkpoint import load_model

def memory(what):
    rows = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(rows[what].split()[0]) * 1024

path, kind = Path(sys.argv[1]), dict(dtype=torch.float32, device=torch.device("cpu"))
torch.ones(8, 8) @ torch.ones(8, 8)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = memory("VmRSS")
model = load_model(path, **kind)
print(sum(p.nbytes for p in model.parameters()), memory("VmHWM") - before)
"""


def test_missing_left_over_and_misshaped_tensors_are_all_listed_by_name(model_dir):
    def change(tensors):
        del tensors["model.norm.weight"]
        tensors["model.extra"] = torch.zeros(1)
        tensors[QUERY] = tensors[QUERY][:32].clone()

    edit(model_dir, change)
    with pytest.raises(ModelError) as caught:
        load(model_dir)
    for said in ("missing: model.norm.weight", "left over: model.extra", f"{QUERY} (32, 64) instead of (64, 64)"):
        assert said in caught.value.message


def test_many_missing_tensors_are_counted(model_dir):
    edit(model_dir, lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.1" in name])
    with pytest.raises(ModelError, match="and 4 more"):
        load(model_dir)


def test_the_constants_of_old_checkpoints_are_passed_over(model_dir):
    edit(model_dir, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))
    load(model_dir)


def test_weights_that_are_not_floating_point_are_refused(model_dir):
    edit(model_dir, lambda tensors: tensors.update({QUERY: tensors[QUERY].to(torch.int8)}))
    with pytest.raises(ModelError, match=r"q_proj\.weight \(I8\)"):
        load(model_dir)


def test_a_tied_head_may_be_stored_under_either_name_or_both(tied_dir):
    wanted = load(tied_dir).head
    edit(tied_dir, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}))
    assert torch.equal(load(tied_dir).head, wanted)
    edit(tied_dir, lambda tensors: tensors.pop(EMBEDDING))
    assert torch.equal(load(tied_dir).head, wanted)
    edit(tied_dir, lambda tensors: tensors.pop(HEAD))
    with pytest.raises(ModelError, match="missing"):
        load(tied_dir)


def test_a_head_unlike_the_embedding_it_is_tied_to_is_refused(tied_dir):
    edit(tied_dir, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING] + 1}))
    with pytest.raises(ModelError, match="ties the head") as caught:
        load(tied_dir)
    assert "tie_word_embeddings" in caught.value.hint


def test_an_untied_model_without_a_head_is_told_how_to_tie_it(model_dir):
    edit(model_dir, lambda tensors: tensors.pop(HEAD))
    with pytest.raises(ModelError, match=r"missing: lm_head\.weight") as caught:
        load(model_dir)
    assert "tie_word_embeddings" in caught.value.hint


# --- files ---


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-3],
        lambda data: data + b"more",
        lambda data: data[:100],
        lambda data: b"",
        lambda data: struct.pack("<Q", 2**60) + data[8:],
        lambda data: b"not a header at all, just text",
    ],
)
def test_a_damaged_file_is_refused_by_its_name(model_dir, damage):
    file = model_dir / WEIGHTS
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=r"model\.safetensors") as caught:
        load(model_dir)
    assert "again" in caught.value.hint


def test_a_header_that_promises_more_than_the_file_holds_allocates_nothing(model_dir):
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (model_dir / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
    with pytest.raises(ModelError):
        read_headers(model_dir)


def test_a_directory_without_weights_is_refused(model_dir):
    (model_dir / WEIGHTS).rename(model_dir / "pytorch_model.bin")
    with pytest.raises(ModelError, match=INDEX) as caught:
        load(model_dir)
    assert "never loaded" in caught.value.hint


def test_a_missing_shard_is_refused_by_its_name(model_dir, tmp_path):
    shards = save(tmp_path / "shards", load(model_dir), model_dir, shard_bytes=100_000)
    (shards / "model-00002-of-00005.safetensors").unlink()
    with pytest.raises(ModelError, match="model-00002-of-00005"):
        load(shards)


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": 3}',
        '{"weight_map": {"x": 3}}',
        '{"weight_map": {"x": "../model/model.safetensors"}}',
    ],
)
def test_an_index_that_is_broken_or_leaves_its_directory_is_refused(model_dir, index):
    (model_dir / WEIGHTS).unlink()
    (model_dir / INDEX).write_text(index)
    with pytest.raises(ModelError, match=r"index\.json"):
        load(model_dir)


# --- saving ---


@pytest.mark.parametrize("shard_bytes", [10**9, 100_000, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_saved_loads_to_the_bit(model_dir, tmp_path, dtype, shard_bytes):
    model = load(model_dir, dtype)
    again = load(save(tmp_path / "saved", model, model_dir, dtype, shard_bytes=shard_bytes), dtype)
    assert model.state_dict().keys() == again.state_dict().keys()
    assert all(map(torch.equal, model.parameters(), again.parameters()))


@pytest.mark.parametrize("spelling", [4, 5])
@pytest.mark.parametrize(("family", "changes"), [("llama", {"tie_word_embeddings": True}), ("mistral", {})])
def test_transformers_loads_what_was_saved(tmp_path, family, changes, spelling):
    like = tiny_model_dir(tmp_path / "like", family, **changes)
    if spelling == 5:
        AutoConfig.from_pretrained(like).save_pretrained(like)
    ours = load(like)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(1.01)  # as training would
        saved = save(tmp_path / "saved", ours, like, shard_bytes=100_000)
        theirs, report = AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
        rows = torch.arange(40)[None]
        assert (theirs(rows).logits - ours(rows)).abs().max() <= 5e-5
    assert not any(report.values())


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
def test_the_config_changes_in_the_type_of_the_weights_alone(model_dir, tmp_path, key):
    config = json.loads((model_dir / "config.json").read_text()) | {"made_up": [1, None], "pad_token_id": None}
    del config["torch_dtype"]
    (model_dir / "config.json").write_text(json.dumps(config | {key: "float32"}))
    saved = save(tmp_path / "saved", load(model_dir), model_dir, torch.bfloat16)
    assert json.loads((saved / "config.json").read_text()) == config | {key: "bfloat16"}
    assert {header.kind for header in read_headers(saved).values()} == {"BF16"}


def test_tokenizer_and_licence_come_along_and_nothing_else(model_dir, tmp_path):
    (model_dir / "LICENSE").write_text("Do as you like.")
    (model_dir / "trainer").mkdir()
    (model_dir / "record.json").write_text("{}")
    saved = save(tmp_path / "saved", load(model_dir), model_dir)
    copied = {"LICENSE", "generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in saved.iterdir()} == {WEIGHTS, "config.json"} | copied
    assert all((saved / name).read_bytes() == (model_dir / name).read_bytes() for name in copied)


def test_every_file_says_that_its_tensors_are_torchs(model_dir, tmp_path):
    saved = save(tmp_path / "saved", load(model_dir), model_dir, shard_bytes=100_000)
    for file in saved.glob("*.safetensors"):  # transformers 4 refuses a file that does not
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}


def test_a_directory_can_be_its_own_pattern(model_dir, tmp_path):
    model = load(model_dir)
    bare = shutil.copytree(model_dir, tmp_path / "bare")
    (bare / WEIGHTS).unlink()
    assert torch.equal(load(save(bare, model, bare)).head, model.head)


def test_a_mapping_is_saved_like_a_model(tied_dir, tmp_path):
    tensors = {**load(tied_dir).state_dict()}
    tensors[HEAD] = tensors[EMBEDDING]
    saved = save(tmp_path / "saved", tensors, tied_dir)
    assert HEAD not in read_headers(saved)
    assert all(map(torch.equal, load(saved).parameters(), load(tied_dir).parameters()))


def test_weights_that_do_not_fit_the_config_are_not_saved(model_dir, tied_dir, tmp_path):
    with pytest.raises(ModelError, match=r"missing: lm_head\.weight"):
        save(tmp_path / "saved", load(tied_dir), model_dir)
    assert not (tmp_path / "saved").exists()


def test_a_longer_context_keeps_the_frequencies_of_a_scaled_rope(tmp_path: Path) -> None:
    rope = {k: v for k, v in LLAMA3_ROPE.items() if k != "original_max_position_embeddings"}
    source = tiny_model_dir(tmp_path / "source", max_position_embeddings=64)
    config = json.loads((source / "config.json").read_text())
    config.pop("rope_parameters", None)
    (source / "config.json").write_text(json.dumps({**config, "rope_theta": 10000.0, "rope_scaling": rope}))
    model = load_model(source, dtype=torch.float32, device=torch.device("cpu"))

    save_model(
        tmp_path / "longer", model, like=source, dtype=torch.float32, config=lengthened(read_config(source), 256)
    )

    before, after = read_architecture(source), read_architecture(tmp_path / "longer")
    assert (before.max_position_embeddings, after.max_position_embeddings) == (64, 256)
    assert after.rope_parameters == before.rope_parameters
