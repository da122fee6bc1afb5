import pytest
import torch

from qprune.importances import ActivationL0, ActivationL1

L0, L1 = ActivationL0().measure, ActivationL1().measure


def test_l0_score_is_the_share_of_nonzero_values():
    x = torch.randn(2, 3, 5, 7).relu()
    expected = torch.stack([(x[:, c] != 0).float().mean() for c in range(3)])
    torch.testing.assert_close(L0(x), expected)


@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_l0_falls_back_to_l1_where_the_smallest_value_is_not_zero(shift):
    x = torch.rand(2, 3, 5, 7) + shift
    assert torch.equal(L0(x), L1(x))
