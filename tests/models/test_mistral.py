import pytest
import torch

WINDOW = 16


@pytest.mark.parametrize("tokens", [WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 150])
def test_logits_equal_those_of_transformers_up_to_and_past_the_window(pair, ids, tokens):
    ours, theirs = pair("mistral", sliding_window=WINDOW)
    rows = ids(2, tokens)
    with torch.no_grad():
        assert (ours(rows) - theirs(rows).logits).abs().max() <= 5e-5


def test_without_a_window_every_token_is_seen(pair, ids):
    ours, theirs = pair("mistral", sliding_window=None, tie_word_embeddings=True)
    rows = ids(2, 150)
    with torch.no_grad():
        assert (ours(rows) - theirs(rows).logits).abs().max() <= 5e-5


def test_a_token_out_of_every_window_changes_nothing(ours, ids):
    model, rows = ours("mistral", sliding_window=WINDOW), ids(1, 60)
    changed = rows.clone()
    changed[0, 0] += 1
    reach = 2 * (WINDOW - 1)  # through two layers
    with torch.no_grad():
        a, b = model(rows)[0], model(changed)[0]
    assert torch.equal(a[reach + 1 :], b[reach + 1 :])
    assert not torch.equal(a[reach], b[reach])


def test_gradients_past_the_window_equal_those_of_transformers(pair, ids):
    ours, theirs = pair("mistral", sliding_window=WINDOW)
    rows = ids(2, 50)
    ours(rows).square().mean().backward()
    theirs(rows).logits.square().mean().backward()
    wanted = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - wanted[name].grad).norm() / wanted[name].grad.norm() < 1e-5, name
