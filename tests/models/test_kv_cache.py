import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lovecraft.models import kv_cache
from lovecraft.models.architecture import kv_bytes_per_token
from lovecraft.models.kv_cache import KVCache, Rows
from tests.models.rows import ROWS

TOKENS = 60
MODELS = [ROWS[name] for name in ("llama 3", "mistral 0.1", "qwen 2 with windows", "qwen 3")]


def new_cache(model, rows=2, capacity=TOKENS, dtype=torch.float32):
    return KVCache(model.architecture, rows, capacity, dtype, torch.device("cpu"), model.windows())


@pytest.mark.parametrize(("family", "changes"), MODELS)
def test_decoding_token_by_token_equals_the_full_forward(ours, ids, family, changes):
    model, rows = ours(family, **changes), ids(2, TOKENS)
    cache = new_cache(model)
    with torch.no_grad():
        full = model(rows)
        steps = torch.cat([model(rows[:, i : i + 1], cache) for i in range(TOKENS)], dim=1)
    assert cache.length == TOKENS
    assert (steps - full).abs().max() <= 5e-5


@pytest.mark.parametrize(("family", "changes"), MODELS)
def test_any_chunks_of_a_prompt_equal_the_full_forward(ours, ids, family, changes):
    model, rows = ours(family, **changes), ids(2, TOKENS)
    with torch.no_grad():
        full = model(rows)

    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.sets(st.integers(1, TOKENS - 1)))
    def check(cuts):
        cache = new_cache(model)
        edges = [0, *sorted(cuts), TOKENS]
        with torch.no_grad():
            parts = [model(rows[:, a:b], cache) for a, b in itertools.pairwise(edges)]
        assert (torch.cat(parts, dim=1) - full).abs().max() <= 5e-5

    check()


@pytest.mark.parametrize(("family", "changes"), MODELS)
def test_a_truncated_cache_goes_on_as_if_the_rest_had_never_been(ours, ids, family, changes):
    model, rows = ours(family, **changes), ids(2, TOKENS)
    cache = new_cache(model)
    with torch.no_grad():
        model(rows.flip(1)[:, :20], cache)
        cache.truncate(0)
        model(rows[:, :30], cache)
        model(rows.flip(1)[:, :10], cache)
        cache.truncate(30)
        rest = model(rows[:, 30:], cache)
        full = model(rows)
    assert (rest - full[:, 30:]).abs().max() <= 5e-5


def test_memory_is_never_read_before_it_is_written(ours, ids):
    model, rows = ours(), ids(2, 20)
    cache = new_cache(model)
    for store in cache.stores:
        store.data.fill_(float("nan"))
    with torch.no_grad():
        assert model(rows[:, :19], cache).isfinite().all()
        assert model(rows[:, 19:], cache).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_takes_the_bytes_that_the_architecture_says(ours, dtype):
    model = ours()
    cache = new_cache(model, rows=3, capacity=50, dtype=dtype)
    assert sum(store.data.nbytes for store in cache.stores) == 3 * 50 * kv_bytes_per_token(model.architecture, dtype)


def test_a_failed_pass_leaves_the_length_as_it_was(ours, ids):
    model = ours()
    cache = new_cache(model, capacity=10)
    with torch.no_grad():
        model(ids(2, 8), cache)
        with pytest.raises(AssertionError):
            model(ids(2, 3), cache)
    assert cache.length == 8


@pytest.mark.parametrize(("family", "changes"), MODELS)
def test_a_window_is_outgrown_in_constant_memory(ours, ids, family, changes, monkeypatch):
    monkeypatch.setattr(kv_cache, "ROOM", 7)
    model, rows = ours(family, **changes), ids(1, TOKENS)
    with torch.no_grad():
        full = model(rows)

    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.integers(1, 7), min_size=TOKENS, max_size=TOKENS))
    def check(chunks):
        cache = new_cache(model, rows=1)
        parts, start = [], 0
        while start < TOKENS:
            chunk = rows[:, start : start + chunks.pop()]
            with torch.no_grad():
                parts.append(model(chunk, cache))
            start += chunk.shape[1]
        assert (torch.cat(parts, dim=1) - full).abs().max() <= 5e-5
        for store in cache.stores:
            assert store.data.shape[4] == (min(store.window + 6, TOKENS) if store.window else TOKENS)

    check()


def test_what_a_window_has_forgotten_cannot_be_gone_back_to(ours, ids, monkeypatch):
    monkeypatch.setattr(kv_cache, "ROOM", 7)
    [family, changes] = ROWS["mistral 0.1"]
    model, rows = ours(family, **changes), ids(1, TOKENS)
    cache = new_cache(model, rows=1)
    window = cache.stores[0].window
    with torch.no_grad():
        full = model(rows)
        for at in range(TOKENS):
            model(rows[:, at : at + 1], cache)
        assert not cache.holds(TOKENS - 8)
        back = next(at for at in range(TOKENS) if cache.holds(at))
        assert window - 1 <= back < TOKENS
        cache.truncate(back)
        assert (model(rows[:, back : back + 1], cache) - full[:, back]).abs().max() <= 5e-5


@pytest.mark.parametrize(("family", "changes"), MODELS)
def test_rows_of_any_lengths_go_on_as_each_would_alone(ours, ids, family, changes):
    model, rows = ours(family, **changes), ids(4, TOKENS)
    lengths = [1, 30, 17, TOKENS - 3]
    with torch.no_grad():
        full = model(rows)
        caches = [new_cache(model, rows=1) for _ in lengths]
        for row, length, cache in zip(rows, lengths, caches, strict=True):
            model(row[None, :length], cache)
        for step in range(3):
            newest = torch.stack([row[length + step] for row, length in zip(rows, lengths, strict=True)])
            logits = model(newest[None], Rows(caches))[0]
            wanted = torch.stack([row[length + step] for row, length in zip(full, lengths, strict=True)])
            assert (logits - wanted).abs().max() <= 5e-5


def test_a_copied_beginning_is_the_same_to_the_bit(ours, ids):
    model, rows = ours(), ids(1, TOKENS)
    source, copy = new_cache(model, rows=1), new_cache(model, rows=1)
    with torch.no_grad():
        model(rows[:, :40], source)
        copy.copy_from(source, 30)
        source.truncate(30)
        assert torch.equal(model(rows[:, 30:], copy), model(rows[:, 30:], source))
