import copy

import torch
from counting import Operations
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from qprune.layers import PrunedQuantConv2d
from qprune.training import make_average


def net(blocks=2):
    """With parameters and buffers of several dtypes, and one weight in two places."""
    made = nn.Sequential()
    for number in range(blocks):
        conv = PrunedQuantConv2d(3, 3, 1, weight_bits=4, act_bits=4, at="output")
        made.append(
            nn.Sequential(conv, nn.BatchNorm2d(3), nn.ReLU(), nn.Linear(7, 7).double() if not number else nn.ReLU())
        )
    made.append(nn.Identity())
    made[-1].shared = made[0][0].weight
    return made


def change(part):
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(torch.randn_like(parameter))
        for buffer in part.buffers():
            buffer.copy_(torch.rand(buffer.shape) > 0.5)


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def torch_average(net, decay):
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)


def test_the_average_is_that_of_torch_to_the_bit():
    trained = net()
    average, expected = make_average(trained, 0.9), torch_average(trained, 0.9)
    for _ in range(4):
        change(trained)
        average.update_parameters(trained)
        expected.update_parameters(trained)
        assert same(average, expected)


def test_it_is_a_handful_of_operations_however_large_the_network_is():
    trained = net(blocks=40)
    average, theirs = make_average(trained, 0.9), torch_average(trained, 0.9)
    counts = []
    for one in (average, theirs):
        one.update_parameters(trained)
        with Operations() as operations:
            one.update_parameters(trained)
        counts.append(operations.total)
    assert counts[0] <= 10
    assert counts[1] > 500


def test_tensors_that_others_take_the_place_of_are_found():
    trained = net()
    average, expected = make_average(trained, 0.9), torch_average(trained, 0.9)
    for action in (
        lambda part: setattr(part[0][1], "running_mean", torch.full((3,), 5.0)),
        lambda part: setattr(part[0][0].output_mask, "keep", torch.tensor([True, False, True])),
        lambda part: part[1].__setitem__(1, nn.BatchNorm2d(3)),
        lambda part: setattr(part[0][1].weight, "data", torch.full((3,), -2.0)),
        lambda part: setattr(part[0][1], "bias", nn.Parameter(torch.full((3,), 9.0))),
    ):
        for part in (trained, average.module, expected.module):
            action(part)
        change(trained)
        for one in (average, expected):
            one.update_parameters(trained)
            one.update_parameters(trained)
        assert same(average, expected)


def test_a_copy_averages_for_itself():
    trained = net()
    average = make_average(trained, 0.5)
    average.update_parameters(trained)
    copied, before = copy.deepcopy(average), copy.deepcopy(average)
    change(trained)
    copied.update_parameters(trained)
    assert same(average, before)
    assert not same(copied, before)
