import copy

import pytest
import torch
from torch import nn
from torch.autograd.profiler import profile

from qprune.assemble import swap
from qprune.errors import CheckpointError, PlanError, TrainingError
from qprune.functional import keep_top
from qprune.importances import ActivationL1
from qprune.layers import PrunedConv2d, PrunedLinear, PrunedQuantConv2d, QuantConv2d, sites
from qprune.schedules import Inherited, Layerwise, OneShot, QuantizeFrom, Stepwise
from qprune.spec import PruneRule, Selector
from qprune.training import ScheduleDriver
from qprune.zoo import Add

SHOT = OneShot(sparsity=0.5, at=2)

channel_score = ActivationL1().measure


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def batch(n=2):
    return torch.randn(n, 3, 5, 7)


def two_layers(first, second=None, at="output", **options):
    return nn.Sequential(
        PrunedConv2d(3, 6, 3, at=at, schedule=first, **options),
        nn.ReLU(),
        PrunedConv2d(6, 4, 1, at=at, schedule=second or first, **options),
    )


def train(net, driver, optimizer=None, steps=1):
    """A loop as people write it; returns what happened."""
    events = []
    for _ in range(steps):
        loss = net(batch()).square().mean()
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        events += driver.step()
    return events


def at_steps(events):
    return [(event["step"], event["site"]) for event in events]


def residual(schedule, importance="activation-l1", **options):
    """A sum of two convolutions behind rectifiers, one of which is a thousand times as large; coupled or not."""
    net = nn.Sequential()
    net.a, net.act_a, net.b, net.act_b = nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(3, 6, 1), nn.ReLU()
    net.add, net.c, net.act_c, net.d = Add(), nn.Conv2d(6, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1)
    net.__class__ = type("Residual", (nn.Sequential,), {"forward": _residual_forward})
    nn.init.constant_(net.b.bias, 1000.0)
    rule = PruneRule((Selector(types=("ReLU",), at="output"),), schedule, importance, couple=True, **options)
    return swap(net, batch(), [rule])


def _residual_forward(net, x):
    return net.d(net.act_c(net.c(net.add(net.act_a(net.a(x)), net.act_b(net.b(x))))))


# when things happen


def test_one_shot_prunes_at_its_step():
    net = two_layers(SHOT)
    driver = ScheduleDriver(net)
    assert train(net, driver) == []
    assert net[0].output_mask.keep.all()
    assert train(net, driver) == [
        {"step": 2, "site": "0.output", "sparsity": 0.5, "frozen": True},
        {"step": 2, "site": "2.output", "sparsity": 0.5, "frozen": True},
    ]
    assert (net[0].output_mask.keep.sum(), net[2].output_mask.keep.sum()) == (3, 2)
    assert train(net, driver, steps=5) == []


def test_the_mask_acts_from_the_forward_of_its_step_on():
    net = two_layers(SHOT)
    driver = ScheduleDriver(net)
    zeros = []
    for _ in range(4):
        zeros.append(int((net(batch()) == 0).all((0, 2, 3)).sum()))
        driver.step()
    assert zeros == [0, 0, 2, 2]


def test_stepwise_follows_the_cubic():
    net = nn.Sequential(PrunedLinear(40, 3, schedule=Stepwise(sparsity=0.75, start=3, every=2, times=5)))
    driver, events = ScheduleDriver(net), []
    for _ in range(12):
        net(torch.randn(2, 40))
        events += driver.step()
    assert [event["step"] for event in events] == [3, 5, 7, 9, 11]
    assert [round(40 * event["sparsity"]) for event in events] == [14, 23, 28, 29, 30]
    assert [event["frozen"] for event in events] == [False] * 4 + [True]


def test_layerwise_refreshes_site_after_site():
    net = two_layers(Layerwise(0.5, start=1, interval=4, refresh=2))
    driver = ScheduleDriver(net, batch())
    events = train(net, driver, steps=12)
    assert at_steps(events) == [(3, "0.output"), (5, "0.output"), (8, "2.output"), (10, "2.output")]
    assert [event["frozen"] for event in events] == [False, True, False, True]


def test_layerwise_follows_the_data_and_not_registration():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            schedule = Layerwise(0.5, start=1, interval=2, refresh=2)
            self.second = PrunedConv2d(6, 4, 1, at="output", schedule=schedule)
            self.first = PrunedConv2d(3, 6, 1, at="output", schedule=schedule)

        def forward(self, x):
            return self.second(self.first(x))

    net = Backwards()
    assert at_steps(train(net, ScheduleDriver(net, batch()), steps=8)) == [(3, "first.output"), (6, "second.output")]


def test_data_flow_order_asks_for_an_example():
    with pytest.raises(PlanError, match=r"^Layerwise order by data flow needs the network to run once: pass example="):
        ScheduleDriver(two_layers(Layerwise(0.5, start=1, interval=2, refresh=2)))


def test_finished_is_when_the_last_event_is_over():
    net = two_layers(SHOT, OneShot(sparsity=0.5, at=3))
    driver = ScheduleDriver(net)
    finished = []
    for _ in range(4):
        finished.append(driver.finished)
        train(net, driver)
    assert finished == [False, False, False, True]
    assert driver.plan.finished_by == 3


def test_training_too_short_for_the_schedules_is_refused():
    with pytest.raises(PlanError, match="pruning ends at step 2, but training ends at step 1"):
        ScheduleDriver(two_layers(SHOT), steps=1)


def test_epochs_become_steps():
    net = two_layers(OneShot(0.5, at="0.5ep"))
    assert at_steps(train(net, ScheduleDriver(net, steps_per_epoch=8), steps=6)) == [(4, "0.output"), (4, "2.output")]


# what is measured


def test_greedy_means_that_a_site_is_measured_in_the_already_pruned_network():
    net = two_layers(Layerwise(0.5, start=0, interval=2, refresh=2))
    conv, _, second = copy.deepcopy(net)
    driver, x, last = ScheduleDriver(net, batch()), batch(), net[2]
    for _ in range(6):
        net(x)
        driver.step()
    raw = nn.functional.conv2d(x, conv.weight, conv.bias)
    keep = keep_top(channel_score(raw), 0.5)
    assert torch.equal(net[0].output_mask.keep, keep)
    pruned = nn.functional.conv2d(raw.relu() * keep.view(-1, 1, 1), second.weight, second.bias)
    torch.testing.assert_close(last.output_mask.score, channel_score(pruned))
    dense = channel_score(nn.functional.conv2d(raw.relu(), second.weight, second.bias))
    assert not torch.allclose(last.output_mask.score, dense)


def test_scores_are_the_mean_over_the_measured_steps_alone():
    net = nn.Sequential(PrunedConv2d(3, 6, 1, schedule=OneShot(0.5, at=3, measure=2)))
    driver, batches = ScheduleDriver(net), [batch() for _ in range(5)]
    for x in batches:
        net(x)
        driver.step()
    expected = torch.stack([channel_score(x) for x in batches[1:3]]).mean(0)
    torch.testing.assert_close(net[0].input_mask.score, expected)
    assert net[0].input_mask.seen == 2


def test_several_forwards_belong_to_one_step():
    net = nn.Sequential(PrunedConv2d(3, 6, 1, schedule=SHOT))
    driver, batches = ScheduleDriver(net), [batch(n) for n in (2, 3, 4)]
    driver.step()
    for x in batches:
        net(x)
    assert net[0].input_mask.seen == 0
    assert at_steps(driver.step()) == [(2, "0.input")]
    assert net[0].input_mask.seen == 1
    torch.testing.assert_close(net[0].input_mask.score, channel_score(torch.cat(batches)))


def test_a_site_that_is_due_without_any_forward_is_named():
    net = two_layers(SHOT)
    driver = ScheduleDriver(net)
    driver.step()
    with pytest.raises(PlanError) as caught:
        driver.step()
    assert str(caught.value) == "0.output is due at step 2, but no training forward has reached it yet."
    quantized = nn.Sequential(QuantConv2d(3, 4, 1, weight_bits=None, schedule=QuantizeFrom(1)))
    driver = ScheduleDriver(quantized)
    with pytest.raises(PlanError, match=r"^0.input is due at step 1, but no training forward"):
        driver.step()


def test_steps_without_a_forward_change_no_scores():
    net = nn.Sequential(PrunedConv2d(3, 6, 1, schedule=OneShot(0.5, at=9, measure=9)))
    driver = ScheduleDriver(net)
    train(net, driver, steps=3)
    before = net[0].input_mask.score.clone()
    for _ in range(4):
        driver.step()
    torch.testing.assert_close(net[0].input_mask.score, before, rtol=1e-6, atol=0)
    assert net[0].input_mask.seen == 3


def test_forwards_in_eval_change_nothing():
    def run(evaluate):
        torch.manual_seed(0)
        net = nn.Sequential(
            PrunedQuantConv2d(3, 6, 1, prune_schedule=SHOT, quant_schedule=QuantizeFrom(3), weight_bits=4, act_bits=4)
        )
        driver, batches = ScheduleDriver(net), [batch() for _ in range(5)]
        for x in batches:
            net(x)
            if evaluate:
                net.eval()(x * 9)
                net.train()
            driver.step()
        return net.state_dict()

    plain, evaluated = run(False), run(True)
    assert all(torch.equal(value, evaluated[key]) for key, value in plain.items())


def test_weights_are_scored_as_they_are_when_the_mask_is_chosen():
    net = two_layers(SHOT, at="weight")
    driver, optimizer = ScheduleDriver(net), torch.optim.SGD(net.parameters(), lr=0.1)
    train(net, driver, optimizer)
    net[0].weight.data = torch.randn(6, 3, 3, 3)
    weight = net[0].weight.detach().clone()
    driver.step()
    score = weight.abs().mean((1, 2, 3))
    assert torch.equal(net[0].weight_mask.score, score)
    assert torch.equal(net[0].weight_mask.keep, keep_top(score, 0.5))


def test_weights_may_be_pruned_at_step_0():
    net = two_layers(OneShot(0.5, at=0), at="weight")
    ScheduleDriver(net)
    assert net[0].weight_mask.keep.sum() == 3
    assert (net[0].weight == 0).all((1, 2, 3)).sum() == 3


def test_random_importance_is_reproducible_and_leaves_the_global_generator_alone():
    def keeps(seed, disturb):
        torch.manual_seed(disturb)
        net = nn.Sequential(
            PrunedLinear(40, 40, at="output", schedule=OneShot(0.5, at=2, measure=2), importance="random"),
            PrunedLinear(40, 40, at="weight", schedule=OneShot(0.5, at=2, measure=2), importance="random"),
        )
        driver = ScheduleDriver(net, seed=seed)
        state = torch.random.get_rng_state()
        for _ in range(2):
            net(torch.zeros(2, 40))
            driver.step()
        assert torch.equal(torch.random.get_rng_state(), state)
        return net[0].output_mask.keep, net[1].weight_mask.keep

    first, second = keeps(0, 1), keeps(0, 2)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], keeps(5, 1)[0])
    assert first[0].sum() == 20


def test_scores_that_are_no_numbers_name_the_site():
    net = two_layers(SHOT)
    driver = ScheduleDriver(net)
    driver.step()
    net(batch() * torch.nan)
    with pytest.raises(TrainingError) as caught:
        driver.step()
    assert str(caught.value).startswith("0.output, step 2: scores hold NaN")


# tied masks


def test_norms_follow_the_masks_they_are_tied_to():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
            self.norm, self.last = nn.BatchNorm2d(10), nn.Conv2d(10, 2, 1)

        def forward(self, x):
            return self.last(self.norm(torch.cat([self.a(x), self.b(x)], 1)))

    rules = [
        PruneRule((Selector(paths=("a",), at="weight"),), OneShot(0.5, at=1), "weight-l1"),
        PruneRule((Selector(paths=("b",), at="weight"),), OneShot(0.5, at=2), "weight-l1"),
    ]
    net = swap(Joined(), batch(), rules)
    nn.init.constant_(net.norm.bias, 0.5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    driver = ScheduleDriver(net, optimizer=optimizer)
    train(net, driver, optimizer)
    assert torch.equal(net.norm.output_mask.keep, torch.cat([net.a.weight_mask.keep, torch.ones(6, dtype=torch.bool)]))
    train(net, driver, optimizer)
    keep = torch.cat([net.a.weight_mask.keep, net.b.weight_mask.keep])
    assert torch.equal(net.norm.output_mask.keep, keep)
    assert torch.equal(net.norm.weight == 0, ~keep)
    assert torch.equal(net.norm.bias == 0, ~keep)
    train(net, driver, optimizer, steps=3)
    assert torch.equal(net.norm.bias == 0, ~keep)


# inherited masks


def test_inherited_masks_stay_and_their_entries_are_zero_from_the_start():
    source = nn.Sequential(PrunedConv2d(3, 6, 1, schedule=SHOT, at="output"))
    train(source, ScheduleDriver(source), steps=2)
    net = nn.Sequential(
        PrunedQuantConv2d(3, 6, 1, at="output", prune_schedule=Inherited(), quant_schedule=QuantizeFrom(1))
    )
    net.load_state_dict(source.state_dict())
    with torch.no_grad():
        net[0].weight.fill_(1)
    keep = net[0].output_mask.keep.clone()
    driver = ScheduleDriver(net)
    assert torch.equal((net[0].weight == 0).all((1, 2, 3)), ~keep)
    events = train(net, driver, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), steps=3)
    assert {event["site"] for event in events} == {"0.weight", "0.input"}
    assert torch.equal(net[0].output_mask.keep, keep)


def test_an_inherited_mask_that_drops_nothing_is_refused():
    with pytest.raises(PlanError) as caught:
        ScheduleDriver(two_layers(Inherited()))
    assert str(caught.value) == (
        "0.output inherits its mask, but the mask drops nothing: load a pruned network first "
        "(init in a spec, load_state_dict in a loop), or give it another schedule."
    )


def test_an_inherited_mask_with_too_few_channels_to_drop_one_is_taken_over():
    schedules = OneShot(0.2, at=1), OneShot(0.5, at=1)  # floor(0.2 * 3) = 0 channels
    source = nn.Sequential(*(PrunedConv2d(3, 3, 1, schedule=schedule) for schedule in schedules))
    train(source, ScheduleDriver(source))
    net = nn.Sequential(*(PrunedConv2d(3, 3, 1, schedule=Inherited()) for _ in schedules))
    net.load_state_dict(source.state_dict())
    assert ScheduleDriver(net).finished
    assert [int(site.mask.keep.sum()) for site in sites(net)] == [3, 2]


# quantizers


@pytest.mark.parametrize("start", [0, 1])
def test_a_quantizer_observes_a_step_before_it_activates(start):
    net = nn.Sequential(QuantConv2d(3, 4, 1, schedule=QuantizeFrom(start), weight_bits=4, act_bits=3))
    driver, x = ScheduleDriver(net), batch()
    dense = nn.functional.conv2d(x, net[0].weight, net[0].bias)
    assert torch.equal(net(x), dense)
    assert driver.step() == [
        {"step": 1, "site": "0.input", "bits": 3},
        {"step": 1, "site": "0.weight", "bits": 4},
    ]
    assert net[0].input_quant.seen == 1
    assert torch.equal(net[0].input_quant.range, torch.stack([x.amin(), x.amax()]))
    assert not torch.equal(net(x), dense)


def test_a_quantizer_goes_on_measuring():
    net = nn.Sequential(QuantConv2d(3, 4, 1, schedule=QuantizeFrom(3, measure=1)))
    train(net, ScheduleDriver(net), steps=6)
    assert net[0].input_quant.seen == 4


# dropped entries

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
}


def dropped(net):
    """Every entry that belongs to a dropped channel, in weights and biases."""
    first, second = net[0], net[2]
    keep_in, keep_out, keep_w = first.input_mask.keep, first.output_mask.keep, second.weight_mask.keep
    return [
        (first.weight, ~(keep_out.view(-1, 1, 1, 1) & keep_in.view(1, -1, 1, 1)).expand_as(first.weight)),
        (first.bias, ~keep_out),
        (second.weight, ~keep_w.view(-1, 1, 1, 1).expand_as(second.weight)),
        (second.bias, ~keep_w),
    ]


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_dropped_entries_and_their_moments_are_zero_and_stay_zero(name, given):
    net = nn.Sequential(
        PrunedConv2d(3, 6, 3, schedule=SHOT), nn.ReLU(), PrunedConv2d(6, 4, 1, at="weight", schedule=SHOT)
    )
    net[0].add_mask("output", schedule=OneShot(sparsity=0.5, at=3))
    optimizer = OPTIMIZERS[name](net.parameters())
    driver = ScheduleDriver(net, optimizer=optimizer if given else None)
    for step in range(8):
        train(net, driver, optimizer)
        if step < 2:
            continue
        for parameter, gone in dropped(net):
            assert gone.any()
            assert not parameter[gone].any()
            if step > 2:
                assert not parameter.grad[gone].any()
            if given:
                moments = [v for v in optimizer.state[parameter].values() if v.shape == parameter.shape]
                assert moments
                assert not any(moment[gone].any() for moment in moments)
            assert parameter[~gone].all()


def test_entries_of_a_mask_that_may_still_change_are_kept():
    net = nn.Sequential(PrunedConv2d(3, 6, 1, at="weight", schedule=Stepwise(0.75, start=1, every=2, times=2)))
    driver = ScheduleDriver(net)
    train(net, driver)
    assert not net[0].weight_mask.keep.all()
    assert net[0].weight.all()
    train(net, driver)
    assert net[0].weight_mask.score.all()  # a step that measures activations leaves the scores of weights alone
    train(net, driver)
    assert not net[0].weight[~net[0].weight_mask.keep].any()


def test_what_stood_in_dropped_entries_does_not_come_back_in_eval():
    net = two_layers(SHOT, at="weight")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    train(net, ScheduleDriver(net, optimizer=optimizer), optimizer, steps=5)
    out = net.eval()(batch())
    assert torch.equal((out == 0).all((0, 2, 3)), ~net[2].weight_mask.keep)


def test_an_optimizer_of_another_network_is_refused():
    net = two_layers(SHOT)
    with pytest.raises(PlanError) as caught:
        ScheduleDriver(copy.deepcopy(net), optimizer=torch.optim.SGD(net.parameters(), lr=0.1))
    assert str(caught.value) == (
        "The optimizer holds no parameter of the network: make it from the network that swap returned."
    )


# stop and go on


def experiment(at=0):
    torch.manual_seed(0)
    schedule = Layerwise(0.5, start=1, interval=3, refresh=2)
    quant = QuantizeFrom(6, measure=4)
    net = nn.Sequential(
        PrunedQuantConv2d(
            3, 6, 3, at="output", prune_schedule=schedule, quant_schedule=quant, weight_bits=4, act_bits=4
        ),
        nn.ReLU(),
        PrunedQuantConv2d(6, 4, 1, at="weight", prune_schedule=OneShot(0.5, at=at), quant_schedule=quant),
        nn.Sequential(PrunedConv2d(4, 5, 1, schedule=schedule), nn.Conv2d(5, 2, 1)),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    return net, optimizer, ScheduleDriver(net, torch.zeros(2, 3, 5, 7), optimizer=optimizer)


def go(net, optimizer, driver, batches):
    events = []
    for x in batches:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        events += driver.step()
    return events


# at: the step of a mask at a weight; late: the driver is made when the network is loaded already
@pytest.mark.parametrize(
    ("stop", "at", "late"), [*((stop, 0, False) for stop in range(1, 11)), (1, 1, True), (4, 1, True), (9, 1, True)]
)
def test_stop_and_go_on_equals_never_having_stopped(stop, at, late):
    batches = [torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(i)) for i in range(11)]
    whole = experiment(at)
    events = go(*whole, batches)
    first = experiment(at)
    before = go(*first, batches[:stop])
    saved = copy.deepcopy([part.state_dict() for part in first])
    net, optimizer, driver = experiment(at)
    net.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    if late:
        driver = ScheduleDriver(net, torch.zeros(2, 3, 5, 7), optimizer=optimizer)
    driver.load_state_dict(saved[2])
    assert before + go(net, optimizer, driver, batches[stop:]) == events
    assert all(torch.equal(value, whole[0].state_dict()[key]) for key, value in net.state_dict().items())
    assert driver.state_dict() == whole[2].state_dict()
    assert driver.steps_done == 11
    assert driver.finished


@pytest.mark.parametrize(
    ("schedule", "per_epoch"), [(Layerwise(0.5, "1ep", "1ep", "1ep"), 3), (Layerwise(0.4, "1ep", "1ep", "1ep"), 2)]
)
def test_state_of_another_plan_is_refused(schedule, per_epoch):
    driver = ScheduleDriver(two_layers(Layerwise(0.5, "1ep", "1ep", "1ep")), batch(), steps_per_epoch=2)
    other = ScheduleDriver(two_layers(schedule), batch(), steps_per_epoch=per_epoch)
    sentence = (
        r"^The checkpoint is of another plan: 0\.output \(mask\) has another schedule there, first of 2\. "
        r"Go on with the schedules and the steps per epoch that it was written with, or begin anew\.$"
    )
    with pytest.raises(CheckpointError, match=sentence):
        other.load_state_dict(driver.state_dict())
    assert other.steps_done == 0


def test_state_of_a_site_that_is_gone_is_refused():
    driver = ScheduleDriver(two_layers(SHOT))
    with pytest.raises(
        CheckpointError, match=r"another plan: 2\.output \(mask\) has another schedule there, first of 1"
    ):
        ScheduleDriver(two_layers(SHOT)[:1]).load_state_dict(driver.state_dict())


def test_state_that_knows_no_plan_is_taken():
    driver = ScheduleDriver(two_layers(SHOT))
    driver.load_state_dict({"steps_done": 1})
    assert driver.steps_done == 1


# a loop by hand


def test_a_hand_written_loop_prunes_and_quantizes():
    net = nn.Sequential(
        PrunedConv2d(3, 8, 3, at="output", schedule=Stepwise(sparsity=0.75, start=4, every=2, times=3)),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        QuantConv2d(8, 6, 3, weight_bits=4, act_bits=4, schedule=QuantizeFrom(10)),
        nn.Flatten(),
        PrunedLinear(6 * 1 * 3, 5, schedule=OneShot(sparsity=0.5, at=6)),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    driver = ScheduleDriver(net, optimizer=optimizer)
    images, labels = torch.randn(64, 3, 5, 7), torch.randint(5, (64,))
    losses, events = [], []
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        events += driver.step()
    assert at_steps(events) == [
        (4, "0.output"), (6, "0.output"), (6, "5.input"), (8, "0.output"), (10, "3.input"), (10, "3.weight"),
    ]  # fmt: skip
    assert driver.finished
    assert losses[-1] < losses[12] < losses[0]
    assert net[0].output_mask.keep.sum() == 2
    assert len(net[3].int_weight()[0].unique()) <= 15


def test_a_network_without_compressors_is_done_at_once():
    driver = ScheduleDriver(nn.Sequential(nn.Conv2d(3, 2, 1)))
    assert driver.finished
    assert driver.step() == []


# called in turn


TWICE = (
    "ScheduleDriver.step was called after step 3 with nothing trained since: every call moves all schedules by a step. "
    "Call it once after every optimizer.step(), and not where a Trainer does."
)


def test_two_calls_for_one_step_are_told_once(caplog):
    net = two_layers(OneShot(0.5, at=9))
    driver, optimizer = ScheduleDriver(net), torch.optim.SGD(net.parameters(), lr=0.1)
    train(net, driver, optimizer, steps=3)
    assert not caplog.messages
    driver.step()
    assert caplog.messages == [TWICE]
    train(net, driver, optimizer)
    driver.step()
    assert len(caplog.messages) == 1
    assert driver.steps_done == 6


class Partly(nn.Module):
    """One of its layers never runs, another only sometimes."""

    def __init__(self):
        super().__init__()
        self.never, self.sometimes, self.always = (PrunedConv2d(3, 3, 1, schedule=OneShot(0.5, at=99)) for _ in "123")
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.always(self.sometimes(x) if self.calls % 2 else x)


def accumulated(net, optimizer):
    optimizer.zero_grad()
    for _ in range(3):
        net(batch()).square().mean().backward()
    optimizer.step()


def kept_gradients(net, optimizer):
    optimizer.zero_grad(set_to_none=False)
    net(batch()).square().mean().backward()
    optimizer.step()
    net.eval()(batch())
    net.train()


def skipped(net, optimizer):
    """As a GradScaler leaves it where gradients overflowed."""
    optimizer.zero_grad()
    (net(batch()).square().mean() * torch.inf).backward()


def forwards_alone(net, optimizer):
    net(batch())


@pytest.mark.parametrize(
    ("net", "step"),
    [
        (lambda: two_layers(OneShot(0.5, at=99)), accumulated),
        (lambda: two_layers(OneShot(0.5, at=99)), kept_gradients),
        (lambda: two_layers(OneShot(0.5, at=99)), skipped),
        (lambda: two_layers(OneShot(0.5, at=99, measure=99)), forwards_alone),
        (lambda: nn.Sequential(nn.BatchNorm2d(3), PrunedConv2d(3, 3, 1, schedule=OneShot(0.5, at=99))), forwards_alone),
        (Partly, accumulated),
        (Partly, skipped),
    ],
)
def test_whatever_trains_is_no_second_call(net, step, caplog):
    net = net()
    driver, optimizer = ScheduleDriver(net), torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(5):
        step(net, optimizer)
        driver.step()
    assert not caplog.messages


def test_compiled_training_is_no_second_call(caplog):
    net = two_layers(OneShot(0.5, at=3))
    driver, optimizer = ScheduleDriver(net), torch.optim.SGD(net.parameters(), lr=0.1)
    compiled = torch.compile(net, backend="aot_eager")
    for _ in range(5):
        accumulated(compiled, optimizer)
        driver.step()
    assert not [message for message in caplog.messages if "ScheduleDriver" in message]
    driver.step()
    assert [message for message in caplog.messages if "ScheduleDriver" in message]
    torch._dynamo.reset()


def test_second_call_is_found_without_reading_the_device():
    net = two_layers(OneShot(0.5, at=99, measure=99))
    driver, optimizer = ScheduleDriver(net), torch.optim.SGD(net.parameters(), lr=0.1)
    train(net, driver, optimizer, steps=2)
    with profile(use_cpu=True, use_kineto=False) as seen:  # Kineto writes to stderr
        driver._standstill.note()
        driver._standstill.lasts()
    assert not list(seen.function_events)


def test_two_drivers_of_one_network_are_refused_where_the_older_one_steps():
    net = two_layers(SHOT)
    older, newer = ScheduleDriver(net), ScheduleDriver(net)
    assert train(net, newer) == []
    with pytest.raises(TrainingError) as caught:
        older.step()
    assert str(caught.value) == (
        "0.output has a newer ScheduleDriver than the one whose step was called: each of them would move its schedule. "
        "Make one driver for the network, and call its step once after every optimizer.step()."
    )
    assert at_steps(train(net, newer)) == [(2, "0.output"), (2, "2.output")]


def test_drivers_of_a_part_and_of_a_copy_are_told_apart():
    net = two_layers(SHOT)
    whole = ScheduleDriver(net)
    train(copy.deepcopy(net), ScheduleDriver(copy.deepcopy(net)))
    train(net, whole)
    ScheduleDriver(net[2])
    with pytest.raises(TrainingError, match=r"^2\.output has a newer ScheduleDriver"):
        whole.step()


# coupled masks


def test_coupled_masks_choose_once_by_the_sum_of_the_shares_of_their_scores():
    net = residual(OneShot(sparsity=0.5, at=2, measure=2))
    driver = ScheduleDriver(net)
    events = train(net, driver, steps=2)
    a, b = net.act_a.output_mask, net.act_b.output_mask
    assert not torch.equal(a.score, b.score)
    expected = keep_top(a.score / a.score.sum() + b.score / b.score.sum(), 0.5)
    assert torch.equal(a.keep, expected)
    assert torch.equal(b.keep, expected)
    assert not torch.equal(expected, keep_top(b.score, 0.5))  # the larger values alone do not decide
    assert at_steps(events) == [(2, "act_a.output"), (2, "act_b.output"), (2, "act_c.output")]


def test_a_mask_in_no_group_chooses_alone():
    net = residual(OneShot(sparsity=0.5, at=2, measure=2))
    train(net, ScheduleDriver(net), steps=2)
    mask = net.act_c.output_mask
    assert mask.coupled == ()
    assert torch.equal(mask.keep, keep_top(mask.score, 0.5))


def test_a_group_is_one_step_of_a_layerwise_sequence():
    net = residual(Layerwise(sparsity=0.5, start=1, interval=2, refresh=1))
    driver = ScheduleDriver(net, batch())
    events = train(net, driver, steps=6)
    assert at_steps(events) == [
        (2, "act_a.output"), (2, "act_b.output"), (3, "act_a.output"), (3, "act_b.output"),
        (5, "act_c.output"), (6, "act_c.output"),
    ]  # fmt: skip
    assert torch.equal(net.act_a.output_mask.keep, net.act_b.output_mask.keep)


def test_coupled_masks_agree_after_every_step_of_a_stepwise_schedule():
    net = residual(Stepwise(sparsity=0.7, start=2, every=2, times=3))
    driver = ScheduleDriver(net)
    for _ in range(7):
        train(net, driver)
        assert torch.equal(net.act_a.output_mask.keep, net.act_b.output_mask.keep)
    assert int(net.act_a.output_mask.keep.sum()) == 2


def test_scores_of_a_coupled_mask_that_are_no_numbers_name_its_site():
    net = residual(OneShot(sparsity=0.5, at=1))
    driver = ScheduleDriver(net)
    with torch.no_grad():
        net.b.bias.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"^act_b.output, step 1: scores hold NaN"):
        train(net, driver)


def test_infinite_scores_of_coupled_masks_name_the_first_and_change_no_mask():
    net = residual(OneShot(sparsity=0.5, at=1))
    driver = ScheduleDriver(net)
    net(batch())
    for part in (net.act_a, net.act_b, net.act_c):
        part.output_mask.pending_score.fill_(torch.inf)  # whose shares of their sum are no numbers
    with pytest.raises(TrainingError, match=r"^act_a.output, step 1: scores hold NaN"):
        driver.step()
    assert net.act_a.output_mask.keep.all()


def test_coupled_masks_that_are_inherited_must_agree():
    net = residual(Inherited())
    for number, mask in enumerate((net.act_a.output_mask, net.act_b.output_mask, net.act_c.output_mask)):
        mask.keep[number] = False
    with pytest.raises(PlanError) as caught:
        ScheduleDriver(net)
    assert str(caught.value) == (
        "act_a.output and act_b.output are coupled and inherit masks that differ: leave couple out of their rule, or "
        "start from a network whose masks were coupled."
    )


@pytest.mark.parametrize("importance", ["activation-l0", "taylor", "random"])
def test_coupled_masks_agree_whatever_ranks_them(importance):
    net = residual(OneShot(sparsity=0.5, at=1), importance)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    train(net, ScheduleDriver(net, optimizer=optimizer), optimizer)
    assert torch.equal(net.act_a.output_mask.keep, net.act_b.output_mask.keep)
    assert int(net.act_a.output_mask.keep.sum()) == 3
