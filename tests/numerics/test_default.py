import pytest
import torch

from qprune.numerics import Default

GRID = Default().scale_and_zero_point


@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_codes_are_narrow_and_asymmetric_ones_unsigned(bits):
    assert Default().code_bounds(bits, symmetric=True) == (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    assert Default().code_bounds(bits, symmetric=False) == (0, 2**bits - 1)


@pytest.mark.parametrize("bits", [1, 9, 0, -4, 2.5])
def test_bits_outside_2_to_8_are_refused(bits):
    with pytest.raises(ValueError, match=f"^bits must be 2 to 8; received {bits!r}$"):
        Default().code_bounds(bits, symmetric=True)


def test_range_is_widened_to_contain_zero():
    for low, high in [(1.0, 3.0), (-3.0, -1.0)]:
        scale, zero_point = GRID(torch.tensor(low), torch.tensor(high), 2, symmetric=False)
        assert scale == 1
        assert zero_point == (0 if low > 0 else 3)


def test_scale_divides_the_range_into_2_to_the_b_minus_1_steps():
    scale, zero_point = GRID(torch.tensor([-1.0, 0.0]), torch.tensor([14.0, 30.0]), 4, symmetric=False)
    assert (scale.tolist(), zero_point.tolist()) == ([1, 2], [1, 0])
    scale, zero_point = GRID(torch.tensor([-7.0, -2.0]), torch.tensor([3.5, 14.0]), 4, symmetric=True)
    assert (scale.tolist(), zero_point.tolist()) == ([1, 2], [0, 0])
    assert (scale.dtype, zero_point.dtype) == (torch.float32, torch.int32)
