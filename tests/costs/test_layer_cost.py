import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qprune.costs import summarize
from qprune.flow import trace
from qprune.layers import ChannelMask, CompressedConv2d, CompressedLinear, QuantConv2d
from qprune.zoo import Add, Concat, create


def counted(net: nn.Module, *size: int) -> float:
    """MACs by torch's own counter."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(torch.zeros(1, *size))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs", "features", "with_norms"),
    [
        ("densenet121", 7_048_548, 0.8884, 2_056_292, 6_910_052),
        ("mobilenetv2", 2_369_380, 0.0649, 881_812, 1_763_524),
        ("preactresnet18", 11_222_244, 0.5555, 614_500, 1_228_900),
    ],
)
def test_dense_networks_cost_what_is_known_of_them(name, parameters, gmacs, features, with_norms):
    net = create(name)
    total = summarize(net).total
    assert total.macs == total.macs_kept == counted(net, 3, 32, 32)
    assert round(total.macs / 1e9, 4) == pytest.approx(gmacs, abs=1e-4)
    assert total.parameters == total.parameters_kept == parameters
    assert (total.features, total.features_with_norms) == (features, with_norms)
    assert total.features_kept == features
    assert (total.packed_bytes, total.feature_bytes) == (4 * parameters, 4 * features)
    assert total.bit_operations == total.macs * 32 * 32
    assert (total.weight_bits, total.activation_bits, total.sparsity) == ((32,), (32,), 0.0)


LAYERS = {
    "plain": nn.Conv2d(6, 4, 3),
    "strided": nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=1),
    "grouped": nn.Conv2d(6, 9, 3, groups=3),
    "depthwise": nn.Conv2d(6, 12, 3, groups=6, padding=1),
    "dilated": nn.Conv2d(6, 4, 3, dilation=2, padding=2),
    "reflecting": nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"),
    "transposed": nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1),
    "compressed": CompressedConv2d(6, 4, 3, groups=2, bias=False),
    "quantized": QuantConv2d(6, 4, 3),
    "linear": nn.Linear(11, 5),
    "flattened": nn.Sequential(nn.Flatten(), nn.Linear(6 * 9 * 11, 5)),
    "twice": nn.Sequential(*[nn.Conv2d(6, 6, 3)] * 2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_macs_are_half_of_what_the_flop_counter_counts(name):
    total = summarize(LAYERS[name], (6, 9, 11)).total
    assert total.macs == total.macs_kept == counted(LAYERS[name], 6, 9, 11)


def test_a_grouped_transposed_convolution_uses_each_weight_at_each_input_position():
    layer = nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2)
    assert summarize(layer, (6, 5, 7)).total.macs == layer.weight.numel() * 5 * 7


def test_one_dimensional_convolutions_count_too():
    assert summarize(nn.Conv1d(6, 4, 3), (6, 9)).total.macs == 6 * 4 * 3 * 7


def test_an_input_mask_relieves_the_consumer_and_the_producer(drop):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), CompressedConv2d(8, 5, 1, bias=False))
    drop(net[3], "input", 1, 4, 6)
    first, norm, last = summarize(net, (3, 6, 9)).layers
    assert (first.channels_in_kept, first.channels_out_kept, last.channels_in_kept) == (3, 5, 5)
    assert (first.parameters_kept, norm.parameters_kept, last.parameters_kept) == (5 * 27 + 5, 2 * 5, 25)
    assert (first.macs, first.macs_kept) == (8 * 27 * 28, 5 * 27 * 28)
    assert (last.macs, last.macs_kept) == (40 * 28, 25 * 28)
    assert first.features_kept == 5 * 28


def test_between_two_half_pruned_tensors_a_quarter_of_the_weights_is_kept(drop):
    net = nn.Sequential(CompressedConv2d(4, 6, 3, bias=False), nn.ReLU(), CompressedConv2d(6, 2, 1, bias=False))
    drop(net[0], "input", 0, 3)
    drop(net[2], "input", 0, 2, 4)
    assert summarize(net, (4, 5, 7)).layers[0].parameters_kept == 4 * 6 * 9 / 4


def test_a_mask_where_the_tensor_is_made_counts_like_one_where_it_is_read(drop, compressible):
    def net():
        return compressible(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 5, 1)))

    made, read = net(), net()
    drop(made[1], "output", 1, 4, count=8)
    drop(read[3], "input", 1, 4)
    assert summarize(made, (3, 6, 9)).total == summarize(read, (3, 6, 9)).total


def test_a_channel_is_kept_if_any_reader_wants_it(drop):
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.left, self.right = nn.Conv2d(3, 8, 1), CompressedConv2d(8, 5, 1), CompressedConv2d(8, 5, 1)
            self.add = Add()

        def forward(self, x):
            x = self.stem(x)
            return self.add(self.left(x), self.right(x))

    net = Fork()
    drop(net.left, "input", 0, 1, 2)
    drop(net.right, "input", 2, 3, 4)
    rows = {row.path: row for row in summarize(net, (3, 5, 7)).layers}
    assert (rows["stem"].channels_out_kept, rows["left"].channels_in_kept) == (7, 5)


def test_a_weight_mask_drops_rows_and_bias_and_a_norm_makes_them_constants(drop):
    net = nn.Sequential(CompressedConv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 1))
    drop(net[0], "weight", 2, 5)
    first, norm, last = summarize(net, (3, 6, 9)).layers
    assert first.parameters_kept == 6 * 27 + 6
    assert (norm.parameters_kept, last.channels_in_kept) == (16, 8)


def test_a_tied_norm_carries_the_weight_mask_on(drop, compressible):
    net = compressible(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 1)))
    drop(net[0], "weight", 2, 5)
    net[1].output_mask = ChannelMask(8, importance="tied", tied=(("0.weight", 0),))
    net[1].output_mask.keep[[2, 5]] = False
    summary = summarize(net, (3, 6, 9))
    assert [row.channels_out_kept for row in summary.layers] == [6, 6, 5]
    assert summary.layers[2].channels_in_kept == 6
    assert summary.total.sparsity == 2 / 8


def test_masks_reach_through_flattening(drop):
    net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), CompressedLinear(4 * 6, 5))
    drop(net[3], "input", *range(6), 7)
    first, last = summarize(net, (3, 3, 4)).layers
    assert first.channels_out_kept == 3
    assert (last.channels_in_kept, last.parameters_kept) == (17, 17 * 5 + 5)


def test_masks_reach_through_tensor_functions(drop):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = CompressedConv2d(3, 4, 1), CompressedConv2d(3, 4, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            left, right = self.left(x), self.right(x)
            return self.head(torch.cat([torch.relu(left + right), left], 1).mean((2, 3)))

    net = Functional()
    drop(net.left, "output", 0, 1)
    drop(net.right, "output", 0)
    rows = {row.path: row for row in summarize(net, (3, 5, 7)).layers}
    assert rows["head"].channels_in_kept == 3 + 2
    assert (rows["left"].channels_out_kept, rows["right"].channels_out_kept) == (2, 3)


def test_what_an_unknown_function_reads_is_kept(drop):
    class Summing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = CompressedConv2d(3, 4, 1), CompressedConv2d(4, 5, 1)

        def forward(self, x):
            return self.last(self.first(x).cumsum(1))

    net = Summing()
    drop(net.first, "output", 0)
    drop(net.last, "input", 1, 2)
    first, last = summarize(net, (3, 5, 7)).layers
    assert (first.channels_out_kept, last.channels_in_kept) == (3, 2)


def test_what_is_written_into_a_slice_is_kept(drop):
    class Canvas(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)

        def forward(self, x):
            canvas = torch.relu(self.first(x))
            canvas[:, :2] = self.first(x)[:, :2]
            return self.last(canvas)

    assert summarize(Canvas(), (3, 5, 7)).layers[0].channels_out_kept == 4


def half_masked(name: str, place: str, compressible) -> nn.Module:
    """A thin zoo network with half of the channels dropped at every input, weight or activation."""
    net = create(name, classes=7, width=0.1).double().eval()
    for path, module in list(net.named_modules()):
        if isinstance(module, nn.ReLU | nn.ReLU6):
            net.set_submodule(path, nn.LeakyReLU())  # it is never flat, so that a zero gradient means a dropped channel
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, 1, 2)
            nn.init.uniform_(module.running_mean, 1, 2)
    flow = trace(compressible(net), torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    hosts = (nn.LeakyReLU,) if place == "output" else (nn.Conv2d,)
    for call in flow.calls:
        if isinstance(call.layer, hosts) and call.layer is not getattr(net, "stem", None):
            channels = call.shapes[0][1] if place == "input" else call.shape[1]
            mask = call.layer.add_mask(place, channels=channels)
            mask.keep.copy_(torch.randperm(channels) >= channels // 2)
    return net


@pytest.mark.parametrize("place", ["input", "weight", "output"])
@pytest.mark.parametrize("name", ["densenet121", "mobilenetv2", "preactresnet18"])
def test_kept_parameters_are_those_with_a_gradient(name, place, compressible):
    net = half_masked(name, place, compressible)
    (net(torch.randn(5, 3, 32, 32, dtype=torch.float64)) ** 3).sum().backward()
    summary = summarize(net)
    for row in summary.layers:
        used = [int((p.grad != 0).sum()) for p in net.get_submodule(row.path).parameters()]
        assert row.parameters_kept == sum(used), row.path
    assert summary.total.parameters_kept < summary.total.parameters


def test_concatenation_is_split_by_offset(drop):
    class Join(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
            self.concat, self.head = Concat(), CompressedConv2d(10, 5, 1)

        def forward(self, x):
            return self.head(self.concat(self.a(x), self.b(x)))

    net = Join()
    drop(net.head, "input", 3, 4, 5)
    rows = {row.path: row for row in summarize(net, (3, 5, 7)).layers}
    assert (rows["a"].channels_out_kept, rows["b"].channels_out_kept) == (3, 4)


def test_shared_parameters_count_once():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    net[1].weight = net[0].weight
    summary = summarize(net, (3, 5, 7))
    assert summary.total.parameters == sum(p.numel() for p in net.parameters()) == 9 + 3 + 3
    assert [row.parameters for row in summary.layers] == [12, 3]


def test_other_layers_with_parameters_have_a_row():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain, self.act = nn.Parameter(torch.ones(4)), nn.PReLU(3)

        def forward(self, x):
            return self.act(x) * self.gain.sum()

    summary = summarize(Scaled(), (3, 5, 7))
    assert [(row.path, row.parameters_kept, row.packed_bytes) for row in summary.layers] == [
        ("", 4, 16),
        ("act", 3, 12),
    ]
    assert (summary.total.macs, summary.total.weight_bits) == (0, ())


def test_what_is_not_counted_is_said():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.spare = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return x @ x.transpose(2, 3)

    assert summarize(Own(), (3, 5, 7)).notes == (
        "Not counted in the MACs: 1 x matmul outside of layers.",
        "Not counted in the MACs: spare, which never ran as a layer of its own.",
    )
