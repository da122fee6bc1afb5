import pytest
import torch
from torch import nn

from qprune.assemble import swap
from qprune.errors import PlanError
from qprune.importances import BnScale
from qprune.layers import CompressedBatchNorm2d, CompressedInstanceNorm2d, CompressedReLU, PrunedConv2d, sites
from qprune.schedules import OneShot
from qprune.spec import PruneRule, Selector
from qprune.training import ScheduleDriver


def rule(*types):
    return PruneRule([Selector(types, at="output")], OneShot(0.5, at=1), "bn-scale")


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True)])
def test_channels_with_the_largest_scales_are_kept_whatever_their_sign(norm):
    net = swap(
        nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 2, 1)),
        torch.zeros(2, 3, 5, 7),
        [rule(type(norm).__name__)],
    )
    net[1].weight.data = torch.tensor([0.5, -3.0, 1.0, -0.25])
    driver = ScheduleDriver(net)
    driver.step()
    (site,) = sites(net)
    assert site.mask.score.tolist() == [0.5, 3, 1, 0.25]
    assert site.mask.keep.tolist() == [False, True, True, False]
    assert net[1].weight.tolist() == [0, -3, 1, 0]


def test_it_may_choose_at_step_0():
    layer = CompressedBatchNorm2d(4)
    layer.add_mask("output", importance="bn-scale", schedule=OneShot(0.5, at=0))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), layer)
    net[1].weight.data = torch.tensor([0.5, -3.0, 1.0, -0.25])
    ScheduleDriver(net)
    assert layer.output_mask.keep.tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    "layer", [nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.InstanceNorm2d(4)], ids=repr
)
def test_a_layer_without_scales_is_refused_with_a_sentence(layer):
    before = nn.Identity() if isinstance(layer, nn.Conv2d) else nn.Conv2d(3, 4, 3)
    name = type(layer).__name__
    with pytest.raises(PlanError) as error:
        swap(nn.Sequential(before, layer, nn.Conv2d(4, 2, 1)), torch.zeros(2, 3, 5, 7), [rule(name)])
    assert (
        f'"1" ({name}) has no scale of its channels to rank them by; importance = "bn-scale" needs normalizations with '
        "affine parameters, such as BatchNorm2d; exclude it (prune[0].sites[0] in swap)."
    ) in str(error.value)


def test_a_layer_made_by_hand_is_refused_too():
    sentence = '^{} has no scale of its channels to rank them by; importance = "bn-scale" needs'
    with pytest.raises(ValueError, match=sentence.format("PrunedConv2d")):
        PrunedConv2d(3, 4, 3, at="output", importance="bn-scale")
    for layer in (CompressedReLU(), CompressedInstanceNorm2d(4)):
        with pytest.raises(ValueError, match=sentence.format(type(layer).__name__)):
            layer.add_mask("output", channels=4, importance="bn-scale")
        assert layer.output_mask is None


def test_scales_are_ranked_in_float32():
    layer = CompressedBatchNorm2d(4).bfloat16()
    layer.add_mask("output", importance="bn-scale")
    (site,) = sites(layer)
    assert BnScale().score(site, seed=0).dtype == torch.float32
