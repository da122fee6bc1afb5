import copy
import pickle

import pytest
import torch
from torch import nn

from qprune import zoo
from qprune.assemble import assemble, swap
from qprune.errors import PlanError, SpecError
from qprune.layers import (
    Compressed,
    CompressedBatchNorm2d,
    CompressedConv2d,
    CompressedReLU,
    PrunedConv2d,
    PrunedLinear,
    sites,
)
from qprune.schedules import OneShot, QuantizeFrom
from qprune.spec import PruneRule, QuantizeRule, Selector, read_spec
from qprune.zoo import Add, Concat

X = torch.zeros(2, 3, 8, 10)
SHOT = OneShot(sparsity=0.5, at=3)


class Net(nn.Module):
    """Two convolutions meet in a concatenation and in a sum; norms read before, behind, and behind the sum."""

    def __init__(self):
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.b, self.c = nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(9, 9, 1)
        self.act, self.join, self.add = nn.ReLU(), Concat(), Add()
        self.norm_joined, self.norm_summed = nn.BatchNorm2d(9), nn.BatchNorm2d(9)
        self.classifier = nn.Linear(9, 7)

    def forward(self, x):
        x = self.norm_a(self.a(x))
        x = self.join(x, self.b(self.act(x)))
        x = self.norm_summed(self.add(x, self.c(self.norm_joined(x))))
        return self.classifier(x.mean((2, 3)))


def weights(*paths, exclude=()):
    return PruneRule((Selector(types=("Conv2d",), paths=paths, at="weight"),), SHOT, "weight-l1", exclude=exclude)


def acts(*types, at="output", paths=()):
    return PruneRule((Selector(types=types, paths=paths, at=at),), SHOT)


def quants(*types, at="output", **options):
    return QuantizeRule((Selector(types=types, at=at),), schedule=QuantizeFrom(2), **({"bits": 4} | options))


ALL = (
    [weights()],
    [quants("Conv2d", at="weight", per="channel"), quants("ReLU", "BatchNorm2d"), quants("Linear", at="input")],
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


# swap


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ["densenet121", "mobilenetv2", "preactresnet18"])
def test_a_swapped_network_computes_what_the_original_does_to_the_bit(name, train):
    net = zoo.create(name, width=0.25, classes=7).train(train)
    x = torch.randn(3, 3, 32, 32)
    acts_rule = acts("ReLU6" if name == "mobilenetv2" else "ReLU")
    swapped = swap(net, x, [acts_rule], [quants("Conv2d", at="weight"), quants("BatchNorm2d")])
    assert all(m.training is train for m in swapped.modules())
    for _ in range(2):
        assert torch.equal(swapped(x), net(x))
    assert all(torch.equal(swapped.state_dict()[key], value) for key, value in net.state_dict().items())


def test_swap_leaves_the_original_alone():
    net = Net()
    before = copy.deepcopy(net.state_dict())
    swapped = swap(net, X, *ALL)
    assert not any(isinstance(m, Compressed) for m in net.modules())
    assert {p.data_ptr() for p in net.parameters()}.isdisjoint(p.data_ptr() for p in swapped.parameters())
    with torch.no_grad():
        swapped.a.weight.zero_()
    swapped(torch.randn(2, 3, 8, 10))
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_dense_keys_keep_their_names_and_compressors_add_theirs():
    net, swapped = Net(), swap(Net(), X, *ALL)
    added = swapped.state_dict().keys() - net.state_dict().keys()
    assert net.state_dict().keys() <= swapped.state_dict().keys()
    assert {key.split(".")[-2] for key in added} == {
        "weight_mask",
        "weight_quant",
        "output_quant",
        "input_quant",
        "output_mask",
    }


def test_a_dense_checkpoint_loads_strictly_into_a_swapped_network():
    net, swapped = Net(), swap(Net(), X, *ALL)
    swapped.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(2, 3, 8, 10)
    assert torch.equal(swapped(x), net(x))


def test_resnet18_of_torchvision_is_swapped_at_convolution_inputs():
    torchvision = pytest.importorskip("torchvision")
    net, x = torchvision.models.resnet18(weights=None).eval(), torch.randn(1, 3, 32, 32)
    rule = PruneRule((Selector(types=("Conv2d",), at="input", skip=(0,)),), SHOT)
    swapped = swap(net, x, [rule], [quants("Conv2d", at="weight")])
    swapped.load_state_dict(net.state_dict(), strict=True)
    assert sum(site.mask is not None for site in sites(swapped)) == 19
    assert torch.equal(swapped(x), net(x))
    with pytest.raises(PlanError, match=r'"layer1.0.relu" runs 2 times'):
        swap(net, x, [acts("ReLU")])


def test_hooks_are_kept():
    net, heard = Net(), []
    net.a.register_forward_hook(lambda *_: heard.append("a"))
    net.act.register_forward_pre_hook(lambda *_: heard.append("act"))
    swapped = swap(net, X, [weights("a")], [quants("ReLU")])
    assert heard == []
    swapped(torch.randn(2, 3, 8, 10))
    assert heard == ["a", "act"]


def test_shared_layers_stay_shared():
    conv = nn.Conv2d(3, 3, 1)
    swapped = swap(nn.Sequential(conv, conv, nn.Conv2d(3, 2, 1)), X, [weights("0")])
    assert swapped[0] is swapped[1]
    assert isinstance(swapped[1], CompressedConv2d)
    assert [site.name for site in sites(swapped)] == ["0.weight"]
    assert swapped[0].weight is swapped[1].weight


def test_tied_parameters_stay_tied():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1))
    net[1].weight = net[0].weight
    swapped = swap(net, X, [weights("0")])
    assert swapped[1].weight is swapped[0].weight


def test_layers_become_their_hosts_and_others_stay():
    swapped = swap(Net(), X, [weights("a")], [quants("ReLU")])
    types = [type(m) for m in (swapped.a, swapped.act, swapped.norm_a, swapped.b)]
    assert types == [CompressedConv2d, CompressedReLU, CompressedBatchNorm2d, nn.Conv2d]


def test_compressors_are_in_the_mode_of_their_layer():
    net = Net()
    net.act.eval()
    swapped = swap(net, X, [weights("a")], [quants("ReLU")])
    assert swapped.a.weight_mask.training is True
    assert swapped.act.output_quant.training is False


def test_compressors_live_where_the_network_lives():
    swapped = swap(Net().to("meta"), X, [acts("ReLU")], [quants("ReLU", "Add")])
    assert {buffer.device.type for buffer in swapped.buffers()} == {"meta"}


def test_a_network_of_one_layer_can_be_swapped():
    swapped = swap(nn.Conv2d(3, 5, 1), X, [], [quants("Conv2d", at="input")])
    assert [site.name for site in sites(swapped)] == ["input"]


def test_a_swapped_network_can_be_swapped_again():
    once = swap(Net(), X, [weights("a")])
    twice = swap(once, X, [weights("b")], [quants("Conv2d", at="weight")])
    assert once.norm_joined.output_mask.tied == (("a.weight", 0),)
    assert twice.norm_joined.output_mask.tied == (("a.weight", 0), ("b.weight", 4))


def test_pickle_and_deepcopy_of_a_swapped_network(tmp_path):
    swapped, x = swap(Net(), X, *ALL).eval(), torch.randn(2, 3, 8, 10)
    for again in (pickle.loads(pickle.dumps(swapped)), copy.deepcopy(swapped)):
        assert torch.equal(again(x), swapped(x))
        assert [site.name for site in sites(again)] == [site.name for site in sites(swapped)]


# normalizations behind a weight mask


def drop(net, **dropped):
    """Drop channels of weight masks by hand, and let tied masks follow."""
    for path, channels in dropped.items():
        getattr(net, path).weight_mask.keep[channels] = False
    named = {site.name: site.mask for site in sites(net)}
    for mask in named.values():
        for source, offset in mask.tied:
            keep = named[source].keep
            mask.keep[offset : offset + len(keep)] = keep


@pytest.mark.parametrize("train", [True, False])
def test_dropped_channels_are_zero_behind_bias_and_normalization(train):
    net, x = swap(Net(), X, [weights()]).train(train), torch.randn(2, 3, 8, 10)
    for norm in (net.norm_a, net.norm_joined):
        nn.init.constant_(norm.bias, 0.5)
    seen = {}
    for path in ("a", "norm_a", "b", "norm_joined", "norm_summed"):
        net.get_submodule(path).register_forward_hook(
            lambda m, i, o, path=path: seen.update({path: o.abs().amax((0, 2, 3))})
        )
    drop(net, a=[1], b=[0, 4])
    net(x)
    assert [(values == 0).nonzero().flatten().tolist() for values in seen.values()] == [[1], [1], [0, 4], [1, 4, 8], []]


def test_norms_follow_through_a_concatenation_by_offset_and_not_through_a_sum():
    net = swap(Net(), X, [weights()])
    assert net.norm_a.output_mask.tied == (("a.weight", 0),)
    assert net.norm_joined.output_mask.tied == (("a.weight", 0), ("b.weight", 4))
    assert type(net.norm_summed) is nn.BatchNorm2d


def test_every_norm_of_a_dense_block_follows_what_it_reads():
    net = swap(zoo.create("densenet121", width=0.25), torch.zeros(2, 3, 32, 32), [weights()])
    tied = dict(net.block1.get_submodule("5.norm1").output_mask.tied)
    assert tied == {"stem.weight": 0} | {f"block1.{i}.conv2.weight": 16 + 8 * i for i in range(5)}
    assert dict(net.block1.get_submodule("5.norm2").output_mask.tied) == {"block1.5.conv1.weight": 0}


def test_a_norm_without_shift_needs_no_mask():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 1))
    assert [site.name for site in sites(swap(net, X, [weights("0")]))] == ["0.weight"]
    net[1] = nn.BatchNorm2d(4, affine=False)
    assert [site.name for site in sites(swap(net, X, [weights("0")]))] == ["0.weight", "1.output"]


def test_a_norm_with_a_mask_of_another_rule_is_refused():
    net = Net()
    with pytest.raises(PlanError) as caught:
        swap(net, X, [weights("?"), acts("BatchNorm2d", paths=("norm_a", "norm_summed")), acts("Xyz")])
    assert str(caught.value).splitlines() == [
        "The network has no layer of type 'Xyz'. It has Add, BatchNorm2d, Concat, Conv2d, Linear, ReLU "
        "(prune[2].sites[0] in swap).",
        '"norm_a.output" must follow the weight mask of "a.weight" but has a mask of its own; '
        "exclude one of the two from its rule.",
    ]
    own = swap(net, X, [acts("BatchNorm2d", paths=("norm_a",))])
    with pytest.raises(PlanError, match=r'^"norm_a.output" must follow'):
        swap(own, X, [weights("a")])


# assemble


def spec(model, **tables):
    train = {"length": "3ep", "batch": 7, "optimizer": {"name": "sgd", "lr": 0.1}}
    return read_spec({"data": {"name": "digits"}, "model": model, "train": train} | tables)


PRUNE = [{"sites": [{"types": ["Conv2d"], "at": "weight", "skip": [-1]}], "sparsity": 0.5, "importance": "weight-l1",
          "schedule": {"kind": "one-shot", "at": 3}}]  # fmt: skip


def test_a_dense_spec_gives_the_network_of_the_zoo():
    net = assemble(spec({"arch": "preactresnet18", "width": 0.25}), 7, (1, 8, 10))
    assert not any(isinstance(m, Compressed) for m in net.modules())
    torch.manual_seed(0)
    expected = zoo.create("preactresnet18", width=0.25, classes=7, in_channels=1).state_dict()
    assert net.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in net.state_dict().items())
    assert net(torch.zeros(2, 1, 8, 10)).shape == (2, 7)


def test_rules_of_a_spec_are_applied():
    quantize = [{"sites": [{"types": ["ReLU6"], "at": "output"}], "bits": 4, "start": 2}]
    net = assemble(
        spec({"arch": "mobilenetv2", "width": 0.25}, prune=PRUNE, quantize=quantize, numerics="paper"), 7, (3, 32, 32)
    )
    assert sum(site.side == "weight" for site in sites(net)) == 53
    assert {site.quant.numerics for site in sites(net) if site.quant is not None} == {"paper"}
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


LAYERS = [
    {"type": "Conv2d", "name": "conv", "out_channels": 4, "kernel_size": 3},
    {"type": "BatchNorm2d", "name": "norm"},
    {"type": "Conv2d", "name": "last", "out_channels": 5, "kernel_size": 1},
]


def test_rules_apply_to_declared_networks():
    net = assemble(spec({"layers": LAYERS}, prune=PRUNE), 5, (1, 8, 10))
    assert [site.name for site in sites(net)] == ["conv.weight", "norm.output"]


def test_norms_follow_the_weight_masks_of_declared_layers_without_any_rule():
    pruned = {"type": "PrunedConv2d", "at": "weight", "schedule": {"kind": "one-shot", "sparsity": 0.5, "at": 3}}
    net = assemble(spec({"layers": [LAYERS[0] | pruned, *LAYERS[1:]]}), 5, (1, 8, 10))
    assert isinstance(net.conv, PrunedConv2d)
    assert net.norm.output_mask.tied == (("conv.weight", 0),)


def test_mistakes_name_the_spec():
    rule = PRUNE[0] | {"sites": [{"types": ["Conv2d"], "at": "weight", "skip": [9, -1]}]}
    with pytest.raises(PlanError, match=r"skip = 9 is out of range: .* \(prune\[0\].sites\[0\] in unnamed\)\.$"):
        assemble(spec({"layers": LAYERS}, prune=[rule]), 5, (1, 8, 10))


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"arch": "mobilnetv2"}, "model: unknown network 'mobilnetv2'; nearest: 'mobilenetv2'; "),
        ({"arch": "mobilenetv2", "depth": 3}, "model: unknown option 'depth' of mobilenetv2; "),
        ({"arch": "torchvision/resnet18", "width": 0.5}, "model: torchvision/resnet18 has no width; received 0.5."),
        ({"arch": "torchvision/resnet19"}, "model: unknown network 'torchvision/resnet19'; nearest: "),
    ],
)
def test_a_network_that_the_zoo_does_not_have_is_a_mistake_of_the_spec(model, sentence):
    with pytest.raises(SpecError) as caught:
        assemble(spec(model), 7, (3, 32, 32))
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("key", ["classes", "num_classes"])
def test_a_spec_may_give_more_classes_than_the_data_has(key):
    net = assemble(spec({"arch": "preactresnet18", "width": 0.1, key: 9}), 7, (1, 8, 10))
    assert net(torch.zeros(2, 1, 8, 10)).shape == (2, 9)


def test_classes_under_two_names_are_a_mistake_of_the_spec():
    with pytest.raises(SpecError, match=r"^model: num_classes is another name for classes: give one of them; received"):
        assemble(spec({"arch": "vgg7", "classes": 9, "num_classes": 9}), 7, (3, 32, 32))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ({"arch": "frrn_b", "width": 0.1, "chained": False}, (7, 32, 64)),
        ({"arch": "cyclegan", "width": 0.1, "blocks": 9}, (3, 32, 64)),
        ({"arch": "torchvision/squeezenet1_1"}, (7,)),
        ({"arch": "torchvision/lraspp_mobilenet_v3_large"}, (7, 32, 64)),
    ],
)
def test_a_network_of_the_zoo_gets_those_facts_of_the_data_that_it_takes(model, shape):
    assert assemble(spec(model), 7, (3, 32, 64)).eval()(torch.zeros(2, 3, 32, 64)).shape == (2, *shape)


def test_images_that_do_not_fit_the_network_are_refused_with_the_nearest_size():
    with pytest.raises(SpecError) as caught:
        assemble(spec({"arch": "unet", "width": 0.1}), 7, (3, 30, 40))
    assert str(caught.value) == (
        "data.size must be of multiples of 16 for unet; images have 30x40 (height x width). Nearest: size = [32, 32]."
    )


def test_hand_built_hosts_take_part():
    net = nn.Sequential(nn.Flatten(), PrunedLinear(240, 6, schedule=SHOT), nn.ReLU(), nn.Linear(6, 2))
    swapped = swap(net, X, quantize=[quants("Linear", at="weight")])
    assert isinstance(swapped[1], PrunedLinear)
    assert [site.name for site in sites(swapped)] == ["1.input", "1.weight", "3.weight"]
