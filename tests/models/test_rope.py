import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from lovecraft.models.rope import RopeTables, rotate
from tests.models.rows import ROWS


def tables(ours, **changes):
    return RopeTables(ours(**changes).architecture)


def test_tables_stay_float32_when_the_model_becomes_bfloat16(ours, ids):
    model = ours()
    model.to(torch.bfloat16)(ids(1, 8))
    assert model.rope.cos.dtype == model.rope.sin.dtype == torch.float32


@pytest.mark.parametrize("theta", [1e4, 1e5])
def test_angles_at_the_end_of_a_long_context_are_right_to_a_thousandth(ours, theta):
    cos, sin = tables(ours, rope_theta=theta, head_dim=128).at(16383, 16384, torch.empty(0))
    angle = 16383 * theta ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    turned = torch.complex(cos[0, 0, 64:].double(), sin[0, 0, 64:].double())
    assert (turned / torch.polar(torch.ones_like(angle), angle)).angle().abs().max() < 1e-3


def test_tables_equal_those_of_transformers_to_the_bit(pair):
    ours, theirs = pair("llama", rope_theta=500000.0)
    cos, sin = LlamaRotaryEmbedding(theirs.config)(torch.empty(0), torch.arange(9000)[None])
    ours_cos, ours_sin = ours.rope.at(0, 9000, torch.empty(0))
    assert torch.equal(ours_cos[:, 0], cos[0])
    assert torch.equal(ours_sin[:, 0, 8:], sin[0, :, 8:])


def test_positions_restart_at_each_document(ours):
    rope = tables(ours)
    wanted = zip(*(rope.at(0, tokens, torch.empty(0)) for tokens in (3, 1, 5)), strict=True)
    got = rope.restarting([3, 1, 5], torch.empty(0))
    assert all(torch.equal(table, torch.cat(parts)) for table, parts in zip(got, wanted, strict=True))


def test_rotation_equals_that_of_transformers_in_bfloat16(pair):
    ours, theirs = pair("llama")
    x = torch.randn(2, 30, 4, 16, dtype=torch.bfloat16)
    cos, sin = LlamaRotaryEmbedding(theirs.config)(x, torch.arange(30)[None])
    wanted, _ = apply_rotary_pos_emb(x.transpose(1, 2), x.transpose(1, 2), cos, sin)
    got = rotate(x, *ours.rope.at(0, 30, x)).transpose(1, 2)
    assert (got - wanted).abs().max() <= 2**-6  # one rounding of numbers up to 4


def test_rotation_keeps_lengths_and_depends_on_distance_alone(ours):
    rope = tables(ours)
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)

    def score(position, distance):
        one = rotate(q, *rope.at(position + distance, position + distance + 1, q))
        other = rotate(k, *rope.at(position, position + 1, k))
        torch.testing.assert_close(one.norm(), q.norm())
        return (one * other).sum()

    torch.testing.assert_close(score(0, 7), score(400, 7), rtol=1e-4, atol=1e-4)
    assert abs(score(0, 7) - score(0, 8)) > 1e-3


def test_tables_grow_with_the_positions_asked_for(ours):
    rope = tables(ours)
    short = [table.clone() for table in rope.at(3, 5, torch.empty(0))]
    rope.at(0, 5000, torch.empty(0))
    assert all(map(torch.equal, short, rope.at(3, 5, torch.empty(0))))


@pytest.mark.parametrize(("family", "changes"), ROWS.values(), ids=ROWS.keys())
def test_tables_equal_those_of_transformers_within_and_beyond_the_context(pair, family, changes):
    ours, theirs = pair(family, **changes)
    for length in (64, 65, 300, 1500):
        cos, sin = theirs.model.rotary_emb(torch.empty(0), torch.arange(length)[None])
        ours_cos, ours_sin = ours.rope.at(0, length, torch.empty(0))
        half = cos.shape[-1] // 2
        assert torch.equal(ours_cos[:, 0], cos[0])
        assert torch.equal(ours_sin[:, 0, half:], sin[0, :, half:])


def test_dynamic_tables_follow_the_length_of_the_text(ours):
    rope = tables(ours, max_position_embeddings=64, rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    like = torch.empty(0)
    assert torch.equal(rope.at(10, 20, like)[0], rope.at(0, 64, like)[0][10:20])
    assert torch.equal(rope.at(10, 20, like, reach=300)[0], rope.at(0, 300, like)[0][10:20])
    assert not torch.equal(rope.at(0, 300, like)[0][10:20], rope.at(0, 301, like)[0][10:20])
    assert torch.equal(rope.restarting([30, 100], like)[0][:30], rope.at(0, 30, like)[0])  # each by its own length
