import math

import pytest
import torch
from torch import nn

from qprune.functional import along
from qprune.masking import mask_channels, rectify_channels


@pytest.mark.parametrize("value", [1.5, torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_dropped_channels_are_zero_and_pass_no_gradient_whatever_they_hold(dtype, value):
    x = torch.randn(2, 3, 5, dtype=dtype)
    x[:, 1] = value
    x.requires_grad_()
    keep, grad = torch.tensor([True, False, True]), torch.randn(2, 3, 5, dtype=dtype)
    grad[:, 1] = value
    y = mask_channels(x, keep)
    y.backward(grad)
    for masked, before in ((y, x), (x.grad, grad)):
        assert (masked[:, 1] == 0).all()
        assert torch.equal(masked[:, keep], before[:, keep])


def test_masking_keeps_the_memory_layout_and_the_input():
    x = torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last)
    before = x.clone()
    y = mask_channels(x, torch.tensor([True, False, True]))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, before)


@pytest.mark.parametrize("ceiling", [math.inf, 6.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reusable", [False, True])
def test_rectified_channels_are_the_rectifier_and_then_the_mask_to_the_bit(ceiling, dtype, reusable):
    rectifier = torch.nn.ReLU() if ceiling == math.inf else torch.nn.ReLU6()
    x = torch.randn(2, 3, 5, 7, dtype=dtype) * 5
    x[0, 0, 0, :5] = torch.tensor([0.0, -0.0, 6.0, torch.inf, torch.nan])
    x[0, 1, 0, :2] = torch.tensor([torch.inf, torch.nan])
    keep, grad = torch.tensor([True, False, True]), torch.randn(2, 3, 5, 7, dtype=dtype)
    results = []
    for function in (
        lambda v: rectify_channels(v, keep, 1, ceiling, reusable=reusable),
        lambda v: mask_channels(rectifier(v), keep),
    ):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        y.backward(grad)
        results.append((y.detach(), leaf.grad))
    (y, slope), (expected, expected_slope) = results
    assert torch.equal(y.nan_to_num(-1), expected.nan_to_num(-1))
    assert torch.equal(slope, expected_slope)
    assert (y[:, 1] == 0).all()
    assert (slope[:, 1] == 0).all()


# within torch.func, and differentiated twice


def masks():
    keep = torch.tensor([True, False, True])
    return {
        "masked": (lambda x: mask_channels(x, keep), lambda x: x * along(keep, x, 1)),
        "rectified": (lambda x: rectify_channels(x, keep), lambda x: x.relu() * along(keep, x, 1)),
        "rectified up to 6": (
            lambda x: rectify_channels(x, keep, ceiling=6.0, reusable=True),
            lambda x: nn.functional.relu6(x) * along(keep, x, 1),
        ),
    }


@pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")  # torch's own forward mode uses it
@pytest.mark.parametrize("name", ["masked", "rectified", "rectified up to 6"])
def test_masks_compose_with_torch_func(name):
    x, ones = torch.randn(2, 3, 4, 5) * 5, torch.ones(2, 3, 4, 5)
    ours, product = masks()[name]
    assert torch.equal(ours(x), product(x))
    for transformed in (
        lambda f: torch.func.grad(lambda x: f(x).pow(3).sum())(x),
        lambda f: torch.func.vmap(torch.func.grad(lambda x: f(x[None]).pow(3).sum()))(x),
        lambda f: torch.func.jvp(f, (x,), (ones,))[1],
        lambda f: torch.func.hessian(lambda x: f(x).pow(3).sum())(x),
    ):
        torch.testing.assert_close(transformed(ours), transformed(product))


@pytest.mark.parametrize("name", ["masked", "rectified", "rectified up to 6"])
def test_masks_have_second_gradients(name):
    x = (torch.randn(2, 3, 4, 5, dtype=torch.float64) * 5).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: masks()[name][0](x).pow(3), x)


def test_without_values_the_number_of_channels_is_checked_all_the_same():
    x = torch.zeros(2, 3, 5, 7, device="meta")
    assert mask_channels(x, torch.ones(3, dtype=torch.bool, device="meta")).shape == x.shape
    with pytest.raises(RuntimeError):
        mask_channels(x, torch.ones(4, dtype=torch.bool, device="meta"))
