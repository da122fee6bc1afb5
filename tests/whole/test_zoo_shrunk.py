"""Every network of the zoo at the sites of its published experiments, with random masks."""

import copy
from functools import cache
from math import floor

import pytest
import torch
from masked_nets import analysed, assert_same, lively, masks_left, outputs, parameters
from torch import nn
from trained_nets import masks, statistics, trained, unseen

import qprune
from qprune.costs.shrinking import report_shrunk
from qprune.functional import keep_top
from qprune.layers import Align, Aligned, Compressed, CompressedWeight, FakeQuant, bare, commit_all, sites
from qprune.shrinking import shrink, shrink_with_facts
from qprune.spec import read_spec
from qprune.zoo import deployed

SHAPES = {
    "cifar100/densenet121": (3, 32, 32),
    "cifar100/mobilenetv2": (3, 32, 32),
    "cifar100/preactresnet18": (3, 32, 32),
    "cityscapes/unet": (3, 32, 64),
    "cityscapes/frrn_b": (3, 32, 64),
    "citysgan/resnet": (3, 32, 40),
    "citysgan/unet": (3, 256, 256),
}
FAMILIES = pytest.mark.parametrize("family", SHAPES)


def built(family, experiment, sparsity, width=0.25):
    """The part of an experiment's network that is used afterwards: narrow, masked at random, with statistics."""
    net = qprune.build(read_spec(f"{family}/{experiment}", [f"model.width={width}"]))
    masks = {site.name: site.mask for site in sites(net) if site.mask is not None}
    for mask in masks.values():
        mask.score.uniform_()
        mask.refresh(sparsity)
    for mask in masks.values():
        for source, offset in mask.tied:
            mask.keep[offset : offset + masks[source].channels] = masks[source].keep
    return lively(deployed(net)).eval()


def image(family, batch=2):
    return torch.randn(batch, *SHAPES[family])


@cache
def quantized(family, experiment):
    """The same with every quantizer measured and active; not to be changed."""
    net = built(family, experiment, 0.75)
    quants = [part for part in net.modules() if isinstance(part, FakeQuant)]
    for quant in quants:
        quant.measuring = True
    statistics = [
        part.train(False) for part in net.train().modules() if isinstance(part, nn.modules.batchnorm._NormBase)
    ]
    for norm in statistics:
        for slot in norm.children():
            slot.train()
    with torch.no_grad():
        net(image(family, batch=3))
    commit_all(quants)
    for quant in quants:
        quant.active.fill_(True)
        quant.measuring, quant.told_active = False, None
    return net.eval()


# masks

OFTEN = [("a75_layerwise", 0.75), ("w75_layerwise", 0.95)]
RARELY = [
    *[(experiment, share) for experiment in ("a75_layerwise", "w75_layerwise") for share in (0.5, 0.75, 0.95)],
    *[(experiment, 0.75) for experiment in ("a75_oneshot", "w75_oneshot", "w75_stepwise", "a75_l0_layerwise")],
]


@FAMILIES
@pytest.mark.parametrize(
    ("experiment", "sparsity"),
    [*OFTEN, *[pytest.param(*each, marks=pytest.mark.slow) for each in RARELY if each not in OFTEN]],
)
def test_shrunk_network_computes_the_same(family, experiment, sparsity):
    net, x = built(family, experiment, sparsity), image(family)
    found = shrink_with_facts(net, x)
    assert_same(outputs(net, x), outputs(found.net, x))
    assert not masks_left(found.net)
    again = analysed(found.net, x)
    assert found.analysis.held == again.held == ()
    assert again.cuts == {}
    cost = qprune.summary(net, SHAPES[family])
    # of a layer that nobody reads one channel stays
    unread = sum(parameters(found.net.get_submodule(each.path)) for each in cost.layers if each.parameters_kept == 0)
    assert parameters(found.net) <= cost.total.parameters_kept + unread


@pytest.mark.slow
@FAMILIES
@pytest.mark.parametrize("experiment", ["a75_layerwise", "w75_layerwise"])
@pytest.mark.parametrize("width", [0.25, 1.0])
def test_folded_network_computes_the_same(family, experiment, width):
    net, x = built(family, experiment, 0.75, width), image(family, 1)
    assert_same(outputs(net, x), outputs(shrink(net, x, fold=True), x))


# quantizers

JOINT = pytest.mark.parametrize("experiment", ["a75_w4a4", pytest.param("a75_w8a8", marks=pytest.mark.slow)])


def pairs(net, small, kind):
    layers = dict(net.named_modules())
    for path, layer in small.named_modules():
        if isinstance(layer, kind):
            yield path, layers[path], layer


def taken(layer, side, count):
    if not hasattr(layer, "origin"):
        return list(range(count))
    return list(layer.origin.inputs[0] if side == "input" else layer.origin.outputs)


def assert_integers_kept(net, small, signs=False):
    """Integer weights, scales and zero points of what stays, by the channel numbers that the layers remember."""
    count = 0
    for _, before, after in pairs(net, small, CompressedWeight):
        integers, scales = (before.rows(tensor) for tensor in before.int_weight())
        found, found_scales = (after.rows(tensor) for tensor in after.int_weight())
        rows, columns = taken(after, "output", len(integers)), taken(after, "input", before.channels_at("input"))
        groups = getattr(before, "groups", 1)
        picked = integers[rows] if groups > 1 else integers[rows][:, columns]
        assert torch.equal(found.abs(), picked.abs()) if signs else torch.equal(found, picked)
        assert signs or torch.equal(found_scales, (scales[rows] if groups > 1 else scales[rows][:, columns]))
        count += 1
    assert count


def assert_ranges_kept(net, small):
    before = {site.name: site for site in sites(net)}
    for site in sites(small):
        if site.quant is not None and site.side != "weight":
            old = before[site.name].quant
            assert torch.equal(site.quant.scale, old.scale)
            assert torch.equal(site.quant.zero_point, old.zero_point)


def recorded(net, x):
    """For each quantized layer, its input and its result."""
    seen = {}
    handles = [
        layer.register_forward_hook(
            lambda layer, arguments, result, path=path: seen.update({path: (arguments, result)})
        )
        for path, layer in net.named_modules()
        if any(isinstance(child, FakeQuant) for child in layer.children())
    ]
    outputs(net, x)
    for handle in handles:
        handle.remove()
    return seen


def assert_codes_kept(net, small, x):
    """Each layer makes the same codes of the same input."""
    different = total = 0
    layers = dict(small.named_modules())
    for path, (arguments, result) in recorded(net, x).items():
        layer = layers[path]
        if getattr(layer, "origin", None) and layer.origin.outputs == (0,):
            continue  # what is left of a layer that nobody reads
        stay = layer.origin.inputs if hasattr(layer, "origin") else [range(argument.shape[1]) for argument in arguments]
        inputs = [argument[:, list(each)] for argument, each in zip(arguments, stay, strict=True)]
        with torch.no_grad():
            found = bare(layer).forward(layer, *inputs)
        expected, quant = result[:, taken(layer, "output", result.shape[1])], getattr(layer, "output_quant", None)
        if quant is None:  # its weights are quantized, or its input
            assert_same(expected, found)
        else:
            different += (quant.codes(found) != quant.codes(expected)).sum().item()
            total += expected.numel()
    assert different <= 1e-5 * total


@FAMILIES
@JOINT
def test_integers_and_ranges_of_what_stays_are_kept(family, experiment):
    net, x = quantized(family, experiment), image(family)
    small = shrink(net, x)
    assert_integers_kept(net, small)
    assert_ranges_kept(net, small)
    assert_codes_kept(net, small, x)


@FAMILIES
@pytest.mark.parametrize("fold", [pytest.param(False, marks=pytest.mark.slow), True])
@JOINT
def test_codes_at_the_end_are_the_same(family, experiment, fold):
    # in float64, where a sum hardly ever lies on a tie; a tie that rounds the other way changes all that follows
    net, x = copy.deepcopy(quantized(family, experiment)).double(), image(family).double()
    small = shrink(net, x, fold=fold)
    one, other = outputs(net, x), outputs(small, x)
    step = one.abs().max() / 127
    assert ((one - other).abs() > step / 2).double().mean() <= 1e-5


@FAMILIES
def test_folding_keeps_integers_up_to_their_sign(family):
    net = quantized(family, "a75_w4a4")
    assert_integers_kept(net, shrink(net, image(family, 1), fold=True), signs=True)


# ---- dense forms, shrunk before or after, with quantizers


def without_activation_quantizers(net):
    net = copy.deepcopy(net)
    for site in sites(net):
        if site.quant is not None and site.side != "weight":
            site.quant.active.fill_(False)
    return net


@FAMILIES
@pytest.mark.parametrize("fold", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_dense_form_of_a_shrunk_network_computes_the_same(family, fold):
    net, x = quantized(family, "a75_w4a4"), image(family)
    small = qprune.shrink(net, x, fold=fold)
    dense = qprune.to_dense(small)
    assert_same(outputs(without_activation_quantizers(small), x), outputs(dense, x))
    assert not any(isinstance(module, Compressed) for module in dense.modules())
    aligned = {path for path, layer in small.named_modules() if isinstance(layer, Aligned)}
    assert {path for path, layer in dense.named_modules() if isinstance(layer, Aligned)} == aligned
    assert sum(isinstance(layer, Align) for layer in dense.modules()) == sum(
        isinstance(layer, Align) for layer in small.modules()
    )


@FAMILIES
def test_the_order_of_shrinking_and_making_dense_does_not_matter(family):
    x, net = image(family), without_activation_quantizers(quantized(family, "a75_w4a4"))
    one, other = qprune.shrink(qprune.to_dense(net), x), qprune.to_dense(qprune.shrink(net, x))
    assert_same(outputs(one, x), outputs(other, x))
    assert_same(outputs(net, x), outputs(other, x))


# ---- masks, weights and statistics that come from training


# the schedule of each whose steps are few; the other one is slow
TRAINED_OFTEN = {
    "cifar100/densenet121": "a75_oneshot",
    "cifar100/mobilenetv2": "a75_oneshot",
    "cifar100/preactresnet18": "a75_layerwise",
    "cityscapes/unet": "a75_layerwise",
    "cityscapes/frrn_b": "a75_oneshot",
    "citysgan/resnet": "a75_layerwise",
}
OTHER = {"a75_oneshot": "a75_layerwise", "a75_layerwise": "a75_oneshot"}
TRAINED = pytest.mark.parametrize(
    ("family", "experiment", "sparsity"),
    [
        *[(family, experiment, 0.75) for family, experiment in TRAINED_OFTEN.items()],
        *[
            pytest.param(family, experiment, sparsity, marks=pytest.mark.slow)
            for family, often in TRAINED_OFTEN.items()
            for experiment, sparsity in [(OTHER[often], 0.75), ("a75_oneshot", 0.5), ("a75_oneshot", 0.95),
                                         ("a75_oneshot", 0.999)]
        ],
    ],
)  # fmt: skip


@TRAINED
def test_masks_and_statistics_come_from_training(family, experiment, sparsity):
    net = trained(family, experiment, sparsity)
    for mask in masks(net).values():
        assert mask.seen > 0
        assert torch.equal(mask.keep, keep_top(mask.score, sparsity))
        assert int(mask.keep.sum()) == mask.channels - floor(sparsity * mask.channels + 1e-9)
    assert all(norm.running_mean.any() and norm.num_batches_tracked > 0 for norm in statistics(net))
    # some channels are always at zero by now, as the rectifiers of trained networks are
    assert sum(len(mask.score.unique()) > 1 for mask in masks(net).values()) > len(masks(net)) / 2


@cache
def small(family, experiment, sparsity, fold):
    """What shrinking makes of it."""
    return shrink_with_facts(trained(family, experiment, sparsity), unseen(family), fold=fold)


@TRAINED
@pytest.mark.parametrize("fold", [False, True])
def test_shrunk_trained_network_computes_the_same(family, experiment, sparsity, fold):
    net, x, found = trained(family, experiment, sparsity), unseen(family), small(family, experiment, sparsity, fold)
    expected = outputs(net, x)
    assert expected.std() > 1e-3 * expected.abs().max()
    assert_same(expected, outputs(found.net, x))
    assert not masks_left(found.net)
    assert found.analysis.held == ()


@TRAINED
def test_report_counts_what_is_left_of_a_trained_network(family, experiment, sparsity):
    net, x, found = trained(family, experiment, sparsity), unseen(family), small(family, experiment, sparsity, False)
    report, cost = report_shrunk(net, found, x), qprune.summary(net, x.shape[1:])
    assert report.total.parameters_left == parameters(found.net)
    assert report.total.parameters_kept == cost.total.parameters_kept
    assert report.masks_left == report.held == ()
    # of a layer that nobody reads one channel stays
    unread = sum(parameters(found.net.get_submodule(each.path)) for each in cost.layers if each.parameters_kept == 0)
    assert parameters(found.net) <= cost.total.parameters_kept + unread
