import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import qprune
from qprune import zoo
from qprune.data import eval_loader, load_data
from qprune.errors import DataError, PlanError, TrainingError
from qprune.layers import FakeQuant, QuantConv2d, sites
from qprune.spec import DataSpec
from qprune.tasks import Classification
from qprune.training import evaluate

W8 = {"sites": [{"types": ["Conv2d", "Linear"], "at": "weight"}], "bits": 8, "per": "channel", "start": 0}
W8_CONV = W8 | {"sites": [{"types": ["Conv2d"], "at": "weight"}]}


def net_with_norms() -> nn.Module:
    dense = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4)
    )
    acts = {"sites": [{"types": ["ReLU"], "at": "output"}, {"paths": ["5"], "at": "output"}], "bits": 8, "start": 0}
    return qprune.swap(dense, torch.zeros(1, 3, 7, 6), quantize=[W8_CONV, acts])


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(8, 3, 7, 6), torch.zeros(8)) for _ in range(count)]


def quants(net: nn.Module) -> dict[str, Any]:
    return {site.name: site.quant for site in sites(net) if site.quant is not None}


def test_ranges_are_the_mean_over_batches_of_what_the_eval_forward_holds() -> None:
    net, data = net_with_norms(), batches()
    held: list[Tensor] = []
    reference = copy.deepcopy(net).eval()
    reference[2].register_forward_hook(lambda module, inputs, output: held.append(output.amax()))  # type: ignore[index]
    for x, _ in data:
        reference(x)
    qprune.calibrate(net, data)
    torch.testing.assert_close(net[2].output_quant.range, torch.stack([torch.zeros(()), torch.stack(held).mean()]))  # type: ignore[index,union-attr]


def test_weights_are_measured_per_channel() -> None:
    net = qprune.calibrate(net_with_norms(), batches())
    weight = net[0].weight  # type: ignore[index]
    torch.testing.assert_close(net[0].weight_quant.scale, weight.abs().amax((1, 2, 3)) / 127)  # type: ignore[index,union-attr,operator]


def test_every_quantizer_is_active_and_the_modes_are_restored() -> None:
    net = net_with_norms().train()
    net[1].eval()  # type: ignore[index,operator]
    modes = [module.training for module in net.modules()]
    assert qprune.calibrate(net, batches()) is net
    assert all(quant.active and quant.told_active is None and not quant.measuring for quant in quants(net).values())
    assert [module.training for module in net.modules()] == modes


def test_calibrating_again_forgets_what_was_measured() -> None:
    net, data = net_with_norms(), batches()
    once = qprune.calibrate(copy.deepcopy(net), data, norms=False)
    twice = qprune.calibrate(qprune.calibrate(net, [100 * x for x, _ in data], norms=False), data, norms=False)
    assert all(torch.equal(one, other) for one, other in zip(once.buffers(), twice.buffers(), strict=True))


def test_statistics_are_those_of_update_bn_on_the_quantized_network() -> None:
    net, data = net_with_norms(), batches()
    net = qprune.calibrate(net, data)
    reference = copy.deepcopy(net)
    reference[3] = nn.Identity()  # type: ignore[operator]  # update_bn would drop values
    update_bn(data, reference)
    qprune.calibrate(net, data, norms=True)
    for place in (1, 5):
        one, other = net[place], reference[place]  # type: ignore[index]
        torch.testing.assert_close(one.running_mean, other.running_mean)
        torch.testing.assert_close(one.running_var, other.running_var)
        assert one.momentum == 0.1


def test_without_norms_statistics_stay() -> None:
    net = net_with_norms()
    before = net[1].running_var.clone()  # type: ignore[index,union-attr,operator]
    qprune.calibrate(net, batches(), norms=False)
    assert torch.equal(net[1].running_var, before)  # type: ignore[index,union-attr,arg-type]


def test_inputs_alone_are_batches_too_and_only_so_many_are_taken() -> None:
    net, data = net_with_norms(), batches(4)
    one = qprune.calibrate(copy.deepcopy(net), [x for x, _ in data], batches=2)
    other = qprune.calibrate(net, data[:2])
    assert quants(one)["2.output"].seen == 2
    assert all(torch.equal(*pair) for pair in zip(one.buffers(), other.buffers(), strict=True))


class Two(nn.Module):
    """A network of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = QuantConv2d(3, 4, 1, weight_bits=8, act_bits=8), QuantConv2d(2, 4, 1, weight_bits=8)

    def forward(self, image: Tensor, depth: Tensor, scale: float = 1.0) -> Tensor:
        return self.one(image) + scale * self.other(depth)


def test_networks_of_two_inputs_get_both() -> None:
    a, b, target = torch.randn(4, 3, 5, 7), torch.randn(4, 2, 5, 7), torch.zeros(4)
    for batch in ((a, b), [a, b], (a, b, target), ((a, b), target), [[a, b], target]):
        net: Any = qprune.calibrate(Two(), [batch])
        torch.testing.assert_close(net.one.input_quant.range, torch.stack([a.amin(), a.amax()]))


def test_batch_with_too_few_inputs_is_told() -> None:
    with pytest.raises(
        DataError, match=r"Two takes 2 inputs, and a batch of the loader holds 1: give batches \(a, b\)"
    ):
        qprune.calibrate(Two(), [torch.randn(4, 3, 5, 7)])


def test_the_exported_file_is_that_of_the_calibrated_network(tmp_path) -> None:
    net = nn.Sequential(QuantConv2d(3, 5, 3), nn.ReLU(), QuantConv2d(5, 4, 1))
    data = batches()
    certificate = qprune.export(qprune.calibrate(net, data), tmp_path / "model.onnx", data[0][0])
    assert certificate.real_layers == {}
    assert certificate.outputs[0].within_one == 1


def test_what_only_teaches_is_left_alone() -> None:
    dense = zoo.create("cyclegan", width=0.125, width_ba=0.125, width_discriminators=0.125)
    weights = {"sites": [{"types": ["Conv2d"], "paths": ["generator_*"], "at": "weight"}], "bits": 8, "start": 0}
    net = qprune.swap(dense, torch.zeros(1, 3, 8, 12), quantize=[weights])
    qprune.calibrate(net, [torch.randn(2, 3, 8, 12)])
    assert {name.split(".")[0] for name, quant in quants(net).items() if quant.active} == {"generator_ab"}


def test_network_without_quantizers_is_refused() -> None:
    with pytest.raises(PlanError, match=r"no quantizer to calibrate: give it some by qprune.swap"):
        qprune.calibrate(nn.Sequential(nn.Conv2d(3, 4, 1)), batches())


def test_loader_without_a_batch_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to calibrate on: the loader gave no batch"):
        qprune.calibrate(net_with_norms(), [])


def test_what_is_empty_at_the_second_pass_is_refused_and_nothing_is_changed() -> None:
    net = net_with_norms()
    before = [buffer.clone() for buffer in net.buffers()]
    with pytest.raises(DataError, match="empty at the second pass"):
        qprune.calibrate(net, iter(batches()))
    assert all(torch.equal(one, other) for one, other in zip(before, net.buffers(), strict=True))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused_by_site_and_nothing_is_changed(bad: float) -> None:
    net, data = net_with_norms(), batches()
    with torch.no_grad():
        net[4].weight[1, 2] = bad  # type: ignore[index,operator]
    before = [buffer.clone() for buffer in net.buffers()]
    with pytest.raises(TrainingError, match=r'site "4.weight" hold NaN or infinity, in batch 0'):
        qprune.calibrate(net.train(), data)
    assert all(torch.equal(one, other) for one, other in zip(before, net.buffers(), strict=True))
    assert net.training
    assert not any(quant.measuring for quant in quants(net).values())


def test_quantizer_that_nothing_reaches_is_named() -> None:
    net = nn.Sequential(QuantConv2d(3, 4, 1))
    net.unused = QuantConv2d(3, 4, 1)
    net.forward = lambda x: net[0](x)  # type: ignore[method-assign]
    with pytest.raises(PlanError, match=r"unused.input has no range: no forward in eval mode reaches it"):
        qprune.calibrate(net, batches())
    assert not any(quant.active for quant in quants(net).values())


def test_less_than_one_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="batches must be at least 1; received 0"):
        qprune.calibrate(net_with_norms(), batches(), batches=0)


def test_eight_bits_without_training_lose_less_than_a_point(tmp_path) -> None:
    overrides = ["train.length=5ep", 'train.lr_schedule={name="cosine", warmup="1ep"}']
    history = qprune.fit("digits/baseline", runs=tmp_path, overrides=overrides, device="cpu", verbose=0)
    dense = qprune.load(history.run)
    splits = load_data(DataSpec("digits"))
    test, some = eval_loader(splits.test, batch=128), eval_loader(splits.train, batch=64)
    net = qprune.swap(dense, torch.zeros(1, 1, 8, 8), quantize=[W8], complete=True)
    qprune.calibrate(net, some, batches=8)
    trained, quantized = (evaluate(each, Classification(classes=10), test)["accuracy"] for each in (dense, net))
    assert trained > 0.9
    assert quantized > trained - 0.01
    assert all(isinstance(quant, FakeQuant) and quant.active for quant in quants(net).values())
