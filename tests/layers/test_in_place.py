import pytest
import torch
from torch import nn

from qprune.layers import Align, ChannelMask, CompressedReLU, FakeQuant, PrunedConv2d, in_place_of


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_layer_is_in_the_dtype_of_the_one_it_replaces(dtype):
    old = nn.BatchNorm2d(3).to(dtype)
    assert in_place_of(old, nn.Conv2d(3, 3, 1)).bias.dtype == dtype
    assert in_place_of(nn.InstanceNorm2d(3), nn.Conv2d(3, 3, 1), nn.Sequential(old)).weight.dtype == dtype


def test_a_layer_is_on_the_device_of_the_one_it_replaces():
    old = nn.BatchNorm2d(3, affine=False).to("meta")  # buffers alone
    assert in_place_of(old, nn.Conv2d(3, 3, 1)).weight.is_meta
    relu = in_place_of(nn.ReLU(), Align([1, -1], [0.0, 2.0]), nn.Sequential(old))
    assert all(buffer.is_meta for buffer in relu.buffers())


def test_the_layer_itself_is_asked_before_its_network():
    net = nn.Sequential(nn.Linear(2, 3).to("meta", torch.float64), nn.Conv2d(3, 4, 1).to(torch.bfloat16))
    new = in_place_of(net[1], nn.Conv2d(3, 5, 1), net)
    assert (new.weight.device.type, new.weight.dtype) == ("cpu", torch.bfloat16)


def test_masks_and_quantizers_tell_a_device_but_no_dtype():
    old = CompressedReLU()
    old.add_mask("output", channels=3)
    old.to("meta")
    gate = in_place_of(old, nn.Conv2d(3, 3, 1), nn.Linear(2, 2).double())
    assert (gate.weight.device.type, gate.weight.dtype) == ("meta", torch.float64)


def test_masks_and_quantizers_keep_their_dtypes():
    old = PrunedConv2d(3, 4, 1).double()
    assert in_place_of(old, FakeQuant(4, channels=4)).scale.dtype == torch.float32
    mask = in_place_of(old, ChannelMask(4))
    assert (mask.keep.dtype, mask.score.dtype) == (torch.bool, torch.float32)


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_with_all_of_its_parts_is_in_the_mode_of_the_one_it_replaces(training):
    new = in_place_of(nn.BatchNorm2d(3).train(training), nn.Sequential(nn.Dropout(), nn.Sequential(nn.ReLU())))
    assert {module.training for module in new.modules()} == {training}


def test_a_layer_trains_if_the_one_it_replaces_did():
    def trains(old):
        return [parameter.requires_grad for parameter in in_place_of(old, nn.Conv2d(3, 3, 1)).parameters()]

    assert trains(nn.BatchNorm2d(3)) == [True, True]
    assert trains(nn.BatchNorm2d(3).requires_grad_(False)) == [False, False]
    assert trains(nn.AvgPool2d(2)) == [False, False]


def test_a_layer_without_tensors_in_a_network_without_any_stays_where_it_is():
    assert in_place_of(nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Sequential(nn.ReLU())).weight.dtype == torch.float32
