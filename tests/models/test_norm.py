import pytest
import torch
import torch.nn.functional as F

from lovecraft.models.norm import RMSNorm


def norm(dtype: torch.dtype) -> RMSNorm:
    module = RMSNorm(24, 1e-5).to(dtype)
    torch.nn.init.normal_(module.weight, 1.0, 0.3)
    return module


def test_gradient_is_that_of_the_formula():
    module = norm(torch.float64)
    x = torch.randn(2, 3, 24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, _: module(x), (x, module.weight))


def test_gradients_equal_those_of_torch():
    module = norm(torch.float32)
    x = torch.randn(2, 3, 24, requires_grad=True)
    weights = torch.randn(2, 3, 24)
    (module(x) * weights).sum().backward()
    got = x.grad, module.weight.grad
    x.grad = module.weight.grad = None
    (F.rms_norm(x, (24,), module.weight, 1e-5) * weights).sum().backward()
    torch.testing.assert_close(got, (x.grad, module.weight.grad))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_computes_the_same_with_and_without_gradients(dtype):
    module, x = norm(dtype), torch.randn(2, 3, 24).to(dtype)
    with torch.no_grad():
        assert torch.equal(module(x), module(x.clone().requires_grad_()))
    assert torch.equal(module(x).detach(), module(x.clone().requires_grad_()).detach())


def test_bfloat16_is_rounded_once():
    module, x = norm(torch.bfloat16), 100 * torch.randn(50, 24).bfloat16()
    exact = F.rms_norm(x.double(), (24,), module.weight.double(), 1e-5)
    assert ((module(x) - exact).abs() <= exact.abs() * 2**-8).all()


def test_backward_takes_gradients_that_are_not_contiguous():
    module, x = norm(torch.float32), torch.randn(4, 24, requires_grad=True)
    module(x).sum().backward()
    expanded, x.grad = x.grad, None
    module(x).backward(torch.ones(4, 24))
    assert torch.equal(x.grad, expanded)
