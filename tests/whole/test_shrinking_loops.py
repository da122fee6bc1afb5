"""Loops as people write them go on across a cut, whatever they keep of the steps before it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import qprune
from qprune.errors import ShrinkError
from qprune.layers import PrunedConv2d
from qprune.schedules import OneShot
from qprune.training import ScheduleDriver, Shrinker

STEPS, CUT_AFTER = 6, 2
OPTIMIZERS = {
    "sgd": lambda p, **options: torch.optim.SGD(p, lr=0.05, momentum=0.9, **options),
    "adamw": lambda p, **options: torch.optim.AdamW(p, lr=0.01, **options),
}


def made():
    """A small network in float64, where rounding does not grow over the steps, and its masked twin."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        PrunedConv2d(16, 8, 3, schedule=OneShot(sparsity=0.75, at=CUT_AFTER)), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).double()  # fmt: skip
    return net, copy.deepcopy(net)


def batch(step):
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(7, 3, 9, 11, generator=generator, dtype=torch.float64)
    return images, torch.randint(5, (7,), generator=generator)


def tools(net, kind="sgd", **options):
    optimizer = OPTIMIZERS[kind](net.parameters(), **options)
    driver = ScheduleDriver(net, optimizer=optimizer, steps=STEPS)
    shrinker = Shrinker(net, driver, optimizer, example=batch(0)[0].to(next(net.parameters())), steps=STEPS)
    shrinker.cost = 0
    return optimizer, driver, shrinker


def ends(driver, shrinker, cut):
    events = driver.step()
    if cut:
        shrinker.step(any(event.get("frozen") for event in events))


def plain(net, cut, keep=None, kind="sgd", **options):
    """The losses of a loop; with ``keep``, all that it computes stays alive in that list."""
    optimizer, driver, shrinker = tools(net, kind, **options)
    losses = []
    for step in range(STEPS):
        images, labels = batch(step)
        optimizer.zero_grad()
        output = net(images)
        loss = F.cross_entropy(output, labels)
        loss.backward()
        optimizer.step()
        ends(driver, shrinker, cut)
        losses.append(loss.item())
        if keep is not None:
            keep += [loss, output]
    return losses


def assert_cut(net):
    assert (net[0].out_channels, net[3].in_channels) == (4, 4)


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}], ids=["plain", "foreach", "fused"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_losses_kept_in_a_list_disturb_no_optimizer(kind, options):
    net, masked = made()
    found = plain(net, True, keep=[], kind=kind, **options)
    assert found == pytest.approx(plain(masked, False, kind=kind, **options), rel=1e-9)
    assert_cut(net)


def test_a_loss_is_logged_after_the_loop():
    net, _ = made()
    optimizer, driver, shrinker = tools(net)
    for step in range(STEPS):
        images, labels = batch(step)
        loss = F.cross_entropy(net(images), labels)  # the loss before it lives until here
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends(driver, shrinker, True)
    assert_cut(net)
    assert loss.item() > 0


def test_a_graph_is_retained_for_a_second_backward_pass():
    def train(net, cut):
        optimizer, driver, shrinker = tools(net)
        kept = []
        for step in range(STEPS):
            images, labels = batch(step)
            optimizer.zero_grad()
            output = net(images)
            loss, size = F.cross_entropy(output, labels), output.square().mean()
            loss.backward(retain_graph=True)
            size.backward(retain_graph=True)
            optimizer.step()
            ends(driver, shrinker, cut)
            kept += [loss, size]
        return [loss.item() for loss in kept]

    net, masked = made()
    assert train(net, True) == pytest.approx(train(masked, False), rel=1e-9)
    assert_cut(net)


def test_gradients_are_added_up_across_a_cut():
    def train(net, cut):
        """Every optimizer step takes two batches, and the shrinker is asked after each."""
        optimizer, driver, shrinker = tools(net)
        shrinker.cost = 1e9
        losses, events = [], []
        for half in range(2 * STEPS):
            if half == 2 * CUT_AFTER:  # the masks are frozen, and half of the gradient is there
                shrinker.cost = 0
            images, labels = batch(half)
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            losses.append(loss)
            if half % 2:
                optimizer.step()
                optimizer.zero_grad()
                events += driver.step()
            frozen = any(event["frozen"] for event in events)
            if cut and shrinker.step(frozen):
                assert not half % 2
                assert net[0].weight.grad.shape == net[0].weight.shape
        return [loss.item() for loss in losses]

    net, masked = made()
    assert train(net, True) == pytest.approx(train(masked, False), rel=1e-9)
    assert_cut(net)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_grad_scaler_goes_on(kind):
    def train(net, cut):
        optimizer, driver, shrinker = tools(net.float(), kind)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        losses = []
        for step in range(STEPS):
            images, labels = batch(step)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(net(images.float()), labels)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            ends(driver, shrinker, cut)
            losses.append(loss)
        return [loss.item() for loss in losses]

    net, masked = made()
    assert train(net, True) == pytest.approx(train(masked, False), rel=0.02)
    assert_cut(net)


def test_whoever_holds_a_parameter_holds_it_still():
    net, _ = made()
    optimizer, driver, shrinker = tools(net)
    mine, seen = list(net.parameters()), []
    net[0].weight.register_hook(lambda gradient: seen.append(tuple(gradient.shape)))
    net[3].weight.register_post_accumulate_grad_hook(lambda weight: seen.append(tuple(weight.grad.shape)))
    for step in range(CUT_AFTER + 1):
        images, labels = batch(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(mine, 1e-9)
        optimizer.step()
        ends(driver, shrinker, True)
    assert all(one is other for one, other in zip(mine, net.parameters(), strict=True))
    assert seen[-4:] == [(8, 16, 3, 3), (16, 3, 3, 3), (8, 4, 3, 3), (4, 3, 3, 3)]
    size = torch.stack([parameter.grad.norm() for parameter in net.parameters()]).norm()
    assert size == pytest.approx(1e-9)
    assert {id(parameter) for parameter in optimizer.param_groups[0]["params"]} == set(map(id, mine))


def test_a_backward_pass_through_what_was_cut_is_refused():
    net, _ = made()
    _, driver, shrinker = tools(net)
    for step in range(CUT_AFTER):
        loss = F.cross_entropy(net(batch(step)[0]), batch(step)[1])
        ends(driver, shrinker, True)
    assert_cut(net)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.fixture
def alone(tmp_path):
    """One process that could exchange gradients with others."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_network_that_exchanges_gradients_is_wrapped_anew(alone):
    net, masked = made()
    optimizer, driver, shrinker = tools(net)
    wrapped, losses = DistributedDataParallel(net), []
    for step in range(STEPS):
        images, labels = batch(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(wrapped(images), labels)
        loss.backward()
        optimizer.step()
        events = driver.step()
        if shrinker.step(any(event["frozen"] for event in events)):
            wrapped = DistributedDataParallel(net)
        losses.append(loss)
    assert [loss.item() for loss in losses] == pytest.approx(plain(masked, False), rel=1e-9)
    assert_cut(net)


def test_a_wrapped_network_is_refused(alone):
    net, _ = made()
    with pytest.raises(ShrinkError) as caught:
        tools(DistributedDataParallel(net))
    assert str(caught.value) == (
        "net is a DistributedDataParallel, which exchanges gradients of the shapes that it was made with. Give the "
        "driver and the shrinker net.module, and wrap that anew whenever shrinker.step returns True."
    )


def test_layers_with_one_parameter_are_in_nobodys_way():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 6, 3)
            self.pruned = PrunedConv2d(6, 7, 3, schedule=OneShot(sparsity=0.5, at=1))
            self.one, self.other = nn.Conv2d(7, 7, 1), nn.Conv2d(7, 7, 1)
            self.other.weight = self.one.weight
            self.last = nn.Linear(7, 5)

        def forward(self, x):
            return self.last(self.other(self.one(self.pruned(self.first(x)).relu()).relu()).mean((2, 3)))

    torch.manual_seed(0)
    net = Tied().double()
    plain(net, True, keep=[])
    assert net.first.out_channels == 3
    assert net.other.weight is net.one.weight


def test_a_network_is_shrunk_in_inference_mode():
    net, _ = made()
    net[3].input_mask.keep[4:] = False
    with torch.inference_mode():
        assert_cut(qprune.shrink(net, batch(0)[0]))
