from typing import get_args

import pytest

from qprune.schedules import Inherited, Layerwise, OneShot, QuantizeFrom, Schedule, Stepwise, to_table
from qprune.schedules.tables import KINDS

TABLES = [
    (OneShot(0.5, "2ep"), {"kind": "one-shot", "sparsity": 0.5, "at": "2ep"}),
    (OneShot(0.5, 9, measure=3), {"kind": "one-shot", "sparsity": 0.5, "at": 9, "measure": 3}),
    (Stepwise(0.75, "1ep", "200it"), {"kind": "stepwise", "sparsity": 0.75, "start": "1ep", "every": "200it"}),
    (Stepwise(0.75, 1, 2, times=3), {"kind": "stepwise", "sparsity": 0.75, "start": 1, "every": 2, "times": 3}),
    (Layerwise(0.5, 1, 3, 2), {"kind": "layerwise", "sparsity": 0.5, "start": 1, "interval": 3, "refresh": 2}),
    (
        Layerwise(0.5, 1, 3, 2, order="reversed"),
        {"kind": "layerwise", "sparsity": 0.5, "start": 1, "interval": 3, "refresh": 2, "order": "reversed"},
    ),
    (Layerwise(0.5, finish="35%"), {"kind": "layerwise", "sparsity": 0.5, "finish": "35%"}),
    (Stepwise(0.5, times=3, finish=800), {"kind": "stepwise", "sparsity": 0.5, "times": 3, "finish": 800}),
    (OneShot(0.5, finish="2ep"), {"kind": "one-shot", "sparsity": 0.5, "finish": "2ep"}),
    (QuantizeFrom("0.5ep"), {"kind": "quantize-from", "start": "0.5ep"}),
    (Inherited(), {"kind": "inherited"}),
]


@pytest.mark.parametrize(("schedule", "table"), TABLES)
def test_a_schedule_is_written_as_its_table(schedule, table):
    assert to_table(schedule) == table


def test_every_schedule_has_a_kind():
    assert set(KINDS.values()) == set(get_args(Schedule))


def test_a_sparsity_per_path_is_a_plain_table():
    schedule = OneShot(sparsity={"stage1.*": 0.3, "*": 0.5}, at="2ep")
    assert to_table(schedule) == {"kind": "one-shot", "sparsity": {"stage1.*": 0.3, "*": 0.5}, "at": "2ep"}
    assert type(to_table(schedule)["sparsity"]) is dict
