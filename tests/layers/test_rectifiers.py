"""ReLU and ReLU6 mask while they rectify; nobody may see a difference."""

import pytest
import torch
from torch import nn

from qprune.layers import CompressedReLU, CompressedReLU6

HOSTS = [(CompressedReLU, nn.ReLU), (CompressedReLU6, nn.ReLU6)]


def made(host, *, inplace=False, masked=True, quantized=False, known=None):
    layer = host(inplace)
    if masked:
        layer.add_mask("output", channels=3).keep[1] = False
    if quantized:
        layer.add_quant("output", 4).calibrate(torch.tensor([0.0, 6.0])).told_active = known
    return layer


def run(layer, x):
    x = x.clone().requires_grad_()
    y = layer(x * 1)
    y.backward(torch.arange(y.numel()).view_as(y).float())
    return y.detach(), x.grad


@pytest.mark.parametrize(("host", "plain"), HOSTS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("known", [None, True])  # True is the driver's word, on which values are overwritten
def test_masking_at_once_equals_masking_afterwards(host, plain, masked, quantized, known):
    x = torch.randn(2, 3, 5, 7) * 4
    fused = made(host, masked=masked, quantized=quantized, known=known)
    apart = made(host, inplace=True, masked=masked, quantized=quantized)
    for a, b in zip(run(fused, x), run(apart, x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("host", "plain"), HOSTS)
def test_mask_that_measures_sees_the_values_of_dropped_channels(host, plain):
    layer, x = made(host), torch.randn(2, 3, 5, 7) * 4
    layer.output_mask.measuring = True
    y = layer(x)
    layer.output_mask.commit()
    torch.testing.assert_close(layer.output_mask.score, plain()(x).mean((0, 2, 3)))
    assert (y[:, 1] == 0).all()


@pytest.mark.parametrize(("host", "plain"), HOSTS)
def test_range_is_measured_behind_the_mask(host, plain):
    layer, x = made(host), torch.rand(2, 3, 5, 7)
    x[:, 1] = 5
    layer.add_quant("output", 4).measuring = True
    layer(x)
    layer.output_quant.commit()
    assert layer.output_quant.range.tolist() == [0, x[:, [0, 2]].max().item()]


@pytest.mark.parametrize(("host", "plain"), HOSTS)
def test_dropped_channel_of_infinities_is_zero_and_gets_no_gradient(host, plain):
    x = torch.randn(2, 3, 5, 7)
    x[:, 1] = torch.tensor([torch.nan, torch.inf]).view(2, 1, 1)
    for a in run(made(host, quantized=True, known=True), x):
        assert (a[:, 1] == 0).all()


@pytest.mark.parametrize(("host", "plain"), HOSTS)
def test_layer_that_overwrites_its_input_still_does(host, plain):
    x = torch.randn(2, 3, 5)
    expected = plain()(x)
    made(host, inplace=True)(x)
    assert torch.equal(x, expected)
