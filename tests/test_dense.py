import pytest
import torch
import torchvision
from torch import nn

from qprune.assemble import swap
from qprune.dense import to_dense, without_compressors
from qprune.errors import PlanError
from qprune.layers import Align, Aligned, Compressed, CompressedReLU, PrunedConv2d, QuantConv2d, QuantLinear, sites
from qprune.layers.aligned import ALIGNED
from qprune.schedules import OneShot, QuantizeFrom
from qprune.shrinking import shrink
from qprune.spec import PruneRule, QuantizeRule, Selector
from qprune.zoo import Add

SHOT = OneShot(sparsity=0.5, at=3)


def mask(side, *types, importance="activation-l1", **options):
    return PruneRule((Selector(types=types, at=side, **options),), SHOT, importance)


def net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.InstanceNorm2d(6),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), nn.Linear(5, 7),
    )  # fmt: skip


RULES = [
    mask("weight", "Conv2d", importance="weight-l1"),
    mask("output", "ReLU", "InstanceNorm2d", "AdaptiveAvgPool2d"),
    mask("input", "ConvTranspose2d", "Linear", skip=(-1,)),
    mask("output", "ConvTranspose2d", "Linear", skip=(-1,)),
]
WEIGHTS = QuantizeRule((Selector(types=("Conv2d", "Linear"), at="weight"),), 3, "channel", schedule=QuantizeFrom(2))


@pytest.fixture
def compressed():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 10)
    swapped = swap(net(), x, RULES, [WEIGHTS])
    for site in sites(swapped):
        if site.mask is not None:
            site.mask.keep[0] = False
        if site.quant is not None:
            site.quant.calibrate(site.host.weight)
    for _ in range(3):
        swapped(torch.randn(4, 3, 8, 10) + 1)
    return swapped


@pytest.mark.parametrize("train", [True, False])
def test_a_dense_copy_computes_the_same(compressed, train):
    dense, x = to_dense(compressed.train(train)), torch.randn(2, 3, 8, 10)
    assert torch.equal(dense(x), compressed(x))


def test_a_dense_copy_has_plain_layers_and_no_compressors(compressed):
    dense = to_dense(compressed)
    assert not any(isinstance(m, Compressed) for m in dense.modules())
    assert {type(m).__module__.split(".")[0] for m in dense.modules()} == {"torch"}
    assert not [key for key in dense.state_dict() if "mask" in key or "quant" in key]
    assert [type(m).__name__ for m in dense] == [
        "Conv2d", "BatchNorm2d", "Sequential", "ConvTranspose2d", "Sequential", "Sequential", "Flatten",
        "Linear", "Linear",
    ]  # fmt: skip


def test_dropped_channels_are_zero_in_the_parameters(compressed):
    dense = to_dense(compressed)
    assert torch.equal(dense[0].weight[0], torch.zeros(3, 3, 3))
    assert dense[0].bias[0] == dense[1].weight[0] == dense[1].bias[0] == 0
    assert dense[0].weight[0].abs().sum() == 0
    assert not dense[2][1].weight.requires_grad


def test_the_compressed_network_stays_as_it_is(compressed):
    before = {key: value.clone() for key, value in compressed.state_dict().items()}
    to_dense(compressed)
    assert all(torch.equal(value, before[key]) for key, value in compressed.state_dict().items())
    assert isinstance(compressed[0], Compressed)


def test_a_network_at_step_0_becomes_the_one_it_was_made_from():
    torch.manual_seed(0)
    original = net()
    dense = to_dense(swap(original, torch.zeros(2, 3, 8, 10), RULES[:1], [WEIGHTS]))
    assert dense.state_dict().keys() == original.state_dict().keys()
    assert all(torch.equal(value, original.state_dict()[key]) for key, value in dense.state_dict().items())


def test_a_single_layer_becomes_its_torch_layer():
    layer = PrunedConv2d(3, 5, 1, at="output", schedule=SHOT)
    layer.output_mask.keep[2] = False
    dense = to_dense(layer)
    assert type(dense) is nn.Conv2d
    x = torch.randn(2, 3, 4, 6)
    assert torch.equal(dense(x), layer(x))


def test_active_activation_quantizers_are_left_out():
    layer, x = QuantLinear(5, 3, weight_bits=None, act_bits=2), torch.randn(4, 5)
    layer.input_quant.calibrate(x)
    dense = to_dense(layer)
    assert torch.equal(dense(x), nn.functional.linear(x, layer.weight, layer.bias))
    assert not torch.equal(dense(x), layer(x))


def test_gates_have_the_dtype_of_the_network():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    swapped = swap(network, torch.zeros(2, 3, 8, 10), [mask("output", "ReLU")]).double()
    assert to_dense(swapped)(torch.zeros(2, 3, 8, 10, dtype=torch.float64)).dtype == torch.float64


def aligned(layer, arguments, result=None):
    layer.__class__ = ALIGNED[type(layer)]
    layer.align(arguments, result)
    return layer


def test_a_layer_goes_on_gathering_and_scattering():
    layer, x = CompressedReLU(), torch.randn(2, 3, 4, 5)
    layer.add_quant("output", 4).calibrate(x)
    layer = aligned(layer, [Align([2, 0])], Align([-1, 1, 0, -1], [4.0, 0.0, 0.0, 5.0]))
    dense = to_dense(layer)
    relu = nn.functional.relu(x)
    four, five = torch.full((2, 4, 5), 4.0), torch.full((2, 4, 5), 5.0)
    assert torch.equal(dense(x), torch.stack([four, relu[:, 0], relu[:, 2], five], 1))
    assert isinstance(dense, Aligned)
    assert not isinstance(dense, Compressed)


def test_a_mask_that_stayed_in_a_shrunk_network_scatters_zeros():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
            self.add = Add()

        def forward(self, x):
            return self.last(self.add(self.first(x), x.repeat(1, 2, 1, 1)[:, :4]))

    net, x = swap(Sum(), torch.zeros(2, 3, 8, 10), [mask("output", "Add")]), torch.randn(2, 3, 8, 10)
    net.add.output_mask.keep[:] = torch.tensor([False, True, True, False])
    aligned(net.add, [None, None], Align([3, 0, 1, -1], [0.0, 0.0, 0.0, 7.0]))
    dense = to_dense(net)
    assert torch.equal(dense(x), net(x))
    assert dense.add.result.index == (-1, -1, 1, -1)
    assert dense.add.result.fill == (0.0, 0.0, 0.0, 7.0)


def test_a_class_with_a_forward_of_its_own_is_refused():
    class Doubled(QuantConv2d):
        def forward(self, input):
            return 2 * super().forward(input)

    class Unknown(PrunedConv2d):
        def forward(self, input):
            return super().forward(input).log()

    class Wider(PrunedConv2d):
        def forward(self, input):
            return torch.cat([super().forward(input)] * 2, 1)

    for kind in (Unknown, Wider):
        with pytest.raises(PlanError, match=f"a {kind.__name__} that computes something else than a Conv2d: .* by inf"):
            to_dense(kind(3, 4, 1))
    with pytest.raises(PlanError) as caught:
        to_dense(nn.Sequential(Doubled(3, 4, (1, 5), padding=(0, 6), padding_mode="reflect")))
    assert str(caught.value) == (
        '"0" is a Doubled that computes something else than a Conv2d: they differ by 0.5 of the largest value. Put '
        "what its forward adds into a module of its own."
    )


def test_weights_that_are_no_numbers_stay_so():
    layer = PrunedConv2d(3, 4, 1)
    with torch.no_grad():
        layer.weight[1] = torch.nan
        layer.bias[2] = torch.inf
    dense = to_dense(layer)
    assert dense.weight[1].isnan().all()
    assert dense.bias[2].isinf()


def test_a_shrunk_network_of_torchvision_becomes_plain():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 40)
    rules = [mask("input", "Conv2d", skip=(0,))]
    net = swap(torchvision.models.resnet18(num_classes=7), x, rules, [WEIGHTS]).eval()
    for site in sites(net):
        if site.mask is not None:
            site.mask.score.uniform_()
            site.mask.refresh(0.5)
        if site.quant is not None:
            site.quant.calibrate(site.host.weight)
    small = shrink(net, x)
    dense = to_dense(small)
    torch.testing.assert_close(dense(x), net(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(dense(x), small(x))
    assert not any(isinstance(module, Compressed) for module in dense.modules())


def test_a_mask_on_a_sum_is_refused():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.add, self.last = Add(), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.last(self.add(x, x))

    swapped = swap(Sum(), torch.zeros(2, 3, 8, 10), [mask("output", "Add")])
    with pytest.raises(PlanError) as caught:
        to_dense(swapped)
    assert str(caught.value) == (
        '"add.output" has a mask, and no plain layer can hold it; prune the inputs behind it instead.'
    )


def test_without_compressors_all_channels_count_and_nothing_is_rounded():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    weights = QuantizeRule(sites=(Selector(types=("Conv2d",), at="weight"),), bits=2, schedule=QuantizeFrom(0))
    swapped = swap(network, torch.zeros(2, 3, 8, 10), [mask("output", "ReLU")], [weights])
    swapped[1].output_mask.keep[:3] = False
    x = torch.randn(2, 3, 8, 10)
    plain = without_compressors(swapped)
    assert [type(layer) for layer in plain] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert torch.equal(plain(x), network(x))
    assert not swapped[1].output_mask.keep[:3].any()
