import pytest
import torch

from qprune.importances import ActivationL1

L1 = ActivationL1().measure


def test_l1_score_is_the_mean_magnitude_of_each_channel():
    x = torch.randn(2, 3, 5, 7)
    expected = torch.stack([x[:, c].abs().mean() for c in range(3)])
    torch.testing.assert_close(L1(x), expected)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_score_runs_along_the_given_axis(axis):
    x = torch.randn(2, 3, 5)
    torch.testing.assert_close(L1(x, axis=axis), x.movedim(axis, 0).flatten(1).abs().mean(1))


@pytest.mark.parametrize("axis", [0, -1])
def test_score_of_a_single_vector_is_its_magnitude(axis):
    x = torch.tensor([-2.0, 0.0, 3.0])
    assert L1(x, axis=axis).tolist() == [2, 0, 3]


def test_score_is_float32_for_bfloat16_values():
    x = torch.full((2, 3, 64, 64), 1.01, dtype=torch.bfloat16)
    assert L1(x).dtype == torch.float32
    torch.testing.assert_close(L1(x), x[0, :, 0, 0].float())
