import json
import subprocess
import sys

import attrs
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from lovecraft import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    RopeScaling,
    YarnScaling,
    override,
    resolve,
)
from lovecraft.checkpoint import load_model, save_model
from lovecraft.errors import ConfigError, ModelError
from lovecraft.models import FAMILIES, architecture, build, read_architecture
from lovecraft.models.architecture import config_of, lengthened, parse_architecture, read_config, scaled
from tests.tiny import LLAMA3_ROPE, tiny_config, tiny_model_dir

CPU32 = {"dtype": torch.float32, "device": torch.device("cpu")}


def config(family="llama", **changes):
    return tiny_config(family, **changes)


def test_every_family_has_a_class_of_transformers_and_one_of_ours():
    for name, family in FAMILIES.items():
        network = build(parse_architecture(config(name), ""), torch.float32, torch.device("meta"))
        assert AutoModelForCausalLM._model_mapping[CONFIG_MAPPING[name]].__name__ == f"{family.network}ForCausalLM"
        assert type(network).__name__ == family.network


@pytest.mark.parametrize(
    "scaling",
    [
        None,
        {"type": "linear", "factor": 2.0},
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0},
        LLAMA3_ROPE,
        {"type": "yarn", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 16.0},
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_spellings_of_transformers_4_and_5_read_the_same(tmp_path, family, scaling):
    tiny_model_dir(tmp_path / "four", family, rope_theta=12345.0, rope_scaling=scaling)
    AutoConfig.from_pretrained(tmp_path / "four").save_pretrained(tmp_path / "five")
    five = json.loads((tmp_path / "five/config.json").read_text())
    assert "rope_theta" not in five
    assert five["rope_parameters"]["rope_theta"] == 12345.0
    assert read_architecture(tmp_path / "five") == read_architecture(tmp_path / "four")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_config_leaves_out_is_what_transformers_takes(family):
    silent = ("num_key_value_heads", "head_dim", "rope_theta", "tie_word_embeddings", "attention_bias", "mlp_bias")
    silent += ("sliding_window", "use_sliding_window")
    given = {key: value for key, value in config(family, num_attention_heads=32).items() if key not in silent}
    got, wanted = parse_architecture(given, ""), CONFIG_MAPPING[family](**given)
    for name in ("num_key_value_heads", "tie_word_embeddings"):
        assert getattr(got, name) == getattr(wanted, name)
    assert got.head_dim == getattr(wanted, "head_dim", 2)
    assert got.rope_parameters.rope_theta == wanted.rope_parameters["rope_theta"]
    assert got.sliding_window == getattr(wanted, "sliding_window", None)


def test_a_window_is_where_transformers_has_one():
    assert parse_architecture(config("mistral", sliding_window=8), "").sliding_window == 8
    assert parse_architecture(config("mistral", sliding_window=None), "").sliding_window is None
    assert parse_architecture(config("llama", sliding_window=8), "").sliding_window is None
    on = {"use_sliding_window": True, "sliding_window": 8}
    for family in ("qwen2", "qwen3"):
        assert parse_architecture(config(family, sliding_window=8), "").sliding_window is None
        assert parse_architecture(config(family, **on), "").sliding_window is None  # it begins at layer 28
        found = parse_architecture(config(family, **on, max_window_layers=1), "")
        assert (found.sliding_window, found.max_window_layers) == (8, 1)
        kinds = ["full_attention", "sliding_attention"]
        assert parse_architecture(config(family, **on, max_window_layers=1, layer_types=kinds), "") == found
        with pytest.raises(ModelError, match="layer_types"):
            parse_architecture(config(family, **on, max_window_layers=1, layer_types=kinds[::-1]), "")


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mistral", {"attention_bias": True}),
        ("mistral", {"use_sliding_window": False}),
        ("qwen2", {"attention_bias": False}),
        ("qwen2", {"mlp_bias": True}),
        ("qwen3", {"mlp_bias": True}),
        ("llama", {"use_sliding_window": True}),
    ],
)
def test_what_a_family_does_not_have_is_refused(family, changes):
    with pytest.raises(ModelError, match=next(iter(changes))):
        parse_architecture(config(family, **changes), "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt2"}, "'gpt2'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "'longrope'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "alpha": 1000.0}}, "alpha"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "factor is missing"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": "no"}}, "truncate is 'no'"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"num_local_experts": 8}, "num_local_experts"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
        ({"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_scaling": {**LLAMA3_ROPE, "low_freq_factor": 4.0}}, "high_freq_factor"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "per layer type"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_attention_heads": True}, "num_attention_heads is True"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"num_key_value_heads": 3}, "4 attention heads do not divide"),
        ({"head_dim": 7}, "head size 7 is odd"),
    ],
)
def test_what_we_would_compute_differently_is_refused_by_name(changes, said):
    with pytest.raises(ModelError) as caught:
        parse_architecture(config(**changes), "DIR/config.json")
    assert said in caught.value.message
    assert "DIR/config.json" in caught.value.message


@pytest.mark.parametrize("content", [None, "{", "[]", '"x"'])
def test_a_directory_without_a_sound_config_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_architecture(tmp_path)


def test_the_parameters_of_mistral_7b_are_counted_right():
    sizes = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    mistral = parse_architecture(config("mistral", **sizes, **heads), "")
    assert architecture.parameter_count(mistral) == 7_241_732_096
    assert architecture.kv_bytes_per_token(mistral, torch.bfloat16) == 128 * 1024


def test_reading_an_architecture_does_not_import_torch(tmp_path):
    code = "import sys; from lovecraft.models import read_architecture; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)})


# --- what the options of a Model config change -------------------------------------------------------

BEFORE = {
    "default": {"rope_theta": 5e5},
    "llama3": {"rope_theta": 5e5, "rope_scaling": LLAMA3_ROPE},
    "in the spelling of transformers 5": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
@pytest.mark.parametrize("context", [None, 700])
@pytest.mark.parametrize(
    "scaling",
    [
        LinearScaling(factor=4.0),
        DynamicScaling(factor=4.0, original_context=200),
        Llama3Scaling(factor=4.0, low_freq_factor=2.0),
        YarnScaling(factor=4.0, beta_fast=16.0),
        YarnScaling(factor=4.0, attention_factor=1.5, original_context=256),
    ],
)
def test_a_scaling_of_a_config_is_read_by_transformers_alike(tmp_path, before, scaling, context):
    source = tiny_model_dir(tmp_path / "source", **{"rope_theta": None, **before})
    model = override(ModelConfig, {"path": source, "max_context": context})
    model = attrs.evolve(resolve(model), rope_scaling=scaling)
    arch = read_architecture(source, model)
    network = load_model(source, dtype=torch.float32, device=torch.device("cpu"), architecture=arch)
    save_model(tmp_path / "saved", network, like=source, dtype=torch.float32, config=config_of(source, model))
    assert read_architecture(tmp_path / "saved") == arch
    assert arch.context >= (context or 4 * (scaling.original_context or 64))
    assert arch.rope_parameters.rope_theta == 5e5
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    rows = torch.randint(0, 300, (1, 600), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (network(rows) - theirs(rows).logits).abs().max() <= 5e-5
        assert (network(rows) - load_model(source, **CPU32)(rows)).abs().max() > 0.1


def test_without_options_a_config_stays_as_it_is(tmp_path):
    source = tiny_model_dir(tmp_path / "source", rope_scaling=LLAMA3_ROPE)
    assert config_of(source, resolve(override(ModelConfig, {"path": source}))) == read_config(source)


def test_the_context_of_scaled_models_is_what_the_scaling_reaches():
    for kind, context in (("yarn", 2048), ("dynamic", 2048), ("linear", 512), ("default", 512)):
        assert parse_architecture(config(rope_scaling={"rope_type": kind, "factor": 4.0}), "").context == context
    llama = {**LLAMA3_ROPE, "factor": 32.0, "original_max_position_embeddings": 64}
    assert parse_architecture(config(rope_scaling=llama), "").context == 512


def test_a_longer_context_than_dynamic_scaling_reaches_is_refused():
    dynamic = config(rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    assert lengthened(dynamic, 1024) == dynamic
    with pytest.raises(ModelError, match="a context of 1025 tokens is more than the 1024"):
        lengthened(dynamic, 1025)


def test_a_scaling_of_no_kind_is_refused():
    with pytest.raises(ConfigError, match="rope_scaling is RopeScaling"):
        scaled(config(), RopeScaling)
