import torch

from tests.models.rows import WINDOW


def test_a_token_out_of_every_window_changes_nothing(ours, ids):
    model, rows = ours("mistral", sliding_window=WINDOW), ids(1, 60)
    changed = rows.clone()
    changed[0, 0] += 1
    reach = 2 * (WINDOW - 1)  # through two layers
    with torch.no_grad():
        a, b = model(rows)[0], model(changed)[0]
    assert torch.equal(a[reach + 1 :], b[reach + 1 :])
    assert not torch.equal(a[reach], b[reach])
