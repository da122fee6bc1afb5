"""Shrunk networks of the zoo with masks, weights and statistics that come from training."""

from functools import cache
from math import floor

import pytest
import torch
from masked_nets import assert_same, masks_left, outputs, parameters
from trained_nets import masks, statistics, trained, unseen

import qprune
from qprune.functional import keep_top
from qprune.report.shrinking import report_shrunk
from qprune.shrink import shrink_with_facts

# the schedule of each whose steps are few; the other one is slow
OFTEN = {
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
        *[(family, experiment, 0.75) for family, experiment in OFTEN.items()],
        *[
            pytest.param(family, experiment, sparsity, marks=pytest.mark.slow)
            for family, often in OFTEN.items()
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
