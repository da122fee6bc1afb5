from typing import Any, Literal

import pytest
import torch
from torch import nn

import qprune.layers
from qprune.declared.layer_types import arguments, describe, find_type, fits, inputs_of, layer_types


def test_every_layer_class_tells_its_arguments_and_inputs():
    for cls in layer_types().values():
        assert not {"self", "args", "kwargs", "device", "dtype"} & set(arguments(cls))
        assert inputs_of(cls)[0] >= 0


def test_compressed_layers_are_found_beside_those_of_torch():
    assert find_type("Conv2d") is nn.Conv2d
    assert find_type("PrunedConv2d") is qprune.layers.PrunedConv2d


def test_lazy_layers_are_no_layers():
    with pytest.raises(ValueError, match='unknown layer type "LazyConv2d"; nearest: '):
        find_type("LazyConv2d")


def test_a_compressed_layer_takes_its_own_arguments_and_those_of_torch():
    assert {"schedule", "at", "importance", "padding"} <= set(arguments(qprune.layers.PrunedConv2d))


def test_as_many_inputs_as_forward_takes():
    assert inputs_of(nn.Bilinear) == (2, 2)
    assert inputs_of(nn.ConvTranspose2d) == (1, 2)
    assert inputs_of(qprune.layers.CompressedReLU) == (1, 1)
    assert inputs_of(qprune.layers.CompressedAdd) == (2, float("inf"))


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, float, True),
        (3.5, int, False),
        (False, float, False),
        (None, int | None, True),
        ([1, 2], tuple[int, ...], True),
        ([1, "2"], tuple[int, ...], False),
        ([1, 2], list[int], True),
        ([1, 2, 3], tuple[int, int], False),
        ("zeros", Literal["zeros", "reflect"], True),
        ("zero", Literal["zeros", "reflect"], False),
        ("anything", Any, True),
        ("float32", torch.dtype, False),
    ],
)
def test_fits(value, hint, expected):
    assert fits(value, hint) is expected


def test_types_in_words():
    assert describe(int | tuple[int, ...] | None) == "a whole number or a list"
    assert describe(Literal["a", "b"]) == 'one of "a", "b"'
    assert describe(float | tuple[float, float]) == "a number or a list of 2"
