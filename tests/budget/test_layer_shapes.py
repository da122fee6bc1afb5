"""Shapes of layers, and the grid on which they are measured."""

import pytest
import torch
from torch import nn

from qprune.budget.layer_shapes import LayerShape, shape_of
from qprune.flow import trace


def shape(layer: nn.Module, *size: int) -> LayerShape:
    net = nn.Sequential(nn.Identity(), nn.ReLU(), layer)
    return shape_of(layer, next(call for call in trace(net, torch.zeros(1, *size)).calls if call.path == "2"))


LAYERS = [
    (nn.Conv2d(6, 10, (3, 5), stride=2, padding=1, dilation=2), (6, 17, 23)),
    (nn.Conv2d(6, 10, 3, padding="same", padding_mode="reflect"), (6, 17, 23)),
    (nn.Conv2d(6, 12, 3, groups=6), (6, 17, 23)),
    (nn.Conv2d(6, 12, 3, groups=3), (6, 17, 23)),
    (nn.ConvTranspose2d(6, 10, 3, stride=2, padding=1, output_padding=1), (6, 17, 23)),
    (nn.Linear(6, 10), (6,)),
    (nn.Linear(6, 10), (7, 6)),
]


@pytest.mark.parametrize(("layer", "size"), LAYERS, ids=str)
def test_a_layer_made_of_a_shape_is_such_a_layer(layer, size):
    found = shape(layer, *size)
    axis = -1 if isinstance(layer, nn.Linear) else 1
    given, result = torch.zeros(1, *size), layer(torch.zeros(1, *size))
    made = found.layer((given.shape[axis], result.shape[axis]))
    assert str(made) == str(layer)
    assert found.input(given.shape[axis]) == given.shape


def test_shapes_of_different_layers_have_different_names():
    names = {str(shape(layer, *size).of(numbers)) for layer, size in LAYERS for numbers in ("real", "integer", "sums")}
    assert len(names) == 3 * len(LAYERS) - 2  # a linear layer of several tokens has no integers


def test_what_has_no_integer_kernels_computes_with_real_numbers():
    layers = [nn.ConvTranspose2d(6, 6, 3, groups=2), nn.ConvTranspose2d(6, 6, 3, dilation=2),
              nn.ConvTranspose2d(6, 6, 3, stride=(1, 2))]  # fmt: skip
    assert {shape(layer, 6, 17, 23).of("integer").numbers for layer in layers} == {"real"}
    assert shape(nn.ConvTranspose2d(6, 6, 3, stride=2), 6, 17, 23).of("integer").numbers == "integer"


def test_the_channels_of_images_stay():
    net = nn.Conv2d(3, 16, 3)
    found = shape_of(net, trace(net, torch.zeros(1, 3, 9, 11)).calls[0])
    assert found.grid((3, 16), least=0.5) == [(3, 8), (3, 16)]


def test_counts_of_groups_are_multiples_of_them():
    found = shape(nn.Conv2d(6, 12, 3, groups=3), 6, 17, 23)
    assert found.corners(30, 24) == ((24, 48), (24,))


def test_the_grid_covers_what_layers_may_keep():
    assert LayerShape("Linear", size=()).grid((32, 8), least=0.5) == [(count, out) for count in (16, 24, 32)
                                                                      for out in (1, 8)]  # fmt: skip
