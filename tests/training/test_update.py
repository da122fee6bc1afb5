import copy

import pytest
import torch
from on_gpu import Calls, as_on_gpu
from torch import nn

from qprune.layers import PrunedConv2d, PrunedQuantConv2d
from qprune.schedules import OneShot, QuantizeFrom
from qprune.tasks import Classification
from qprune.training import ScheduleDriver, Update, make_average
from qprune.training.update import split

CPU = torch.device("cpu")
TASK = Classification(classes=4)


def norm_free():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


def batch(size=7):
    torch.manual_seed(2)
    return torch.randn(size, 3, 8, 9), torch.randint(4, (size,))


def updated(net, lr=0.1, share=1.0, **options):
    update = Update(net, TASK, torch.optim.SGD(net.parameters(), lr=lr), device=CPU, **options)
    loss = update.backward(batch(), share)
    update.apply()
    return net, loss


def test_plain_update_is_torch_s_own():
    net, theirs = norm_free(), norm_free()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    expected, _ = TASK.step(theirs, batch())
    expected.backward()
    optimizer.step()
    _, loss = updated(net)
    assert torch.equal(loss, expected.detach())
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("parts", [2, 3, 4, 5, 9])
def test_accumulated_parts_make_the_update_of_the_whole_batch(parts):
    (whole, loss), (ours, other) = updated(norm_free()), updated(norm_free(), accumulate=parts)
    torch.testing.assert_close(other, loss)
    for a, b in zip(ours.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_parts_have_nearly_equal_size_and_all_samples():
    images, labels = batch(7)
    parts = list(split({"a": images, "b": [labels]}, 3))
    assert [len(part["a"]) for part, _ in parts] == [3, 2, 2]
    assert torch.equal(torch.cat([part["b"][0] for part, _ in parts]), labels)
    assert [share for _, share in parts] == [3 / 7, 2 / 7, 2 / 7]


def test_thirteen_images_in_four_parts_can_all_be_normalized():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 9, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
    update = Update(net, TASK, torch.optim.SGD(net.parameters(), lr=0.1), device=CPU, accumulate=4)
    sizes = []
    net[2].register_forward_hook(lambda _, inputs, output: sizes.append(len(output)))
    update.backward(batch(13))
    assert sizes == [4, 3, 3, 3]


@pytest.mark.parametrize(("size", "sizes"), [(13, [4, 3, 3, 3]), (5, [3, 2]), (3, [3]), (1, [1])])
def test_parts_have_as_many_samples_as_batch_statistics_need(size, sizes):
    assert [len(part[0]) for part, _ in split(batch(size), 4, least=2)] == sizes


def test_what_is_no_tensor_of_samples_goes_to_every_part():
    parts = [part for part, _ in split({"a": torch.zeros(4, 3), "scale": torch.tensor(2.0), "name": "x"}, 2)]
    assert [(len(part["a"]), part["scale"].item(), part["name"]) for part in parts] == [(2, 2.0, "x")] * 2


def test_clipped_gradients_have_the_norm_over_all_parameters():
    net = norm_free()
    update = Update(net, TASK, torch.optim.SGD(net.parameters(), lr=1), device=CPU, clip_norm=0.01)
    update.backward(batch())
    norm = torch.stack([parameter.grad.norm() for parameter in net.parameters()]).norm()
    torch.testing.assert_close(norm, torch.tensor(0.01), rtol=1e-4, atol=0)


def test_bfloat16_computes_in_bfloat16_and_updates_in_float32():
    net, seen = norm_free(), []
    net[0].register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    ours, loss = updated(net, precision="bfloat16")
    whole, expected = updated(norm_free())
    assert seen == [torch.bfloat16]
    assert loss.dtype == ours[0].weight.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)
    torch.testing.assert_close(ours[0].weight, whole[0].weight, rtol=0, atol=0.02)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_scores_and_ranges_are_measured_in_float32(precision):
    torch.manual_seed(1)
    hosts = {"prune_schedule": OneShot(sparsity=0.5, at=1), "quant_schedule": QuantizeFrom(1)}
    layer = PrunedQuantConv2d(6, 5, 3, at="output", weight_bits=4, act_bits=4, **hosts)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    driver = ScheduleDriver(net)
    outputs = []
    layer._modules["output_mask"].register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0]))
    updated(net, precision=precision)
    driver.step()
    mask, quants = layer.output_mask, [layer.weight_quant, layer.output_quant or layer.input_quant]
    assert mask.score.dtype == torch.float32
    assert all(quant.range.dtype == quant.scale.dtype == torch.float32 for quant in quants)
    torch.testing.assert_close(mask.score, outputs[0].float().abs().mean((0, 2, 3)), rtol=1e-6, atol=0)
    assert all(quant.active for quant in quants)


@pytest.mark.parametrize("fused", [False, True])
def test_overflowing_gradients_skip_the_update_but_not_the_step(fused):
    net = norm_free()
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=fused)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    update = Update(net, TASK, optimizer, device=CPU, precision="float16")
    scale = update.scaler.get_scale()
    net[4].weight.register_hook(lambda grad: grad * torch.inf)
    update.backward(batch())
    update.apply()
    schedule.step()  # warns, hence fails here, if it believes that the optimizer never stepped
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert update.scaler.get_scale() == scale / 2
    assert update.state_dict()["scale"] == scale / 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precision": "half"}, "precision must be one of float32, bfloat16, float16; received 'half'"),
        ({"accumulate": 0}, "accumulate must be at least 1 and clip_norm above 0; received 0 and None"),
        ({"clip_norm": 0.0}, "accumulate must be at least 1 and clip_norm above 0; received 1 and 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        updated(norm_free(), **options)


def test_average_moves_and_its_buffers_are_copied():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average = make_average(net, decay=0.75)
    average.update_parameters(net)
    first = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight += 1
        net[1].running_mean += 5
    average.update_parameters(net)
    torch.testing.assert_close(average.module[0].weight, first + 0.25)
    assert torch.equal(average.module[1].running_mean, net[1].running_mean)


def test_average_is_zeroed_with_the_network_when_a_mask_freezes():
    net = nn.Sequential(PrunedConv2d(3, 6, 3, at="output", schedule=OneShot(sparsity=0.5, at=2)))
    average = make_average(net, decay=0.9)
    driver = ScheduleDriver(net, average=average.module)
    for _ in range(4):
        net(torch.randn(2, 3, 5, 7))
        driver.step()
        average.update_parameters(net)
    dropped = ~net[0].output_mask.keep
    assert dropped.sum() == 3
    assert torch.equal(average.module[0].output_mask.keep, net[0].output_mask.keep)
    assert average.module[0].weight[dropped].eq(0).all()
    assert average.module[0].bias[dropped].eq(0).all()
    assert average.module[0].weight[~dropped].ne(0).any()


@pytest.mark.parametrize("ready", [True, False])
def test_weights_are_made_ready_for_each_part_of_a_batch(ready):
    net = nn.Sequential(PrunedQuantConv2d(3, 6, 3), PrunedQuantConv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for host in net[:2]:
        host.weight_quant.measuring = True
    with as_on_gpu(), Calls() as calls:
        other, loss = updated(copy.deepcopy(net), accumulate=2, ready=ready)
    expected, plain_loss = updated(net, accumulate=2)
    assert torch.equal(loss, plain_loss)
    assert all(map(torch.equal, other.state_dict().values(), expected.state_dict().values()))
    assert calls.own.get("compress_rows", 0) == 2 * ready


def test_layers_that_took_the_place_of_others_are_made_ready():
    net = nn.Sequential(PrunedQuantConv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    update = Update(net, TASK, torch.optim.SGD(net.parameters(), lr=0.1), device=CPU)
    net[0] = PrunedQuantConv2d(3, 4, 3)
    for sites in (2, 1):  # the weight by its layer, then by all at once
        with as_on_gpu(), Calls() as calls:
            update.forward(batch())
        assert calls.own["compress_site"] == sites
        update.renew()
