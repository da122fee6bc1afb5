import copy
import json

import pytest
import torch
from torch import nn

from qprune import zoo
from qprune.costs import performance_density, performance_density_legacy, summarize
from qprune.errors import PlanError
from qprune.layers import CompressedConv2d, PrunedConv2d, PrunedQuantConv2d, QuantConv2d, QuantLinear
from qprune.zoo import Add, Concat


def quantized(activate) -> nn.Module:
    """Convolution, norm, rectifier, twice: 4-bit weights, 4-bit convolution inputs but for the image."""
    net = nn.Sequential(
        QuantConv2d(3, 8, 3, weight_bits=4, act_bits=None), nn.BatchNorm2d(8), nn.ReLU(),
        QuantConv2d(8, 5, 1, weight_bits=4, act_bits=4, per="tensor", bias=False), nn.Flatten(),
        QuantLinear(5 * 15, 7, weight_bits=8, act_bits=8),
    )  # fmt: skip
    activate(net)
    return net


def test_bits_bytes_and_bit_operations_follow_the_quantizers(activate):
    first, norm, second, linear = summarize(quantized(activate), (3, 5, 7)).layers
    assert (first.weight_bits, first.activation_bits, first.reads_image) == (4, 32, True)
    assert (second.weight_bits, second.activation_bits, second.reads_image) == (4, 4, False)
    assert first.bit_operations == 8 * 27 * 15 * 4 * 32
    assert second.bit_operations == 40 * 15 * 4 * 4
    assert first.packed_bytes == 8 * 27 // 2 + 8 * 4 + 8 * 4  # weights, biases, scales
    assert second.packed_bytes == 20 + 4
    assert linear.packed_bytes == 75 * 7 + 7 * 4 + 7 * 4
    assert norm.packed_bytes == 16 * 4
    # the first output is written at 4 bits, behind norm and rectifier; the second at 8; the last leaves as float
    assert [row.feature_bytes for row in (first, norm, second, linear)] == [8 * 15 // 2, 0, 5 * 15, 7 * 4]


def test_the_totals_are_the_sums_and_name_each_bit_width(activate):
    summary = summarize(quantized(activate), (3, 5, 7))
    total = summary.total
    for name in (
        "parameters",
        "parameters_kept",
        "macs",
        "macs_kept",
        "bit_operations",
        "packed_bytes",
        "feature_bytes",
    ):
        assert getattr(total, name) == sum(getattr(row, name) for row in summary.layers)
    assert (total.weight_bits, total.activation_bits) == ((4, 8), (4, 8))
    assert total.megabytes == (total.packed_bytes + total.feature_bytes) / 1e6
    assert total.features_with_norms == total.features + 8 * 15


def test_quantizers_that_do_not_act_yet_count_as_float_and_are_named():
    summary = summarize(nn.Sequential(QuantConv2d(3, 4, 1, weight_bits=4, act_bits=8)), (3, 5, 7))
    assert summary.layers[0].weight_bits == summary.layers[0].activation_bits == 32
    assert summary.notes == ("2 quantizers do not quantize yet and count as float (0.input is the first).",)
    assert summary.notes[0] in str(summary)


def test_a_quantized_tensor_stays_quantized_up_to_its_reader(activate, compressible):
    net = compressible(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.ZeroPad2d(1), nn.Conv2d(4, 5, 1),
                      nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(5, 6, 1))
    )  # fmt: skip
    net[1].add_quant("output", 3)
    net[5].add_quant("output", 5)
    activate(net)
    rows = summarize(net, (3, 6, 10)).layers
    assert [row.activation_bits for row in rows] == [32, 3, 32]  # an average of 5-bit values has more than 5 bits
    assert rows[0].feature_bytes == 4 * 60 * 3 // 8


def test_a_concatenation_has_the_bits_of_its_widest_part_and_a_sum_is_float(activate, compressible):
    class Joins(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.ReLU(), nn.ReLU(), nn.ReLU()
            self.concat, self.add = Concat(), Add()
            self.joined, self.summed = nn.Conv2d(6, 4, 1), nn.Conv2d(3, 5, 1)

        def forward(self, x):
            a, b = self.a(x), self.b(-x)
            return self.joined(self.concat(a, b)).sum() + self.summed(self.add(a, b)).sum()

    net = compressible(Joins())
    net.a.add_quant("output", 4)
    net.b.add_quant("output", 8)
    activate(net)
    assert [row.activation_bits for row in summarize(net, (3, 5, 7)).layers] == [8, 32]


def test_an_asymmetric_weight_quantizer_stores_a_zero_point_per_scale(activate):
    layer = CompressedConv2d(3, 4, 1, bias=False)
    layer.add_quant("weight", 8, per="channel", symmetric=False)
    activate(layer)
    assert summarize(layer, (3, 5, 7)).total.packed_bytes == 12 + 4 * 5


def test_masks_and_quantizers_together(activate):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), PrunedQuantConv2d(8, 5, 3, weight_bits=4, act_bits=4, bias=False))
    activate(net)
    net[1].input_mask.keep[2:] = False
    row = summarize(net, (3, 5, 7)).layers[1]
    assert (row.parameters_kept, row.packed_bytes) == (2 * 5 * 9, 45 + 5 * 4)
    assert row.bit_operations == 2 * 5 * 9 * 15 * 16
    assert summarize(net, (3, 5, 7)).total.sparsity == 6 / 8


def test_the_network_is_left_as_it_was():
    net = nn.Sequential(PrunedQuantConv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.3), nn.ReLU(inplace=True))
    net[1].eval()
    net[0].input_mask.measuring = True
    net[0].weight.grad = torch.ones_like(net[0].weight)
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    attributes, rng = [set(vars(module)) for module in net.modules()], torch.get_rng_state()
    summarize(net, (3, 5, 7))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert [set(vars(module)) for module in net.modules()] == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(p.device.type == "cpu" and p.requires_grad for p in net.parameters())
    assert net[0].weight.grad is not None
    assert int(net[0].input_mask.pending_count) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_costs_the_same():
    net = PrunedConv2d(6, 4, 3)
    net.input_mask.keep[2:] = False
    assert summarize(copy.deepcopy(net).cuda(), (6, 5, 7)) == summarize(net, (6, 5, 7))


def test_another_dtype_costs_the_same():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert summarize(copy.deepcopy(net).bfloat16(), (3, 5, 7)) == summarize(net, (3, 5, 7))


def test_an_image_that_does_not_fit_is_named():
    with pytest.raises(PlanError, match=r"could not be followed on an example of shape \(1, 4, 5, 7\)"):
        summarize(nn.Conv2d(3, 4, 3), (4, 5, 7))


def test_the_dict_is_plain_data(activate):
    summary = summarize(quantized(activate), (3, 5, 7), metric=0.5)
    data = summary.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["input_size"] == [3, 5, 7]
    assert data["layers"][0]["output_shape"] == [1, 8, 3, 5]
    assert data["total"]["weight_bits"] == [4, 8]
    assert data["total"]["performance_density"] == summary.total.performance_density


def test_a_metric_gives_both_densities(activate):
    total = summarize(quantized(activate), (3, 5, 7), metric=0.5).total
    assert total.performance_density == performance_density(0.5, total.megabytes)
    assert total.performance_density_legacy == performance_density_legacy(
        0.5, weights=total.parameters, features=total.features_with_norms, weight_bits=4, feature_bits=4
    )
    assert summarize(quantized(activate), (3, 5, 7)).total.performance_density is None


def test_a_network_without_memory_has_no_density():
    assert summarize(nn.ReLU(), (3, 5, 7), metric=0.5).total.performance_density is None


def test_printed_it_is_a_table_with_totals():
    net = nn.Sequential(PrunedConv2d(8, 6, 3), nn.BatchNorm2d(6))
    net[0].input_mask.keep[2:] = False
    text = str(summarize(net, (8, 5, 7), metric=0.25))
    lines = text.splitlines()
    assert lines[0].split()[:6] == ["layer", "type", "output", "in", "out", "parameters"]
    assert lines[2].split()[:6] == ["0", "PrunedConv2d", "6x3x5", "2/8", "6", "114/438"]
    assert lines[5].split()[:2] == ["total", "126/450"]
    assert "Parameters kept: 126 of 450 (28.0 %)." in lines
    assert "MACs for one image of 8x5x7: 1.62 k by the masks, 6.48 k dense." in lines
    assert any(line.startswith("Performance density: ") and "per MB" in line for line in lines)
    assert all(line == line.rstrip() and len(line) < 130 for line in lines)


def test_what_only_teaches_costs_nothing_afterwards():
    net = zoo.create("cyclegan", width=0.07)
    alone = summarize(net.generator_ab, (3, 8, 12))
    assert summarize(net.train(), (3, 8, 12)).total == alone.total == summarize(net.eval(), (3, 8, 12)).total
