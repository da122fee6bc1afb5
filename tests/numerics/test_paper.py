import pytest
import torch

from qprune.layers import FakeQuant
from qprune.rounding import fake_quantize

X = torch.tensor([-1, -0.6, -0.1, 0, 0.05, 0.3, 0.9, 1, 1.7])
LOW, HIGH = -0.95, 1.05
TRAIN = {
    2: [-0.95, -0.45, 0.05, 0.05, 0.05, 0.05, 0.55, 0.55, 0.55],
    4: [-0.95, -0.575, -0.075, 0.05, 0.05, 0.3, 0.925, 0.925, 0.925],
}
EVAL = {2: [-1, -0.5, 0, 0, 0, 0.5, 0.5, 0.5, 0.5], 4: [-1, -0.625, -0.125, 0, 0, 0.25, 0.875, 0.875, 0.875]}


@pytest.mark.parametrize("n_bits", [2, 4])
def test_published_activation_vector_in_training(n_bits):
    step = torch.tensor((HIGH - LOW) / 2**n_bits)
    y = fake_quantize(X - LOW, step, torch.tensor(0), 0, 2**n_bits - 1) + LOW
    torch.testing.assert_close(y, torch.tensor(TRAIN[n_bits]))


@pytest.mark.parametrize("n_bits", [2, 4])
def test_paper_quantizer_gives_the_published_activation_vectors(n_bits):
    quant = FakeQuant(n_bits, numerics="paper").calibrate(torch.tensor([LOW, HIGH]))
    torch.testing.assert_close(quant.train()(X), torch.tensor(TRAIN[n_bits]))
    torch.testing.assert_close(quant.eval()(X), torch.tensor(EVAL[n_bits], dtype=torch.float32))


def test_paper_gradient_is_straight_outside_the_range_too():
    quant = FakeQuant(2, numerics="paper").calibrate(torch.tensor([LOW, HIGH]))
    for mode in (True, False):
        x = X.clone().requires_grad_()
        quant.train(mode)(x).sum().backward()
        assert torch.equal(x.grad, torch.ones_like(x))


def test_paper_weights_have_the_published_scale_and_clamp_at_7():
    weight = torch.tensor([[0.5, -0.25, -0.5], [2.0, 1.0, 0.0]])
    quant = FakeQuant(4, channels=2, axis=0, symmetric=True, numerics="paper").calibrate(weight)
    assert quant.scale.tolist() == [0.5 / 8, 2 / 8]
    assert quant.codes(weight).tolist() == [[7, -4, -8], [7, 4, 0]]
    assert torch.equal(quant(weight), torch.tensor([[7, -4, -8], [7, 4, 0]]) * quant.scale[:, None])


def test_paper_step_of_a_constant_tensor_is_1e_minus_4():
    quant = FakeQuant(4, numerics="paper").calibrate(torch.full((3,), 0.25))
    assert quant.scale == pytest.approx(1e-4)
    assert quant.train()(torch.full((3,), 0.25)).tolist() == [0.25] * 3
