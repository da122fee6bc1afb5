import itertools

from torch import nn

import qprune
from qprune.layers import PrunedConv2d, PrunedQuantConv2d, QuantConv2d, sites
from qprune.network_plan import make_plan
from qprune.schedules import OneShot, QuantizeFrom, Stepwise
from qprune.training.agenda import Agenda


def agenda_of(*layers: nn.Module) -> tuple[Agenda, dict[str, qprune.layers.Site]]:
    net = nn.Sequential(*layers)
    return Agenda(make_plan(net)), {site.name: site for site in sites(net)}


def test_a_mask_is_due_where_its_schedule_says_so_and_nowhere_else() -> None:
    agenda, found = agenda_of(PrunedConv2d(3, 8, 3, at="output", schedule=Stepwise(sparsity=0.75, start=2, every=3)))
    site = found["0.output"]
    steps = [step for step in range(40) if agenda.sparsity(site, step) is not None]
    assert steps[0] == 2
    assert all(later - earlier == 3 for earlier, later in itertools.pairwise(steps))
    assert all(agenda.has(step) for step in steps)
    assert agenda.sparsity(site, steps[-1]) == 0.75
    assert [agenda.all_frozen(step) for step in (steps[-1] - 1, steps[-1])] == [False, True]
    told = [list(agenda.events(site, step)) for step in (0, *steps)]
    assert told[0] == []
    assert [event[0]["frozen"] for event in told[1:]] == [False] * (len(steps) - 1) + [True]


def test_a_quantizer_measures_and_then_starts_once() -> None:
    agenda, found = agenda_of(QuantConv2d(3, 4, 3, weight_bits=4, schedule=QuantizeFrom(start=5, measure=2)))
    site = found["0.weight"]
    assert [step for step in range(12) if agenda.starts(site, step)] == [5]
    assert [step for step in range(5) if agenda.measures(site, "quant", step)] == [3, 4]
    assert list(agenda.events(site, 5)) == [{"step": 5, "site": "0.weight", "bits": 4}]
    assert agenda.all_frozen(0)  # there is no mask


def test_the_text_of_a_plan_tells_sites_of_both_kinds_apart() -> None:
    schedules = {"prune_schedule": OneShot(sparsity=0.5, at=1), "quant_schedule": QuantizeFrom(start=3, measure=1)}
    agenda, _ = agenda_of(PrunedQuantConv2d(3, 4, 3, **schedules))
    text = agenda.as_text()
    assert {key.rpartition(" ")[2] for key in text} == {"(mask)", "(quant)"}
    assert Agenda(make_plan(nn.Sequential(nn.Identity()))).as_text() == {}
