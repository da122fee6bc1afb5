import pytest
import torch
from torch import Tensor, nn

import qprune
from qprune.complete import without_integers
from qprune.errors import PlanError
from qprune.flow import trace
from qprune.layers import sites
from qprune.zoo import Add, Concat, deployed

JOINT = [
    "cifar100/densenet121/a75_wa8_t_st",
    "cifar100/mobilenetv2/a75_wa8_t_st",
    "cifar100/preactresnet18/a75_wa8_t_st",
    "cityscapes/unet/a75_wa8_t_st",
    "cityscapes/frrn_b/a75_wa8_t_st",
    "citysgan/resnet/a75_wa8_t_st",
]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(8, 2, 1)
        self.norm, self.act, self.pool = nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
        self.add, self.concat = Add(), Concat()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.first(x)))
        y = self.add(self.second(self.pool(x)), self.pool(x))
        return self.third(self.concat(y, self.pool(x)))


WEIGHTS = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "per": "channel", "start": 0}


def test_every_convolution_and_sum_gets_integers_where_the_tensor_is_made() -> None:
    net = qprune.swap(Net(), torch.zeros(1, 3, 6, 4), quantize=[WEIGHTS], complete=True)
    added = {site.name: site.quant.bits for site in sites(net) if site.quant is not None and site.side != "weight"}
    assert added == {"first.input": 8, "act.output": 8, "second.output": 8, "add.output": 8, "concat.output": 8}


def test_what_has_a_quantizer_gets_no_other() -> None:
    act = {"sites": [{"types": ["ReLU"], "at": "output"}], "bits": 4, "start": 0}
    net = qprune.swap(Net(), torch.zeros(1, 3, 6, 4), quantize=[WEIGHTS, act], complete=True)
    assert {site.name: site.quant.bits for site in sites(net) if site.quant is not None}["act.output"] == 4


def test_sum_that_only_a_quantized_rectifier_reads_needs_none() -> None:
    net = qprune.build("digits/a75_w4a4")
    whole = qprune.build({**_table("digits/a75_w4a4"), "complete": True})
    more = {site.name for site in sites(whole)} - {site.name for site in sites(net)}
    assert more == {"stem.conv.input", "residual.norm2.output", "both.output", "pool.output"}


class Streams(nn.Module):
    """What reads the results of convolutions besides convolutions, each with layers that move numbers in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.third, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(8, 5, 1), nn.Conv2d(5, 6, 1)
        self.instance, self.act = nn.InstanceNorm2d(4), nn.ReLU()
        self.grow, self.smooth = nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear")
        self.concat, self.tanh, self.pool = Concat(), nn.Tanh(), nn.AdaptiveAvgPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x)
        x = self.concat(self.act(self.instance(x)), x)
        x = self.third(x)
        return self.smooth(x), self.pool(self.tanh(self.last(self.grow(x))))


def activations(net: nn.Module) -> set[str]:
    return {site.name for site in sites(net) if site.quant is not None and site.side != "weight"}


def test_results_of_convolutions_are_quantized_for_what_summarizes_them() -> None:
    net = qprune.swap(Streams(), torch.zeros(1, 3, 6, 4), quantize=[WEIGHTS], complete=True)
    assert activations(net) == {"first.input", "first.output", "act.output", "concat.output", "third.output"}


def test_result_that_only_activations_and_the_output_read_stays_real() -> None:
    net = qprune.swap(Streams(), torch.zeros(1, 3, 6, 4), quantize=[WEIGHTS], complete=True)
    assert not activations(net) & {"last.output", "tanh.output", "pool.output"}


def test_joint_whose_readers_all_quantize_it_themselves_needs_no_quantizer() -> None:
    inputs = {"sites": [{"types": ["Conv2d"], "at": "input"}], "bits": 4, "start": 0}
    net = qprune.swap(Streams(), torch.zeros(1, 3, 6, 4), quantize=[WEIGHTS, inputs], complete=True)
    assert "concat.output" not in activations(net)
    assert {"first.output", "act.output"} < activations(net)


def test_grid_passes_resizing_to_the_nearest_neighbour() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 5, 1))
    whole = qprune.swap(net, torch.zeros(1, 3, 6, 4), quantize=[WEIGHTS], complete=True)
    assert activations(whole) == {"0.input", "0.output"}


def _table(name: str) -> dict[str, object]:
    from qprune.spec import read_spec

    return read_spec(name).to_dict()


@pytest.mark.parametrize("name", JOINT)
def test_completed_published_networks_have_no_convolution_without_integers(name: str) -> None:
    net = deployed(qprune.build({**_table(name), "complete": True}))
    assert without_integers(trace(net, torch.zeros(1, 3, 64, 64))) == []


def test_plan_lists_convolutions_without_integers() -> None:
    note = next(note for note in qprune.plan("digits/a75_w4a4").notes if "floats" in note)
    assert note.endswith("stem.conv, mix.conv, classifier")
    assert not any("floats" in note for note in qprune.plan("digits/a75_w4a4", overrides=["complete=true"]).notes)


def test_nothing_to_complete_is_a_mistake() -> None:
    with pytest.raises(PlanError, match="complete = true completes the quantize rules, and there are none"):
        qprune.swap(Net(), torch.zeros(1, 3, 6, 4), complete=True)
