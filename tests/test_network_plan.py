import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qprune import zoo
from qprune.assemble import swap
from qprune.errors import PlanError
from qprune.flow import trace
from qprune.layers import CompressedReLU, PrunedConv2d, PrunedQuantConv2d, QuantConv2d
from qprune.network_plan import make_plan
from qprune.schedules import Inherited, Layerwise, OneShot, QuantizeFrom, Stepwise
from qprune.spec import PruneRule, Selector
from qprune.zoo import Concat

X = torch.zeros(2, 3, 8, 10)
SHOT = OneShot(sparsity=0.5, at=3)


def chain(*layers):
    return nn.Sequential(*layers, nn.Conv2d(4, 2, 1))


def pruned(schedule, into=4, out=4, **options):
    return PrunedConv2d(into, out, 1, schedule=schedule, **options)


def plan(net, flow=False, **options):
    return make_plan(net, trace(net, X) if flow else None, **options)


def mistakes(net, **options):
    with pytest.raises(PlanError) as caught:
        make_plan(net, **options)
    return str(caught.value).splitlines()


# the published end steps


def site(side, *types, **options):
    return Selector(types=types, at=side, **options)


ACTIVATIONS = {
    "densenet121": (site("output", "ReLU"), site("output", "BatchNorm2d", paths=("transition*",))),
    "mobilenetv2": (site("output", "ReLU6"), site("output", "BatchNorm2d", paths=("*.post_residual.*",))),
    "preactresnet18": (site("output", "ReLU"),),
}
WEIGHTS = {
    "densenet121": (site("weight", "Conv2d"),),
    "mobilenetv2": (site("weight", "Conv2d", skip=(-1,)),),
    "preactresnet18": (site("weight", "Conv2d"),),
}
LAYERWISE = Layerwise(sparsity=0.75, start="0.5ep", interval="0.125ep", refresh="0.025ep")


@pytest.fixture(scope="module")
def networks():
    nets = {name: zoo.create(name, width=0.25) for name in zoo.names()}
    return {name: (net, torch.zeros(2, 3, 32, 32)) for name, net in nets.items()}


def planned(networks, name, selectors, schedule):
    net, x = networks[name]
    importance = "weight-l1" if selectors[0].at == "weight" else "activation-l1"
    swapped = swap(net, x, [PruneRule(selectors, schedule, importance)])
    flow = trace(swapped, x)
    return make_plan(swapped, flow, steps_per_epoch=391, steps=75 * 391), flow


@pytest.mark.parametrize(
    ("name", "selectors", "count", "end"),
    [
        ("densenet121", ACTIVATIONS, 120, 6196), ("densenet121", WEIGHTS, 120, 6196),
        ("mobilenetv2", ACTIVATIONS, 53, 2846), ("mobilenetv2", WEIGHTS, 53, 2846),
        ("preactresnet18", ACTIVATIONS, 17, 1046), ("preactresnet18", WEIGHTS, 20, 1196),
    ],
)  # fmt: skip
def test_layerwise_ends_at_the_published_step_in_data_flow_order(networks, name, selectors, count, end):
    result, flow = planned(networks, name, selectors[name], LAYERWISE)
    assert (len(result.sites), result.pruned_by, result.finished_by) == (count, end, end)
    assert [entry.timeline.end for entry in result.sites] == [196 + 50 * (i + 1) for i in range(count)]
    positions = [flow.position(entry.site.rsplit(".", 1)[0]) for entry in result.sites]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("name", "start", "first", "last"),
    [("densenet121", "36ep", 14076, 14860), ("mobilenetv2", "6ep", 2346, 3130), ("preactresnet18", "0.5ep", 196, 980)],
)
def test_stepwise_prunes_at_the_published_steps(networks, name, start, first, last):
    schedule = Stepwise(sparsity=0.75, start=start, every="0.5ep")
    result, _ = planned(networks, name, WEIGHTS[name], schedule)
    assert {tuple(at for at, _ in e.timeline.refreshes) for e in result.sites} == {tuple(range(first, last + 1, 196))}
    assert result.finished_by == last


# sequences


def ends(result):
    return {entry.site: entry.timeline.end for entry in result.sites}


def step(sparsity, start=10, interval=4, refresh=2, order="registration"):
    return Layerwise(sparsity, start, interval, refresh, order)


def test_equal_layerwise_rules_are_one_sequence_whatever_their_sparsity():
    net = chain(pruned(step(0.5), into=3), pruned(step(0.75)), pruned(step(0.5)))
    assert ends(plan(net)) == {"0.input": 15, "1.input": 20, "2.input": 25}
    assert [entry.kept for entry in plan(net).sites] == [2, 1, 2]


def test_a_layerwise_rule_with_a_sparsity_per_path_is_one_sequence():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1))
    schedule = step({"0": 0, "1": 0.5, "*": 0.75}, order="flow")
    net = swap(net, X, [PruneRule((site("input", "Conv2d"),), schedule)])
    result = plan(net, flow=True)
    assert ends(result) == {"0.input": 15, "1.input": 20, "2.input": 25}
    assert [entry.kept for entry in result.sites] == [3, 2, 2]


def test_a_layer_of_its_own_cannot_hold_a_table():
    net = chain(pruned(OneShot({"0": 0.5, "*": 0.25}, at=1), into=3))
    assert mistakes(net) == [
        "0.input: sparsity is a table from patterns on module paths, which a rule of a spec or of swap applies; a "
        "schedule of a single layer needs one number."
    ]


def test_layerwise_rules_that_are_equal_in_steps_are_one_sequence():
    starts = ("1ep", "1.0ep", 10, "10it")
    rules = [Layerwise(0.5, start=start, interval="0.2ep", refresh=2) for start in starts]
    net = chain(pruned(rules[0], into=3), *map(pruned, rules[1:]))
    freezes = {site.site: site.timeline.freeze for site in plan(net, flow=True, steps_per_epoch=10).sites}
    assert freezes == {"0.input": 12, "1.input": 15, "2.input": 18, "3.input": 21}


def test_epochs_without_their_length_are_still_told_with_the_site():
    net = chain(pruned(Layerwise(0.5, start="1ep", interval=2, refresh=2), into=3))
    with pytest.raises(PlanError, match=r"^0\.input: '1ep' counts epochs: pass steps_per_epoch"):
        plan(net)


@pytest.mark.parametrize(
    "other", [step(0.5, start=11), step(0.5, interval=6), step(0.5, refresh=4), step(0.5, order="reversed")]
)
def test_other_layerwise_rules_run_separately(other):
    net = chain(pruned(step(0.5), into=3), pruned(other), pruned(step(0.5)))
    result = ends(plan(net))
    assert (result["0.input"], result["2.input"]) == (15, 20)
    assert result["1.input"] == other.timeline().end


class Backwards(nn.Module):
    """Registered last to first."""

    def __init__(self, order):
        super().__init__()
        self.last = nn.Conv2d(4, 2, 1)
        self.b = pruned(step(0.5, order=order), at="weight")
        self.b.add_mask("input", schedule=step(0.5, order=order))
        self.a = pruned(step(0.5, order=order), into=3)

    def forward(self, x):
        return self.last(self.b(self.a(x)))


@pytest.mark.parametrize(
    ("order", "sites"),
    [
        ("flow", ["a.input", "b.input", "b.weight"]),
        ("registration", ["b.input", "b.weight", "a.input"]),
        ("reversed", ["a.input", "b.weight", "b.input"]),
    ],
)
def test_orders(order, sites):
    assert [entry.site for entry in plan(Backwards(order), flow=True).sites] == sites


def test_a_sequence_of_one_needs_no_flow():
    assert ends(plan(chain(pruned(step(0.5, order="flow"), into=3)))) == {"0.input": 15}


# mistakes


def test_data_flow_order_needs_an_example():
    assert mistakes(Backwards("flow")) == [
        "Layerwise order by data flow needs the network to run once: pass example=, an input of it "
        '(only its shape matters), or use Layerwise(order="registration").'
    ]


def test_a_compressor_without_a_schedule_is_refused():
    net = chain(PrunedConv2d(3, 4, 1), QuantConv2d(4, 4, 1, weight_bits=None))
    assert mistakes(net) == [
        "0.input: its ChannelMask has no schedule, so it would never act; give it one or leave it out.",
        "1.input: its FakeQuant has no schedule, so it would never act; give it one or leave it out.",
    ]


def test_epochs_need_their_length():
    assert mistakes(chain(pruned(OneShot(0.5, at="2ep"), into=3))) == [
        "0.input: '2ep' counts epochs: pass steps_per_epoch, or give steps such as \"800it\"."
    ]


def test_a_refresh_longer_than_its_interval_never_comes():
    assert mistakes(chain(pruned(step(0.5, interval=4, refresh=5), into=3))) == [
        "0.input: refresh (5 steps) must not be longer than interval (4 steps)."
    ]


def test_activations_cannot_be_chosen_before_they_are_measured():
    assert mistakes(chain(pruned(OneShot(0.5, at=0), into=3))) == [
        "0.input: its mask is chosen at step 0, before anything was measured; start at step 1 or later."
    ]
    weights = chain(pruned(OneShot(0.5, at=0), into=3, at="weight"))
    assert ends(plan(weights)) == {"0.weight": 0}


def test_schedules_past_the_end_of_training_are_refused():
    net = chain(pruned(OneShot(0.5, at=30), into=3), QuantConv2d(4, 4, 1, weight_bits=None, schedule=QuantizeFrom(31)))
    assert mistakes(net, steps=29, steps_per_epoch=10) == [
        "0.input: pruning ends at step 30 (3.00 ep), but training ends at step 29 (2.90 ep); "
        'train longer (train.length), start earlier, or give finish = "35%" instead, which spreads the intervals by '
        "itself.",
        "1.input: quantization starts at step 31 (3.10 ep), but training ends at step 29 (2.90 ep); "
        "train longer (train.length) or start earlier.",
    ]
    assert plan(net, steps=31).finished_by == 31


def test_rules_that_prune_nothing_are_refused():
    net = chain(pruned(OneShot(0.2, at=3), into=3), pruned(OneShot(0.0, at=3)))
    assert mistakes(net) == ["The rules prune nothing: every mask keeps all of its channels. Raise sparsity."]


def test_all_mistakes_are_told_at_once():
    net = chain(
        pruned(step(0.5, order="flow"), into=3), pruned(step(0.5, order="flow")), pruned(None),
        pruned(OneShot(0.5, at="1ep")), pruned(OneShot(0.5, at=0)), pruned(OneShot(0.5, at=9)),
    )  # fmt: skip
    lines = mistakes(net, steps=8)
    assert [line.split()[0].rstrip(":") for line in lines] == [
        "Layerwise", "2.input", "3.input", "0.input", "1.input", "4.input", "5.input"
    ]  # fmt: skip


# finish


def over_by(finish, sparsity=0.5, order="registration"):
    return Layerwise(sparsity, finish=finish, order=order)


def test_a_sequence_is_over_by_its_share_of_the_run_whatever_the_sparsities():
    net = chain(pruned(over_by("35%"), into=3), pruned(over_by("35%", 0.75)), pruned(over_by("35%")))
    result = plan(net, steps=100)
    assert ends(result) == {"0.input": 11, "1.input": 22, "2.input": 33}
    explicit = [step(sparsity, start=0, interval=10, refresh=2) for sparsity in (0.5, 0.75, 0.5)]
    same = plan(chain(pruned(explicit[0], into=3), *map(pruned, explicit[1:])), steps=100)
    assert result.sites == same.sites
    assert result.notes == (
        'finish = "35%" is step 35: start = 0, interval = 10, refresh = 2 (0.input and 2 more)',
    )  # fmt: skip


def test_finishes_that_are_equal_in_steps_are_one_sequence():
    rules = [over_by(finish) for finish in ("35%", "3.5ep", 35, "35it")]
    net = chain(pruned(rules[0], into=3), *map(pruned, rules[1:]))
    assert ends(plan(net, steps=100, steps_per_epoch=10)) == {f"{i}.input": 8 * (i + 1) for i in range(4)}


def test_rules_with_a_finish_each_are_sequences_of_their_own():
    net = chain(pruned(over_by("20%"), into=3), pruned(over_by("40%")), pruned(over_by("20%")))
    assert ends(plan(net, steps=100)) == {"0.input": 10, "1.input": 40, "2.input": 20}


def test_a_finish_and_moments_that_come_out_equal_are_two_sequences():
    net = chain(pruned(over_by("10%"), into=3), pruned(step(0.5, start=0, interval=9, refresh=1)))
    assert ends(plan(net, steps=100)) == {"0.input": 10, "1.input": 10}


def test_stepwise_and_one_shot_are_over_by_their_share():
    net = chain(pruned(Stepwise(0.5, times=3, finish="30%"), into=3), pruned(OneShot(0.5, finish="100%")))
    result = plan(net, steps=20)
    assert ends(result) == {"0.input": 6, "1.input": 20}
    assert result.notes == (
        'finish = "30%" is step 6: start = 2, every = 2 (0.input)',
        'finish = "100%" is step 20: at = 20 (1.input)',
    )


def test_coupled_sites_count_once():
    net = zoo.create("resnet20", width=0.25, shortcut="B")
    x = torch.zeros(2, 3, 32, 32)
    schedule = Layerwise(0.5, finish="50%")
    sites = (site("output", "ReLU"),)
    apart, coupled = (swap(net, x, [PruneRule(sites, schedule, couple=each)]) for each in (False, True))
    flow = trace(coupled, x)
    groups = {entry.coupled or entry.site for entry in make_plan(coupled, flow, steps=1000).sites}
    assert len(groups) < 19
    interval = 500 // len(groups) - 1
    assert make_plan(coupled, flow, steps=1000).pruned_by == len(groups) * (interval + 1) <= 500
    assert make_plan(apart, trace(apart, x), steps=1000).pruned_by == 19 * (500 // 19) <= 500


def test_more_sites_than_steps_are_told_once():
    net = chain(pruned(over_by("35%"), into=3), pruned(over_by("35%")), pruned(OneShot(0.5, at=2)))
    assert mistakes(net, steps=8) == [
        "0.input and 1 more: finish = '35%' is step 3, and 2 sites one after the other take at least 4 steps; train "
        "longer (train.length) or finish later."
    ]
    assert ends(plan(net, steps=12))["1.input"] == 4


def test_a_share_of_a_run_of_unknown_length_is_told_once():
    net = chain(pruned(over_by("35%"), into=3), pruned(over_by("35%")))
    assert mistakes(net) == [
        "0.input and 1 more: '35%' is a share of the run, whose length is not known here: pass steps, its optimizer "
        'steps, or give a duration such as "7ep" or "800it".'
    ]


# notes


def test_a_mask_that_keeps_everything_is_noted():
    result = plan(chain(pruned(OneShot(0.2, at=3), into=3), pruned(SHOT)))
    assert result.notes == ("0.input keeps all of its 3 channels at this sparsity",)


def test_sites_where_l0_falls_back_to_l1_are_noted():
    l0 = {"importance": "activation-l0"}
    net = chain(
        pruned(SHOT, into=3, **l0), nn.ReLU(), pruned(SHOT, **l0), CompressedReLU(), pruned(SHOT, at="output", **l0)
    )
    net[3].add_mask("output", channels=4, schedule=SHOT, importance="activation-l0")
    assert plan(net, flow=True).notes == (
        "0.input is not rectified: activation-l0 falls back to activation-l1 there",
        "4.output is not rectified: activation-l0 falls back to activation-l1 there",
    )


def test_a_tensor_with_two_masks_is_noted():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.join = pruned(SHOT, into=3), pruned(SHOT, into=3), Concat()
            self.unused = pruned(SHOT, importance="activation-l0")

        def forward(self, x):
            x = F.relu(x)
            return self.join(self.a(x), self.b(x))

    assert plan(Fork(), flow=True).notes == ("one tensor is masked separately by a.input, b.input",)


def test_norms_that_follow_a_weight_mask_are_noted():
    rule = PruneRule((site("weight", "Conv2d", skip=(-1,)),), SHOT, "weight-l1")
    net = swap(chain(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), X, [rule])
    result = plan(net, flow=True)
    assert result.notes == ("1.output follows 0.weight",)
    assert [entry.site for entry in result.sites] == ["0.weight"]


def test_norms_that_bring_dropped_channels_back_are_noted():
    conv = pruned(SHOT, into=3, at="weight")
    assert plan(chain(conv, nn.BatchNorm2d(4)), flow=True).notes == (
        "1 does not follow 0.weight: its shift brings dropped channels back; swap ties the two",
    )
    assert plan(chain(conv, nn.InstanceNorm2d(4)), flow=True).notes == ()


# what a plan says


def joint():
    conv = PrunedQuantConv2d(3, 4, 1, at="output", weight_bits=4, act_bits=None,
                             prune_schedule=OneShot(0.75, at=30), quant_schedule=QuantizeFrom(45))  # fmt: skip
    return chain(conv, pruned(Inherited()))


def test_a_plan_prints_as_a_time_line():
    assert str(plan(joint(), steps=100, steps_per_epoch=20)).splitlines() == [
        "2 masks, 1 quantizer, finished by step 45 (2.25 ep) of 100 (5.00 ep)",
        "    from the start  1.input: mask taken over",
        "      30 (1.50 ep)  0.output: 1 of 4 channels kept (activation-l1)",
        "      45 (2.25 ep)  0.weight: 4 bits from here on",
    ]
    noted = plan(chain(pruned(OneShot(0.2, at=3), into=3), pruned(SHOT)))
    assert str(noted).splitlines()[-1] == "note: 0.input keeps all of its 3 channels at this sparsity"
    assert str(noted).splitlines()[0] == "2 masks, 0 quantizers, finished by step 3"


def test_a_plan_is_plain_data():
    table = plan(joint(), steps=100).to_dict()
    assert json.loads(json.dumps(table))["sites"][1]["timeline"]["refreshes"] == [[30, 0.75]]
    assert (table["steps"], table["steps_per_epoch"], table["cost"]) == (100, None, {})


def test_pruned_by_leaves_quantizers_out():
    result = plan(joint())
    assert (result.pruned_by, result.finished_by) == (30, 45)


def test_masks_know_when_they_are_frozen():
    entries = {entry.site: entry for entry in plan(joint()).sites}
    assert [entries["0.output"].frozen_at(at) for at in (29, 30)] == [False, True]
    assert entries["1.input"].frozen_at(0)
    assert not entries["0.weight"].frozen_at(99)


def test_a_network_without_compressors_has_an_empty_plan():
    result = plan(chain(nn.Conv2d(3, 4, 1)), steps=10)
    assert (result.sites, result.finished_by, result.notes) == ((), 0, ())


def test_coupled_sites_are_shown_with_their_group_and_what_follows_it():
    net = zoo.create("preactresnet18", width=0.05)
    rule = PruneRule((site("output", "ReLU", paths=("stage1.*",)),), SHOT, couple=True)
    result = plan(swap(net, torch.zeros(2, 3, 32, 32), [rule]))
    lines = [line.strip() for line in str(result).splitlines()]
    assert lines[1:5] == [
        "3  stage1.0.act1.output: 2 of 3 channels kept (activation-l1), one mask for 2 sites",
        "3  stage1.0.act2.output: 2 of 3 channels kept (activation-l1)",
        "3  stage1.1.act1.output: 2 of 3 channels kept (activation-l1), the mask of stage1.0.act1.output",
        "3  stage1.1.act2.output: 2 of 3 channels kept (activation-l1)",
    ]
    assert "note: stage1.1.conv2.output follows stage1.0.act1.output" in lines
    assert result.sites[0].coupled == result.sites[2].coupled == ("stage1.0.act1.output", "stage1.1.act1.output")


def test_coupled_inputs_of_one_tensor_are_not_masked_separately():
    net = zoo.create("resnet20", width=0.25, shortcut="B")
    rules = [PruneRule((site("input", "Conv2d", skip=(0,)),), SHOT, couple=couple) for couple in (True, False)]
    x = torch.zeros(2, 3, 32, 32)
    coupled, separate = (make_plan(swap(net, x, [rule]), trace(swap(net, x, [rule]), x)) for rule in rules)
    assert any("is masked separately by stage2.0.conv1.input" in note for note in separate.notes)
    assert not any("is masked separately" in note for note in coupled.notes)


def test_kept_channels_are_rounded_up_to_the_multiple():
    net = chain(
        pruned(OneShot(0.75, at=3), into=3),
        PrunedConv2d(4, 4, 1, at="output", schedule=OneShot(0.75, at=3), multiple_of=2),
    )
    assert [entry.kept for entry in plan(net).sites] == [1, 2]


@pytest.mark.parametrize(
    ("schedule", "way_out"),
    [(Stepwise(sparsity=0.5, start=1, every=1, times=10**9), "lower times"),
     (step(0.5, interval=10**9, refresh=1), "raise refresh")],
)  # fmt: skip
def test_a_time_line_that_fills_the_memory_is_refused(schedule, way_out):
    assert mistakes(chain(pruned(schedule))) == [
        f"0.input: its mask would be chosen 1,000,000,000 times, and at most 10,000 are planned; {way_out}."
    ]
