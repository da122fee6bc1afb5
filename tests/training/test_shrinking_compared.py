"""A cut in training is compared with the network that it is made of, and comparing leaves no trace."""

import copy
import logging
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.ops import StochasticDepth

from qprune.errors import ShrinkError
from qprune.layers import FakeQuant, PrunedConv2d, QuantConv2d
from qprune.schedules import OneShot, QuantizeFrom
from qprune.tasks import Classification
from qprune.training import ScheduleDriver, Shrinker, Trainer, make_average, shrinking

CUT_AFTER = 2


class Scaled(nn.Module):
    """Multiplies by its number of channels, where nobody who follows the network's shapes sees it."""

    def __init__(self, training_only=False):
        super().__init__()
        self.training_only = training_only

    def forward(self, x):
        return x if x.is_meta or (self.training_only and not self.training) else x * x.shape[1] ** 0.5


class Functional(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.4, training=self.training)


def made(*between, behind=()):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), *between,
        PrunedConv2d(16, 8, 3, schedule=OneShot(sparsity=0.75, at=CUT_AFTER)), *behind, nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def batch(step, size=7):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(size, 3, 9, 11, generator=generator), torch.randint(5, (size,), generator=generator)


class Loop:
    """A loop as people write it, with all that it goes on with."""

    def __init__(self, net, **options):
        self.net, self.losses = net, []
        self.optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        self.driver = ScheduleDriver(net, optimizer=self.optimizer, steps=20, **options)
        self.shrinker = Shrinker(net, self.driver, self.optimizer, example=batch(0)[0], steps=20, **options)
        self.shrinker.cost = 0

    def step(self, number, given=True, size=7):
        images, labels = batch(number, size)
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.net(images), labels)
        loss.backward()
        self.optimizer.step()
        events = self.driver.step()
        self.losses.append(loss)
        return self.shrinker.step(any(event.get("frozen") for event in events), images if given else None)

    def train(self, steps=CUT_AFTER, **options):
        return [self.step(number, **options) for number in range(steps)]


@pytest.mark.parametrize("given", [True, False], ids=["present batch", "example"])
def test_a_difference_is_an_error_that_names_its_place_and_nothing_is_cut(given):
    loop = Loop(made(Scaled()))
    loop.step(0, given)
    with pytest.raises(ShrinkError) as caught:
        loop.step(1, given)
    assert "The network without its dropped channels does not compute what the network computes" in str(caught.value)
    assert 'It begins before or in "4" (Conv2d).' in str(caught.value)
    assert str(caught.value).endswith('Or train with shrink = "never"; nothing was cut.')
    assert loop.net[0].out_channels == 16
    assert loop.optimizer.state[loop.net[0].weight]["momentum_buffer"].shape == (16, 3, 3, 3)
    loop.shrinker.cost = 1e9
    loop.step(2)  # without the shrinker training could go on


def test_it_is_compared_in_the_mode_that_training_runs_in():
    with pytest.raises(ShrinkError, match="does not compute what the network computes"):
        Loop(made(Scaled(training_only=True))).train()
    frozen = Loop(made(Scaled(training_only=True)))
    frozen.net[3].eval()  # as people keep some layers in eval mode while they train
    assert frozen.train() == [False, True]


def test_every_cut_is_compared():
    late = PrunedConv2d(6, 8, 1, schedule=OneShot(sparsity=0.5, at=4))
    loop = Loop(made(behind=[nn.ReLU(), nn.Conv2d(8, 6, 1), Scaled(), late]))
    assert loop.train(3) == [False, True, False]
    with pytest.raises(ShrinkError, match="nothing was cut"):
        loop.step(3)


class Counted(nn.Module):
    """Multiplies by a number that is made of its number of channels; ``log2`` hands it on without a word."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, x):
        return x * self.number(x.shape[1])


@pytest.mark.parametrize(("number", "cautious"), [(lambda c: c**0.5, False), (math.log2, True)], ids=["power", "log2"])
def test_channels_that_a_forward_counts_stay_and_the_others_go(number, cautious):
    late = PrunedConv2d(8, 6, 1, schedule=OneShot(sparsity=0.5, at=CUT_AFTER))
    loop = Loop(made(Counted(number), behind=[nn.ReLU(), late, nn.Conv2d(6, 8, 1)]))
    masked = copy.deepcopy(loop.net)
    assert loop.train(4) == [False, True, False, False]
    assert loop.net[4].out_channels == 4
    assert loop.net[:3](batch(9)[0]).shape[1] == 16  # what is counted, with zeros where channels went
    assert loop.shrinker.state_dict()["cautious"] == cautious
    plain = Loop(masked)
    plain.shrinker.cost = 1e9
    plain.train(4)
    assert [loss.item() for loss in loop.losses] == pytest.approx([loss.item() for loss in plain.losses], rel=1e-4)


def test_care_that_was_taken_once_is_taken_by_a_resumed_training():
    loop = Loop(made(Counted(math.log2)))
    assert loop.train() == [False, True]
    again = Loop(made(Counted(math.log2)))
    again.shrinker.load_state_dict(loop.shrinker.state_dict())
    assert again.shrinker.cautious
    state = loop.shrinker.state_dict()
    del state["cautious"]  # as in files of before
    again.shrinker.load_state_dict(state)
    assert not again.shrinker.cautious


RANDOM = {
    "module": lambda: nn.Dropout(0.5),
    "channels": lambda: nn.Dropout2d(0.5),
    "function": Functional,
    "depth": lambda: StochasticDepth(0.5, "row"),
    "mish": lambda: nn.Sequential(nn.Mish(), nn.AlphaDropout(0.3)),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_what_is_drawn_in_training_is_no_difference(kind):
    loop = Loop(made(RANDOM[kind]()))
    assert loop.train() == [False, True]
    loop.step(2)


def everything(loop):
    """All tensors that training goes on with."""
    quants = [part for part in loop.net.modules() if isinstance(part, FakeQuant)]
    held = {f"net.{name}": tensor for name, tensor in loop.net.named_buffers()}
    held |= {f"net.{name}": tensor for name, tensor in loop.net.named_parameters()}
    for index, state in enumerate(loop.optimizer.state.values()):
        held |= {f"{index}.{name}": value for name, value in state.items() if isinstance(value, torch.Tensor)}
    held |= {f"range.{index}": quant.pending_high for index, quant in enumerate(quants)}
    return held | {"random": torch.get_rng_state()} | {str(i): loss for i, loss in enumerate(loop.losses)}


def test_training_goes_on_to_the_same_bits_whether_or_not_it_was_compared(monkeypatch):
    def trained():
        torch.manual_seed(3)
        net = made(nn.Dropout(0.3), QuantConv2d(16, 16, 1, schedule=QuantizeFrom(1)))
        seen = []
        net.register_forward_hook(lambda *_: seen.append(1))
        loop = Loop(net)
        loop.train(5)
        assert loop.net[5].in_channels == 4
        assert len(seen) == 5  # a hook does not see what is compared
        return everything(loop)

    compared = trained()
    monkeypatch.setattr(shrinking, "assert_same", lambda *_, **__: None)
    plain = trained()
    assert compared.keys() == plain.keys()
    assert [name for name, value in compared.items() if not torch.equal(value, plain[name])] == []


def test_few_values_and_few_bits_are_no_difference():
    loop = Loop(made(behind=[nn.BatchNorm2d(8)]))
    loop.step(0, size=2)
    images = batch(1, size=2)[0][:, :, :5, :5]  # the last normalization sees two values of each channel
    loop.net(images).sum().backward()
    events = loop.driver.step()
    with torch.autocast("cpu", torch.bfloat16):
        assert loop.shrinker.step(any(event["frozen"] for event in events), images)


def test_a_network_that_computes_in_one_precision_only_is_compared_in_that():
    class Single(nn.Module):
        def forward(self, x):
            if x.dtype != torch.float32:
                raise TypeError("a kernel of somebody's own")
            return x

    assert Loop(made(Single())).train() == [False, True]
    with pytest.raises(ShrinkError, match="does not compute what the network computes"):
        Loop(made(Single(), Scaled())).train()


def test_the_moving_average_is_compared_too():
    net = made(Scaled(training_only=True))
    average = make_average(net, decay=0.5)
    loop = Loop(net, average=average.module)
    average.module[3].training_only = False
    loop.step(0)
    with pytest.raises(ShrinkError, match="nothing was cut"):
        loop.step(1, given=False)


def test_the_last_cut_of_a_training_is_compared_and_left_out_where_it_differs(caplog):
    loop = Loop(made(Scaled()))
    mask = loop.net[4].input_mask
    mask.keep[4:] = False
    with caplog.at_level(logging.WARNING):
        assert loop.shrinker.finish(loop.net) is loop.net
    assert "The trained network keeps all channels that training left: The network without" in caplog.text
    counted = Loop(made(Counted(math.log2)))
    counted.net[4].input_mask.keep[4:] = False
    small = counted.shrinker.finish(counted.net)
    assert small[4].in_channels == 4
    torch.testing.assert_close(small.eval()(batch(9)[0]), counted.net.eval()(batch(9)[0]))
    whole = made()
    whole[3].input_mask.keep[4:] = False
    small = Loop(whole).shrinker.finish(whole)
    assert (whole[0].out_channels, small[0].out_channels) == (16, 4)


def trainer(net, steps=4, size=6, **options):
    """Nine images, in batches of so many."""
    torch.manual_seed(0)
    images, labels = batch(0, size=9)
    loader = DataLoader(TensorDataset(images, labels), batch_size=size)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    driver = ScheduleDriver(net, optimizer=optimizer, steps=steps)
    shrinker = Shrinker(net, driver, optimizer, example=torch.zeros(1, 3, 9, 11, device="meta"), steps=steps)
    shrinker.cost = 0
    tools = {"train": loader, "optimizer": optimizer, "driver": driver, "shrinker": shrinker, "steps": steps}
    return Trainer(net, Classification(classes=5), **tools, **options)


@pytest.mark.parametrize(("accumulate", "size"), [(1, 3), (2, 2)])
def test_the_loop_compares_on_its_batch_in_its_precision_and_follows_the_network_without(monkeypatch, accumulate, size):
    seen = []

    def noted(before, after, example, **_):
        before.eval()(example)
        seen.append((tuple(example.shape), before.training, torch.is_autocast_enabled("cpu")))

    def followed(*arguments):
        assert not torch.is_autocast_enabled("cpu")
        return analyse(*arguments)

    analyse = shrinking.analyse
    monkeypatch.setattr(shrinking, "assert_same", noted)
    monkeypatch.setattr(shrinking, "analyse", followed)
    net = made()
    trainer(net, accumulate=accumulate, precision="bfloat16").fit()
    assert net[0].out_channels == 4
    assert seen == [((size, 3, 9, 11), True, True)]


def test_the_loop_ends_where_a_cut_would_compute_something_else():
    net = made(Scaled())
    with pytest.raises(ShrinkError, match="nothing was cut"):
        trainer(net).fit()
    assert net[0].out_channels == 16


def test_a_resumed_loop_ends_with_the_same_bits_whether_or_not_it_was_compared(monkeypatch):
    def net():
        return made(nn.Dropout(0.3), behind=[nn.BatchNorm2d(8)])

    whole = trainer(net(), steps=6, size=9)
    whole.fit()
    before = trainer(net(), steps=6, size=9)  # seeds anew
    before.steps = CUT_AFTER - 1  # it ends before the cut
    before.fit()
    state = copy.deepcopy(before.state_dict())
    for compares in (True, False):
        if not compares:
            monkeypatch.setattr(shrinking, "assert_same", lambda *_, **__: None)
        after = trainer(net(), steps=6, size=9)
        after.resume_from(copy.deepcopy(state))
        after.fit()
        assert after.net[0].out_channels == 4
        expected = whole.net.state_dict()
        assert [name for name, value in after.net.state_dict().items() if not torch.equal(value, expected[name])] == []
