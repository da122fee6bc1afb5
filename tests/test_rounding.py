import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from qprune.functional import along
from qprune.numerics import Default
from qprune.rounding import fake_quantize, quantize, through


def test_codes_round_halves_to_even_and_saturate():
    x = torch.tensor([-9.0, -0.75, -0.25, 0.25, 0.75, 1.25, 9.0])
    assert quantize(x, torch.tensor(0.5), torch.tensor(2), 0, 15).tolist() == [0, 0, 2, 2, 4, 4, 15]


# ---- properties of the default numerics

bits = st.integers(2, 8)
values = arrays(
    "float32", st.tuples(st.integers(1, 4), st.just(3), st.integers(1, 5)), elements=st.floats(-1e4, 1e4, width=32)
)
tensors = values.map(torch.from_numpy)
hard = st.sampled_from([0.0, -0.0, 1e-45, -1e-40, 1e-30, 1.0, -1.0, 3.4e38, -3.4e38, 2.0, 1e20])
hard_tensors = st.lists(hard, min_size=6, max_size=6).map(lambda v: torch.tensor(v).view(2, 3, 1))
forms = st.tuples(bits, st.booleans(), st.booleans())  # bits, symmetric, per channel


def grid(x, form):
    n_bits, symmetric, per_channel = form
    low, high = (x.amin((0, 2)), x.amax((0, 2))) if per_channel else (x.amin(), x.amax())
    axis = 1 if per_channel else None
    return (
        *Default().scale_and_zero_point(low, high, n_bits, symmetric),
        *Default().code_bounds(n_bits, symmetric),
    ), axis


def quantized(x, form, **options):
    arguments, axis = grid(x, form)
    return fake_quantize(x, *arguments, axis=axis, **options)


@given(tensors, forms)
def test_b_bits_give_at_most_2_to_the_b_values(x, form):
    y = quantized(x, form)
    channels = y.unbind(1) if form[2] else [y]
    assert max(channel.unique().numel() for channel in channels) <= 2 ** form[0]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("n_bits", range(2, 9))
def test_b_bits_use_every_code(n_bits, symmetric):
    x = torch.linspace(-1 if symmetric else 0, 1, 4096).view(1, 1, -1)
    y = quantized(x, (n_bits, symmetric, False))
    assert y.unique().numel() == 2**n_bits - symmetric


@given(tensors, forms)
def test_quantizing_twice_is_quantizing_once(x, form):
    arguments, axis = grid(x, form)
    once = fake_quantize(x, *arguments, axis=axis)
    assert torch.equal(fake_quantize(once, *arguments, axis=axis), once)


@given(tensors, forms)
def test_zero_stays_zero(x, form):
    arguments, axis = grid(x, form)
    assert (fake_quantize(torch.zeros_like(x), *arguments, axis=axis) == 0).all()


@given(tensors, forms)
def test_order_is_kept(x, form):
    arguments, axis = grid(x, form)
    ordered = x.movedim(1, 0).flatten(1).sort().values.T[:, :, None]  # (values, channels, 1)
    y = fake_quantize(ordered.contiguous(), *arguments, axis=axis)
    assert (y.diff(dim=0) >= 0).all()


@given(tensors, forms, st.integers(-20, 20))
def test_power_of_two_factor_goes_through(x, form, exponent):
    # tiny values are left out: their multiples leave the normal floats
    x = torch.where(x.abs() < 1e-4, 0, x)
    factor = 2.0**exponent
    assert torch.equal(quantized(x * factor, form), quantized(x, form) * factor)


@given(tensors, forms)
def test_error_is_at_most_half_a_step_inside_the_range(x, form):
    (scale, *_), axis = grid(x, form)
    scale = scale if axis is None else along(scale, x, axis)
    # besides the half step, the ends of a range whose zero point was rounded are up to another half away
    assert ((quantized(x, form) - x).abs() <= scale * 1.001).all()


@given(hard_tensors, forms, st.sampled_from(["straight", "clipped"]))
def test_hard_input_gives_finite_values_and_gradients(x, form, gradient):
    x.requires_grad_()
    y = quantized(x, form, gradient=gradient)
    y.backward(torch.ones_like(y))
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 3.3e38, -3.3e38, 1e-45])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("n_bits", [2, 4, 8])
def test_constant_input_gives_finite_values_and_gradients(value, symmetric, n_bits):
    x = torch.full((2, 3, 4), value, requires_grad=True)
    y = quantized(x, (n_bits, symmetric, False))
    y.sum().backward()
    assert y.isfinite().all()
    assert torch.equal(x.grad, torch.ones_like(x))
    if abs(value) == 1:
        torch.testing.assert_close(y, x)


# ---- gradients, dtypes, masks


def test_straight_gradient_passes_unchanged():
    x = torch.tensor([-9.0, 0.1, 9.0], requires_grad=True)
    fake_quantize(x, torch.tensor(0.5), torch.tensor(0), -7, 7).backward(torch.tensor([1.0, 2.0, 3.0]))
    assert x.grad.tolist() == [1, 2, 3]


def test_clipped_gradient_is_zero_where_values_saturate():
    x = torch.tensor([-9.0, -3.7, 0.1, 3.7, 9.0], requires_grad=True)
    fake_quantize(x, torch.tensor(0.5), torch.tensor(0), -7, 7, gradient="clipped").backward(torch.ones(5) * 2)
    assert x.grad.tolist() == [0, 2, 2, 2, 0]


@pytest.mark.parametrize("gradient", ["straight", "clipped"])
def test_quantizing_in_place_gives_the_same_values_and_gradients(gradient):
    x, grad = torch.randn(2, 3, 5) * 3, torch.randn(2, 3, 5)
    scale, zero = torch.tensor([0.5, 0.2, 0.3]), torch.tensor([3, 0, 9])
    results = []
    for inplace in (False, True):
        leaf = x.clone().requires_grad_()
        own = leaf * 1
        y = fake_quantize(own, scale, zero, 0, 15, axis=1, gradient=gradient, inplace=inplace)
        assert (y is own) == (inplace and gradient == "straight")
        y.backward(grad)
        results.append((y.detach(), leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_result_has_the_dtype_of_its_input():
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        x = torch.randn(7, dtype=dtype)
        y = fake_quantize(x, torch.tensor(0.5), torch.tensor(0), -7, 7)
        assert y.dtype == dtype
        assert torch.equal(y, fake_quantize(x.float(), torch.tensor(0.5), torch.tensor(0), -7, 7).to(dtype))


def test_input_is_left_as_it_is():
    x = torch.randn(7)
    before = x.clone()
    fake_quantize(x, torch.tensor(0.5), torch.tensor(0), -7, 7)
    assert torch.equal(x, before)


@pytest.mark.parametrize("gradient", ["straight", "clipped"])
def test_what_is_known_of_the_codes_changes_nothing(gradient):
    x, scale = torch.randn(2, 3, 5, 7), torch.tensor(0.13)
    for values, zero_point, low, known in [(x, 0, -7, {"zero_point": None}), (x.abs(), 2, 0, {"nonnegative": True})]:
        arguments = {"scale": scale, "zero_point": torch.tensor(zero_point), "low": low, "high": 7}
        results = []
        for extra in ({}, known):
            own = values.clone().requires_grad_()
            y = fake_quantize(own, **arguments | extra, gradient=gradient)
            y.backward(values)
            results.append((y.detach(), own.grad))
        assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_unknown_gradient_is_refused():
    with pytest.raises(ValueError, match=r"^gradient must be \"straight\" or \"clipped\"; received 'ste'$"):
        fake_quantize(torch.ones(2), torch.tensor(1.0), torch.tensor(0), -7, 7, gradient="ste")


def test_channel_arguments_without_axis_are_refused():
    with pytest.raises(ValueError, match=r"^a per-channel scale needs axis, the channel axis of x$"):
        fake_quantize(torch.ones(2, 3), torch.ones(3), torch.zeros(3), -7, 7)


# ---- torch as oracle: it multiplies with 1 / scale, so values at ties may go the other way and are left out


def away_from_ties(x, scale):
    x = torch.where(((x / scale).frac().abs() - 0.5).abs() < 1e-3, x + 0.1 * scale, x)
    assert (((x / scale).frac().abs() - 0.5).abs() >= 1e-3).all()
    return x


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("n_bits", range(2, 9))
def test_per_tensor_equals_torch(n_bits, symmetric):
    x = torch.randn(2, 3, 5, 7) * 3
    (scale, zero_point, low, high), _ = grid(x.flatten(2), (n_bits, symmetric, False))
    x = away_from_ties(x, scale)
    expected = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)
    assert torch.equal(fake_quantize(x, scale, zero_point, low, high), expected)


@pytest.mark.parametrize("axis", [0, 1, 3])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("n_bits", [2, 4, 8])
def test_per_channel_equals_torch(n_bits, symmetric, axis):
    x = torch.randn(2, 3, 5, 7) * torch.rand(3, 1, 1) * 3
    rows = x.movedim(axis, 0).flatten(1)
    scale, zero_point = Default().scale_and_zero_point(rows.amin(1), rows.amax(1), n_bits, symmetric)
    low, high = Default().code_bounds(n_bits, symmetric)
    x = away_from_ties(x, along(scale, x, axis))
    expected = torch.fake_quantize_per_channel_affine(x, scale, zero_point, axis, low, high)
    assert torch.equal(fake_quantize(x, scale, zero_point, low, high, axis=axis), expected)


def test_parameter_is_not_overwritten_within_torch_func():
    weight, x = nn.Parameter(torch.tensor([0.3, 1.2, -4.0])), torch.tensor([1.0, 2.0, 3.0])
    before = weight.detach().clone()

    def loss(x):
        return (fake_quantize(weight, torch.tensor(0.5), None, -7, 7) * x).pow(2).sum()

    torch.testing.assert_close(torch.func.grad(loss)(x), 2 * x * torch.tensor([0.5, 1.0, -3.5]).square())
    torch.func.grad(lambda x: torch.func.grad(loss)(x).pow(2).sum())(x)
    assert torch.equal(weight.detach(), before)


# ---- learned grids


def test_straight_through_passes_a_share_of_the_gradient_and_the_other_value():
    x = torch.randn(3, requires_grad=True)
    y = through(x, x.detach().round(), share=0.25)
    assert torch.equal(y, x.round())
    y.sum().backward()
    assert x.grad.tolist() == [0.25] * 3
