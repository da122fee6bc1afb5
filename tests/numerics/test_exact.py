import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from qprune.numerics import Exact, power_of_two


def test_scales_are_powers_of_two_and_zero_points_even() -> None:
    low, high = -torch.rand(50), torch.rand(50) * 3
    for bits in (2, 4, 8):
        scale, zero_point = Exact().scale_and_zero_point(low, high, bits, symmetric=False)
        assert torch.equal(scale, power_of_two(scale))
        assert (zero_point % 2 == 0).all()
        assert ((zero_point >= 0) & (zero_point < 2**bits)).all()


def test_power_of_two_is_the_smallest_that_is_not_below():
    exponents = torch.arange(-126, 127)
    powers = torch.tensor([2.0**e for e in exponents.tolist()])
    assert torch.equal(power_of_two(powers), powers)
    above = torch.nextafter(powers, torch.tensor(math.inf))
    assert torch.equal(power_of_two(above), powers * 2)


@given(st.floats(2.0**-126, 2.0**126, width=32))
def test_power_of_two_bounds_every_scale(scale):
    power = power_of_two(torch.tensor(scale)).item()
    assert math.frexp(power)[0] == 0.5
    assert power / 2 < scale <= power
