import json
import subprocess
import sys

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from lovecraft.errors import ModelError
from lovecraft.models import FAMILIES, architecture, build, read_architecture
from lovecraft.models.architecture import parse_architecture
from tests.tiny import LLAMA3_ROPE, tiny_config, tiny_model_dir


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
