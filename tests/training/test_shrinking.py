"""Channels that leave a network while it trains: the training goes on as that of the masked network."""

import copy
import json
import logging
import math
from pathlib import Path

import pytest
import torch
from attrs import evolve
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.ops import StochasticDepth

import qprune
from qprune import zoo
from qprune.errors import CheckpointError, ShrinkError
from qprune.flow import trace
from qprune.layers import FakeQuant, PrunedConv2d, QuantConv2d, sites
from qprune.schedules import OneShot, QuantizeFrom
from qprune.spec import read_spec
from qprune.tasks import Classification
from qprune.training import ScheduleDriver, Shrinker, Trainer, Update, load_checkpoint, make_average, shrinking

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=5e-3),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.002, weight_decay=5e-3),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.002, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.002),
}
NETS = {
    "mobilenetv2": ({"width": 0.25, "classes": 7}, [{"types": ["ReLU6"], "at": "output"}]),
    "densenet121": ({"width": 0.125, "classes": 7}, [{"types": ["ReLU"], "at": "output"}]),
    "preactresnet18": ({"width": 0.125, "classes": 7}, [{"types": ["Conv2d"], "at": "weight"}]),
}


def pruned(name, steps=3):
    torch.manual_seed(0)
    options, chosen = NETS[name]
    net = zoo.create(name, **options)
    schedule = {"kind": "one-shot", "at": steps}
    importance = "weight-l1" if chosen[0]["at"] == "weight" else "activation-l1"
    rule = {"sites": chosen, "sparsity": 0.75, "importance": importance, "schedule": schedule}
    return qprune.swap(net, example(), prune=[rule])


def example():
    return torch.zeros(2, 3, 16, 24)


def batch(step, size=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(size, 3, 16, 24, generator=generator).to(dtype), torch.randint(7, (size,), generator=generator)


def losses(net, optimizer, steps=5, cut=False, average=None, **options):
    """The losses of a few steps; with ``cut``, channels leave as soon as their masks are frozen."""
    optimizer = OPTIMIZERS[optimizer](net.parameters())
    inner = average and average.module
    like = example().to(next(net.parameters()).dtype)
    driver = ScheduleDriver(net, like, optimizer=optimizer, steps=steps, average=inner)
    shrinker = Shrinker(net, driver, optimizer, example=like, steps=steps, average=inner)
    shrinker.cost = 0
    update = Update(net, Classification(classes=7), optimizer, device=torch.device("cpu"), **options)
    found, dtype = [], next(net.parameters()).dtype
    for step in range(steps):
        found.append(update.backward(batch(step, dtype=dtype)).item())
        update.apply()
        events = driver.step()
        if average is not None:
            average.update_parameters(net)
        if cut:
            shrinker.step(any(event.get("frozen") for event in events))
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_next_loss_is_that_of_the_masked_network_whatever_the_optimizer(optimizer):
    net = pruned("mobilenetv2").double()  # where rounding does not grow into something over the steps
    small = copy.deepcopy(net)
    expected, found = losses(net, optimizer), losses(small, optimizer, cut=True)
    assert found == pytest.approx(expected, rel=1e-6)
    assert sum(p.numel() for p in small.parameters()) < 0.3 * sum(p.numel() for p in net.parameters())
    assert not any(site.mask for site in sites(small))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_next_loss_is_that_of_the_masked_network_in_any_precision(name, precision):
    net = pruned(name)
    small = copy.deepcopy(net)
    expected = losses(net, "sgd", steps=4, precision=precision, clip_norm=5.0)
    found = losses(small, "sgd", steps=4, cut=True, precision=precision, clip_norm=5.0)
    assert found[:3] == expected[:3]  # nothing is cut yet
    # normalizing over six values makes much of rounding
    assert found[3] == pytest.approx(expected[3], rel=2e-3 if precision == "float32" else 0.02)


def test_moments_and_averages_are_cut_with_the_parameters():
    net = pruned("preactresnet18")
    average = make_average(net, decay=0.5)
    whole, twin = copy.deepcopy(net), make_average(net, decay=0.5)
    twin.module.load_state_dict(average.module.state_dict())
    losses(net, "adam", cut=True, average=average)
    losses(whole, "adam", average=twin)
    with torch.no_grad():
        ours, theirs = average.module.eval()(batch(9)[0]), twin.module.eval()(batch(9)[0])
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in average.parameters()) == sum(p.numel() for p in net.parameters())


def test_a_mask_that_is_not_frozen_keeps_all_of_its_channels_and_its_weights():
    torch.manual_seed(0)
    early, late = OneShot(sparsity=0.5, at=1), OneShot(sparsity=0.5, at=9)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), PrunedConv2d(8, 10, 3, schedule=early), nn.ReLU(),
        PrunedConv2d(10, 6, 3, schedule=late, at="weight"), nn.ReLU(), nn.Flatten(), nn.LazyLinear(7),
    )  # fmt: skip
    net(example())
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    driver = ScheduleDriver(net, optimizer=optimizer, steps=20)
    shrinker = Shrinker(net, driver, optimizer, example=example(), steps=20)
    shrinker.cost = 0
    net(batch(0)[0]).sum().backward()
    optimizer.step()
    assert not shrinker.step(False)
    assert shrinker.step(any(event["frozen"] for event in driver.step()))
    assert (net[0].out_channels, net[2].in_channels, net[2].out_channels) == (4, 4, 10)
    assert (net[4].in_channels, net[4].out_channels, net[4].weight_mask.channels) == (10, 6, 6)


def test_cuts_are_rationed_by_steps_and_multiplications_alone(monkeypatch):
    net = pruned("mobilenetv2", steps=2)
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    driver = ScheduleDriver(net, example(), optimizer=optimizer, steps=9)
    shrinker = Shrinker(net, driver, optimizer, example=example(), steps=9)
    for step in range(2):
        net(batch(step)[0]).sum().backward()
        optimizer.step()
        events = driver.step()
    assert not shrinker.step(any(event["frozen"] for event in events))  # seven steps are left: it would not pay
    assert 0.5 < shrinker.excess < 1
    shrinker.steps = 100
    assert shrinker.step(False)
    assert shrinker.excess == shrinker.wasted == 0


def test_an_optimizer_whose_moments_cannot_be_cut_is_refused():
    net = pruned("mobilenetv2", steps=2)
    optimizer = torch.optim.Adafactor(net.parameters())
    driver = ScheduleDriver(net, example(), optimizer=optimizer, steps=9)
    shrinker = Shrinker(net, driver, optimizer, example=example(), steps=9)
    shrinker.cost = 0
    for step in range(2):
        net(batch(step)[0]).sum().backward()
        optimizer.step()
        events = driver.step()
    with pytest.raises(ShrinkError, match=r"Adafactor keeps \w+ of shape .*: they cannot be cut alike"):
        shrinker.step(any(event["frozen"] for event in events))


def test_when_is_checked():
    with pytest.raises(ValueError, match="when must be one of as-frozen, after-pruning; received 'now'"):
        Shrinker(nn.ReLU(), None, None, example=None, steps=1, when="now")  # type: ignore[arg-type]


DIGITS = ["data.train_images=300", "train.batch=30", "train.length=90it", "train.validate_every=30it",
          'prune[0].schedule={kind="layerwise", start="2it", interval="3it", refresh="1it"}']  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same digits, dense, then pruned with and without cutting, then quantized from what was cut."""
    root = tmp_path_factory.mktemp("runs")
    qprune.fit("digits/baseline", runs=root, overrides=DIGITS[:4], verbose=0)
    for when in ("never", "as-frozen", "after-pruning"):
        overrides = [*DIGITS, f'train.shrink="{when}"']
        spec = evolve(read_spec("digits/a75_layerwise", overrides), name=f"digits/{when}")
        qprune.fit(spec, runs=root, verbose=0)
    return root


def report(runs, name):
    return json.loads((runs / name / "report.json").read_text())


@pytest.mark.parametrize("when", ["as-frozen", "after-pruning"])
def test_a_run_that_cuts_is_that_of_the_masked_network(runs, when):
    ours, theirs = report(runs, f"digits/{when}"), report(runs, "digits/never")
    for name in ("parameters", "parameters_kept", "macs", "macs_kept", "sparsity", "packed_bytes"):
        assert ours["costs"][name] == theirs["costs"][name], name
    assert ours["scores"]["test"]["accuracy"] == pytest.approx(theirs["scores"]["test"]["accuracy"], abs=0.05)
    net = qprune.load(f"digits/{when}", runs=runs)
    assert not any(site.mask for site in sites(net))
    assert sum(p.numel() for p in net.parameters()) <= theirs["costs"]["parameters_kept"]
    assert qprune.evaluate(f"digits/{when}", runs=runs) == ours["scores"]["test"]


def test_the_next_stage_trains_on_the_small_network_from_its_first_step(runs):
    seen = []

    class Watch(qprune.training.Callback):  # type: ignore[name-defined]
        def on_train_batch_begin(self, batch, logs):
            if not seen:
                seen.append(sum(p.numel() for p in self.trainer.net.parameters()))

    overrides = [*DIGITS[:2], "train.length=40it", "train.validate_every=20it", 'init="digits/as-frozen"',
                 'quantize[0].start="20it"', 'quantize[1].start="10it"']  # fmt: skip
    history = qprune.fit("digits/a75_w4a4", runs=runs, overrides=overrides, callbacks=[Watch()], verbose=0)
    small = report(runs, "digits/as-frozen")["costs"]["parameters_kept"]
    assert seen[0] <= small
    costs = report(runs, "digits/a75_w4a4")["costs"]
    assert costs["parameters"] == report(runs, "digits/never")["costs"]["parameters"]
    assert costs["parameters_kept"] == small
    assert costs["weight_bits"] == [4]
    scores = qprune.evaluate("digits/a75_w4a4", runs=runs)
    assert scores == history.scores["test"]
    assert all(site.quant.active for site in sites(qprune.load("digits/a75_w4a4", runs=runs)))


def test_the_next_stage_must_have_a_place_for_the_masks_that_were_cut(runs):
    overrides = [*DIGITS[:4], 'init="digits/as-frozen"', "prune=[]"]
    with pytest.raises(CheckpointError, match=r'has masks or quantizers at 6 sites .* kind = "inherited"'):
        qprune.fit("digits/a75_w4a4", name="digits/homeless", runs=runs, overrides=overrides, verbose=0)


def test_a_best_model_is_opened_like_the_last(runs):
    folder = Path(runs / "digits/as-frozen")
    best, final = load_checkpoint(folder / "best.pt"), load_checkpoint(folder / "model.pt")
    assert best["step"] == final["step"]
    assert sum(v.numel() for v in final["state"].values()) <= sum(v.numel() for v in best["state"].values())
    net = qprune.load(folder / "best.pt")
    assert sum(p.numel() for p in net.parameters()) < 10_000


def test_multiplications_are_those_of_the_summary():
    net = pruned("densenet121")
    flow = trace(net, torch.zeros(1, 3, 16, 24))
    assert shrinking.macs(flow) == qprune.summary(net, (3, 16, 24)).total.macs


def test_a_hook_whose_owner_cannot_be_copied_is_in_nobodys_way():
    class Owner:
        def __deepcopy__(self, memo):
            raise NotImplementedError("such as a callback with its trainer, whose loader has processes")

        def look(self, *_):
            pass

    owner, net = Owner(), pruned("mobilenetv2")
    net.register_forward_pre_hook(owner.look)
    before = sum(parameter.numel() for parameter in net.parameters())
    losses(net, "sgd", cut=True)
    assert sum(parameter.numel() for parameter in net.parameters()) < before


# ---- a cut is compared with the network that it is made of, and comparing leaves no trace


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


def one_batch(step, size=7):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(size, 3, 9, 11, generator=generator), torch.randint(5, (size,), generator=generator)


class Loop:
    """A loop as people write it, with all that it goes on with."""

    def __init__(self, net, **options):
        self.net, self.losses = net, []
        self.optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        self.driver = ScheduleDriver(net, optimizer=self.optimizer, steps=20, **options)
        self.shrinker = Shrinker(net, self.driver, self.optimizer, example=one_batch(0)[0], steps=20, **options)
        self.shrinker.cost = 0

    def step(self, number, given=True, size=7):
        images, labels = one_batch(number, size)
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
    assert loop.net[:3](one_batch(9)[0]).shape[1] == 16  # what is counted, with zeros where channels went
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
    images = one_batch(1, size=2)[0][:, :, :5, :5]  # the last normalization sees two values of each channel
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
    torch.testing.assert_close(small.eval()(one_batch(9)[0]), counted.net.eval()(one_batch(9)[0]))
    whole = made()
    whole[3].input_mask.keep[4:] = False
    small = Loop(whole).shrinker.finish(whole)
    assert (whole[0].out_channels, small[0].out_channels) == (16, 4)


def trainer(net, steps=4, size=6, **options):
    """Nine images, in batches of so many."""
    torch.manual_seed(0)
    images, labels = one_batch(0, size=9)
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
