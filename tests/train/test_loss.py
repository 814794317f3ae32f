import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lovecraft.train import loss as loss_module
from lovecraft.train.loss import linear_cross_entropy

ROWS, WIDTH, VOCABULARY = 41, 16, 67


def example(dtype: torch.dtype = torch.float32, masked: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    labels[torch.rand(ROWS, generator=generator) < masked] = -100
    return hidden, weight, labels


def reference(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(hidden.float() @ weight.float().T, labels, reduction="sum")


@pytest.mark.parametrize("chunk", [1, 7, 1024, ROWS, 0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-3)])
def test_loss_equals_the_float32_reference(chunk: int, dtype: torch.dtype, tolerance: float) -> None:
    hidden, weight, labels = example(dtype)
    loss = linear_cross_entropy(hidden, weight, labels, chunk)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference(hidden, weight, labels).item(), rel=tolerance)


@pytest.mark.parametrize("chunk", [1, 7, 1024, ROWS, 0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_gradients_equal_the_float32_reference(chunk: int, dtype: torch.dtype, tolerance: float) -> None:
    hidden, weight, labels = example(dtype)
    expected = torch.autograd.grad(reference(hidden, weight, labels) / 7, (hidden, weight))
    found = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels, chunk) / 7, (hidden, weight))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("chunk", [1, 5, 0])
def test_gradients_pass_gradcheck_in_float64(chunk: int) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(9, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 5, -100, 2, 2, -100, 1, 3, 4])
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, labels, chunk), (hidden, weight))


def test_masked_rows_change_nothing() -> None:
    hidden, weight, labels = example(masked=0.5)
    kept = labels != -100
    whole = linear_cross_entropy(hidden, weight, labels, 8)
    assert torch.equal(whole, linear_cross_entropy(hidden[kept], weight, labels[kept], 8))
    (d_hidden,) = torch.autograd.grad(whole, hidden)
    assert torch.count_nonzero(d_hidden[~kept]) == 0
    assert torch.count_nonzero(d_hidden[kept].abs().sum(1)) == kept.sum()


def test_a_batch_without_labels_has_loss_zero_and_gradient_zero() -> None:
    hidden, weight, labels = example(masked=1.1)
    loss = linear_cross_entropy(hidden, weight, labels, 8)
    assert loss.item() == 0.0
    assert all(torch.count_nonzero(g) == 0 for g in torch.autograd.grad(loss, (hidden, weight)))


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = linear_cross_entropy(hidden, torch.eye(2), torch.tensor([1]))
    assert loss.item() == 2e4


def test_evaluation_makes_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, labels = example()
    monkeypatch.setattr(loss_module, "_accumulate", None)
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, labels, 8)
    assert not loss.requires_grad


def test_the_head_gets_its_gradient_once_whatever_the_chunks() -> None:
    hidden, weight, labels = example()
    arrivals = []
    weight.register_post_accumulate_grad_hook(arrivals.append)
    linear_cross_entropy(hidden, weight, labels, 4).backward()
    assert len(arrivals) == 1
