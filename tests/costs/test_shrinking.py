"""The report on shrinking: counts by hand, against torch's own counter, and every sentence that it can say."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import qprune
from qprune import zoo
from qprune.costs import report_shrunk, summarize
from qprune.errors import ShrinkError
from qprune.layers import PrunedConv2d, PrunedConvTranspose2d, QuantConv2d
from qprune.shrinking import shrink_with_facts

X = torch.randn(2, 3, 5, 7)


def chain() -> nn.Module:
    """Convolution, norm, rectifier, and a convolution that drops five of eight inputs."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), PrunedConv2d(8, 5, 1), nn.Flatten(),
        nn.Linear(5 * 15, 7),
    )  # fmt: skip
    net[3].input_mask.keep[[0, 2, 3, 5, 7]] = False
    return net


def macs_run(net: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    return counter.get_total_flops() // 2


def test_each_layer_is_counted_before_and_after():
    first, norm, second, linear = qprune.shrink_report(chain(), X).layers
    assert (first.path, first.type) == ("0", "Conv2d")
    assert (first.channels_in, first.channels_in_left, first.channels_out, first.channels_out_left) == (3, 3, 8, 3)
    assert (first.parameters, first.parameters_left) == (8 * 27, 3 * 27)
    assert (first.macs, first.macs_left) == (8 * 27 * 15, 3 * 27 * 15)
    assert (first.packed_bytes, first.packed_bytes_left) == (4 * 8 * 27, 4 * 3 * 27)
    assert (norm.channels_out, norm.channels_out_left, norm.parameters, norm.parameters_left) == (8, 3, 16, 6)
    assert (second.type, second.channels_in_left, second.channels_out_left) == ("Conv2d", 3, 5)
    assert (second.parameters, second.parameters_left) == (45, 20)
    assert (linear.parameters, linear.parameters_left, linear.macs_left) == (532, 532, 525)


def test_totals_are_the_sums_beside_what_the_masks_promise():
    net = chain()
    report, promised = qprune.shrink_report(net, X), summarize(net, X.shape[1:]).total
    for name in ("parameters", "macs", "packed_bytes"):
        for when in (name, f"{name}_left"):
            assert getattr(report.total, when) == sum(getattr(layer, when) for layer in report.layers)
    assert report.total.parameters_kept == report.total.parameters_left == promised.parameters_kept
    assert report.total.macs_kept == report.total.macs_left == promised.macs_kept
    assert report.total.packed_bytes_kept == report.total.packed_bytes_left == promised.packed_bytes
    assert report.total.packed_bytes == 4 * report.total.parameters
    assert report.input_size == (3, 5, 7)
    assert (report.notes, report.held, report.gathers, report.scatters) == ((), (), 0, 0)


def test_packed_bytes_are_at_the_bits_of_the_weights():
    net = nn.Sequential(QuantConv2d(3, 8, 3, weight_bits=4, act_bits=None, bias=False), PrunedConv2d(8, 5, 1))
    net[0].weight_quant.calibrate(net[0].weight)
    net[1].input_mask.keep[2:] = False
    first = qprune.shrink_report(net, X).layers[0]
    assert (first.packed_bytes, first.packed_bytes_left) == (8 * 27 // 2 + 4 * 8, 2 * 27 // 2 + 4 * 2)


class Scattering(nn.Module):
    """Two convolutions summed in the network's own code: one's output must be put among the other's channels."""

    def __init__(self):
        super().__init__()
        self.one, self.two = PrunedConv2d(3, 6, 3, at="weight"), nn.Conv2d(3, 6, 3)
        self.last = nn.Conv2d(6, 4, 1)
        self.one.weight_mask.keep[[1, 4]] = False

    def forward(self, x):
        return self.last(self.one(x) + self.two(x))


class Gathering(nn.Module):
    """Two readers of one tensor that drop other channels of it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3)
        self.up, self.down = PrunedConvTranspose2d(6, 4, 2, at="input"), PrunedConv2d(6, 4, 1)
        self.up.input_mask.keep[[0, 1]] = False
        self.down.input_mask.keep[[2, 3, 4]] = False

    def forward(self, x):
        y = self.first(x)
        return self.up(y), self.down(y)


@pytest.mark.parametrize(
    ("net", "gathers", "scatters"), [(Gathering(), (2, 7), (0, 0)), (Scattering(), (0, 0), (1, 6))], ids=type
)
def test_gathers_and_scatters_are_told_and_change_no_count(net, gathers, scatters):
    small = qprune.shrink(net, X)
    report = qprune.shrink_report(net, X)
    assert (report.gathers, report.gathered_channels) == gathers
    assert (report.scatters, report.scattered_channels) == scatters
    assert report.total.parameters_left == sum(p.numel() for p in small.parameters())
    assert report.total.macs_left == report.total.macs_kept == macs_run(small, X[:1])
    assert summarize(small, (3, 5, 7)).total.macs_kept == macs_run(small, X[:1])
    told = "2 gathers (7 channels)" if gathers[0] else "1 scatter (6 channels)"
    assert f"Where neighbours kept other channels: {told}." in str(report)


@pytest.mark.parametrize("name", ["mobilenetv2", "preactresnet18", "resnet_generator"])
def test_what_is_left_is_what_runs(name):
    sites = [{"types": ["ReLU6" if name == "mobilenetv2" else "ReLU"], "at": "output"}]
    rule = {"sites": sites, "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 1}}
    x = torch.randn(1, 3, 32, 48)
    net = qprune.swap(zoo.create(name, width=0.125), x, prune=[rule])
    for module in net.modules():
        mask = getattr(module, "output_mask", None)
        if mask is not None:
            mask.score.uniform_()
            mask.refresh(0.5)
    shrunk = shrink_with_facts(net.eval(), x)
    report = report_shrunk(net, shrunk, x)
    assert report.total.parameters_left == sum(p.numel() for p in shrunk.net.parameters()) < report.total.parameters
    assert report.total.macs_left == macs_run(shrunk.net, x) < report.total.macs == macs_run(net, x)


def test_a_folded_normalization_is_an_identity_without_parameters():
    report = qprune.shrink_report(chain(), X, fold=True)
    norm = report.layers[1]
    assert (norm.type, norm.channels_out, norm.channels_out_left, norm.parameters_left) == ("Identity", 8, None, 0)
    assert (report.folded, report.unfolded) == (("1",), ())
    assert report.notes == (
        "That is 3 parameters fewer than by the masks alone: normalizations became part of convolutions.",
    )
    assert "Normalizations that are part of a convolution now: 1." in str(report)


def test_a_normalization_that_stays_is_told_with_the_reason():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU())
    report = qprune.shrink_report(net, X, fold=True)
    assert report.folded == ()
    (reason,) = report.unfolded
    assert reason.startswith("2: ")
    assert f"Normalizations that stay:\n  {reason}" in str(report)
    assert qprune.shrink_report(net, X).unfolded == ()


def test_constants_that_became_biases_make_it_smaller_than_the_masks_tell():
    net = nn.Sequential(PrunedConv2d(3, 6, 3, at="weight"), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1))
    net[0].weight_mask.keep[[1, 4]] = False
    nn.init.constant_(net[1].bias, 0.5)  # so that what is dropped before it is 0.5 after it
    report = qprune.shrink_report(net.eval(), X)
    less = 2 * 2 + 2 * 4  # two channels of the norm and of the last convolution
    assert report.total.parameters_kept - report.total.parameters_left == less
    (note,) = report.notes
    assert (
        note
        == f"That is {less} parameters fewer than by the masks alone: channels that hold one constant became biases."
    )
    assert note in str(report)


def test_groups_of_one_size_make_it_larger_than_the_masks_tell():
    net = nn.Sequential(nn.Conv2d(3, 6, 1), PrunedConv2d(6, 8, 1, groups=2))
    net[1].input_mask.keep[[0, 1]] = False
    report = qprune.shrink_report(net, X)
    more = report.total.parameters_left - report.total.parameters_kept
    assert more > 0
    assert report.notes[0].startswith(f"That is {more:,} parameters more than by the masks alone: ")


class Summing(nn.Module):
    """An operation that is not known stands between a convolution and the mask behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 1), PrunedConv2d(6, 4, 1)
        self.second.input_mask.keep[[0, 5]] = False

    def forward(self, x):
        return self.second(self.first(x).cumsum(1))


def test_what_holds_channels_is_told():
    report = qprune.shrink_report(Summing(), X)
    assert report.layers[0].channels_out_left == 6
    (held,) = report.held
    assert "cumsum" in held
    assert f"Held, so that channels around it stay:\n  {held}" in str(report)


def test_masks_that_stay_are_told():
    shared = PrunedConv2d(6, 6, 1)
    shared.input_mask.keep[[0, 5]] = False
    report = qprune.shrink_report(nn.Sequential(nn.Conv2d(3, 6, 1), shared, nn.ReLU(), shared), X)
    assert report.masks_left == ("1.input",)
    assert "Masks that stay:\n  1.input" in str(report)
    assert report.layers[1].parameters_left == 42


def test_a_network_that_was_shrunk_before_is_said_to_be():
    small = qprune.shrink(chain(), X)
    report = qprune.shrink_report(small, X)
    assert report.total.parameters == report.total.parameters_left == sum(p.numel() for p in small.parameters())
    assert report.notes == ("The network was shrunk before; what is listed as before is what that left.",)


def test_several_inputs_are_given_as_a_tuple():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(2, 4, 1)

        def forward(self, x, y):
            return self.one(x) + self.two(y)

    report = qprune.shrink_report(Two(), (X, torch.randn(2, 2, 5, 7)))
    assert report.total.macs == 35 * (12 + 8)
    assert report.input_size == (3, 5, 7)


def test_of_a_network_that_trains_more_only_the_deployed_part_counts():
    net = zoo.create("pix2pix", width=0.0625, width_discriminator=0.0625)
    x = torch.randn(1, 3, 256, 256)
    report = qprune.shrink_report(net, x)
    assert report.total.parameters == sum(p.numel() for p in zoo.deployed(net).parameters())


def test_the_network_is_not_touched():
    net = chain()
    before = copy.deepcopy(net.state_dict())
    qprune.shrink_report(net, X, fold=True)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_whole_report_prints_and_is_ready_for_json():
    report = qprune.shrink_report(chain(), X)
    lines = str(report).splitlines()
    assert lines[0].split() == ["layer", "type", "in", "out", "parameters", "MACs", "left", "packed", "left"]
    assert lines[2].split() == ["0", "Conv2d", "3", "3/8", "81/216", "3.24", "k", "1.215", "k", "864", "B", "324", "B"]
    assert lines[3].split() == ["1", "BatchNorm2d", "3/8", "3/8", "6/16", "64", "B", "24", "B"]
    assert lines[7].split()[:2] == ["total", "639/809"]
    assert lines[9:] == [
        "Parameters: 809 before, 639 by the masks, 639 left (79.0 %).",
        "MACs for one image of 3x5x7: 4.365 k before, 1.965 k by the masks, 1.965 k left (45.0 %).",
        "Packed weights: 3.236 kB before, 2.556 kB by the masks, 2.556 kB left (79.0 %).",
    ]
    table = json.loads(json.dumps(report.to_dict()))
    assert table["layers"][0]["channels_out_left"] == 3
    assert table["total"]["parameters_left"] == 639


def test_a_network_that_cannot_be_followed_is_refused():
    with pytest.raises(ShrinkError, match="could not be followed"):
        qprune.shrink_report(nn.Conv2d(3, 4, 1), torch.zeros(1, 2, 5, 7))
