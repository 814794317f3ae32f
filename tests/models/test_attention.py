import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lovecraft.models import attention
from lovecraft.models.attention import attend, causal_spans, document_spans


def reference(q, k, v, past, window):
    """Attend with the definition spelled out, in float64."""
    q, k, v = q.double(), k.double(), v.double()
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    age = past + torch.arange(q.shape[2])[:, None] - torch.arange(k.shape[2])
    hidden = (age < 0) | (age >= (window or k.shape[2]))
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(hidden, float("-inf"))
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(
    tokens=st.integers(1, 40),
    past=st.integers(0, 40),
    window=st.none() | st.integers(1, 90),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    chunk=st.integers(1, 50),
)
def test_each_query_sees_exactly_its_window(dtype, tokens, past, window, heads, chunk):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, heads[0], tokens, 8, generator=generator).to(dtype)
    k, v = (torch.randn(2, heads[1], past + tokens, 8, generator=generator).to(dtype) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "CHUNK", chunk)
        spans = causal_spans(tokens, past, window, q)
    error = (attend(q, k, v, [spans]) - reference(q, k, v, past, window)).abs().max()
    assert error < (1e-5 if dtype == torch.float32 else 0.03)


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    window=st.none() | st.integers(1, 25),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    chunk=st.integers(1, 20),
)
def test_a_document_sees_itself_alone(lengths, window, heads, chunk):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, n, sum(lengths), 8, generator=generator) for n in (heads[0], heads[1], heads[1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "CHUNK", chunk)
        got = attend(q, k, v, document_spans(lengths, 0, window, q))
    parts = [x.split(lengths, dim=2) for x in (q, k, v)]
    wanted = torch.cat([reference(*document, past=0, window=window) for document in zip(*parts, strict=True)], dim=2)
    assert (got - wanted).abs().max() < 1e-5


def test_documents_need_no_mask_over_their_row():
    like = torch.empty(0)
    assert all(span.mask is None for spans in document_spans([300, 7, 300, 1] * 50, 0, None, like) for span in spans)
    windowed = [span for spans in document_spans([300, 7, 300, 1] * 50, 0, 64, like) for span in spans]
    masks = {id(span.mask): span.mask.shape for span in windowed if span.mask is not None}
    assert list(masks.values()) == [(236, 300)]  # one for all hundred


@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize(("tokens", "past"), [(64, 0), (5, 0), (1, 0), (1, 500)])
def test_no_mask_is_built_where_none_is_needed(tokens, past, window):
    [span] = causal_spans(tokens, past, window, torch.empty(0))
    assert span.mask is None


def test_masks_of_a_long_text_do_not_grow_with_it():
    spans = causal_spans(20_000, 0, 4096, torch.empty(0, dtype=torch.bfloat16))
    masks = {id(span.mask): span.mask.nbytes for span in spans if span.mask is not None}
    assert len(masks) == 2  # one for all full chunks, one for the rest
    assert sum(masks.values()) <= 2 * 2 * attention.CHUNK * (attention.CHUNK + 4096)


def test_a_wholly_masked_run_of_keys_leaves_no_nan():
    q, k = torch.randn(1, 1, 1200, 8), torch.randn(1, 1, 1200, 8)  # kernels work through keys 512 at a time
    spans = causal_spans(1200, 0, 20, q)
    assert (attend(q, k, k, [spans]) - reference(q, k, k, 0, 20)).abs().max() < 1e-5
