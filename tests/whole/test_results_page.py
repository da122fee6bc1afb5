"""What docs/results.md compares: every row has a spec that reads, and the steps of what is compared are equal."""

import tomllib
from pathlib import Path

import pytest

from qprune.spec import read_spec

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TABLES = tomllib.loads((BENCHMARKS / "results/tables.toml").read_text(encoding="utf-8"))["table"]


def epochs(spec, teachers=False):
    """Of a run and of all that it goes back to; of its teacher, too, where those count."""
    before = [spec.init] if spec.init else []
    if teachers and spec.train.teacher and spec.train.teacher.run:
        before.append(spec.train.teacher.run)
    return float(spec.train.length.removesuffix("ep")) + sum(epochs(read_spec(name), teachers) for name in before)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table["title"])
def test_rows_have_specs_that_read_and_compared_ones_take_as_many_epochs(table, monkeypatch):
    monkeypatch.chdir(BENCHMARKS)
    rows = {row["spec"]: epochs(read_spec(row["spec"]), table.get("teachers_count", False)) for row in table["rows"]}
    quantized = {name for name in rows if read_spec(name).quantize}
    for kind in (quantized, rows.keys() - quantized):
        assert len({rows[name] for name in kind}) <= 1, rows
    assert read_spec(table["dense"]).init is None
