import tomllib

import pytest
import toml
from hypothesis import given
from hypothesis import strategies as st

from qprune.schedules import Inherited, Layerwise, OneShot, QuantizeFrom, Stepwise, from_table, to_table

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
    (QuantizeFrom("0.5ep"), {"kind": "quantize-from", "start": "0.5ep"}),
    (Inherited(), {"kind": "inherited"}),
]


@pytest.mark.parametrize(("schedule", "table"), TABLES)
def test_schedule_and_table_are_two_forms_of_one_value(schedule, table):
    assert to_table(schedule) == table
    assert from_table(table) == schedule


@pytest.mark.parametrize(("schedule", "table"), TABLES)
def test_table_survives_toml(schedule, table):
    text = toml.dumps({"schedule": to_table(schedule)})
    assert from_table(tomllib.loads(text)["schedule"]) == schedule


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10**6), st.integers(1, 99), st.integers(1, 99))
def test_every_stepwise_comes_back_from_its_table(sparsity, start, every, times):
    schedule = Stepwise(sparsity, start, every, times)
    assert from_table(to_table(schedule)) == schedule


def test_reading_a_table_leaves_it_as_it_is():
    table = {"kind": "one-shot", "sparsity": 0.5, "at": 3}
    from_table(table)
    assert table == {"kind": "one-shot", "sparsity": 0.5, "at": 3}


KINDS = "'inherited', 'layerwise', 'one-shot', 'quantize-from', 'stepwise'"
SENTENCES = [
    ({"sparsity": 0.5}, f"kind must be one of {KINDS}; received None"),
    ({"kind": "layrwise"}, f"kind must be one of {KINDS}; received 'layrwise'; nearest: 'layerwise'"),
    ({"kind": ["one-shot"]}, f"kind must be one of {KINDS}; received ['one-shot']; nearest: 'one-shot'"),
    ({"kind": "one-shot", "sparsty": 0.5}, "unknown key 'sparsty' of a one-shot schedule; nearest: 'sparsity'"),
    ({"kind": "one-shot", "x": 1}, "unknown key 'x' of a one-shot schedule; it has 'sparsity', 'at', 'measure'"),
    ({"kind": "inherited", "sparsity": 0.5}, "unknown key 'sparsity' of a inherited schedule; it has no options"),
    ({"kind": "one-shot"}, "a one-shot schedule needs 'sparsity' and 'at'"),
    ({"kind": "one-shot", "at": 1, "sparsity": 1.5}, "sparsity must be in [0, 1); received 1.5"),
]


@pytest.mark.parametrize(("table", "sentence"), SENTENCES)
def test_wrong_table_is_refused_in_one_sentence(table, sentence):
    with pytest.raises(ValueError, match=r"^") as error:
        from_table(table)
    assert str(error.value) == sentence


@pytest.mark.parametrize("wrong", [3, None, ["one-shot"]])
def test_what_is_no_table_is_no_schedule(wrong):
    with pytest.raises(
        ValueError, match=r'^a schedule must be a table such as \{"kind": "one-shot", \.\.\.\}; received '
    ) as e:
        from_table(wrong)
    assert str(e.value).endswith(repr(wrong))
