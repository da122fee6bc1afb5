"""Runs side by side: fronts, order, a table of 80 columns, and runs that cannot be compared."""

import json
from pathlib import Path

import pytest
from tiny_runs import chain, chain_at, hostile

import qprune
from qprune.comparison import ComparedRun, Comparison
from qprune.errors import CheckpointError, QpruneError


def runs(*costs: tuple[str, float | None, int], mode: str = "max", folder: str = "net") -> Comparison:
    rows = (ComparedRun(f"{folder}/{name}", score, 7, cost, cost * 64, cost * 2) for name, score, cost in costs)
    return Comparison(tuple(rows), "accuracy" if mode == "max" else "distance", mode)


def names(found) -> list[str]:
    return [run.name.removeprefix("net/") for run in found]


def test_the_front_are_the_runs_that_none_beats_from_the_cheapest():
    found = runs(("dear", 0.9, 50), ("cheap", 0.5, 10), ("worse", 0.4, 20), ("middle", 0.7, 30), ("same", 0.7, 40))
    assert names(found.front("macs")) == ["cheap", "middle", "dear"]


def test_of_equal_costs_the_better_one_is_on_the_front():
    assert names(runs(("worse", 0.4, 10), ("better", 0.6, 10)).front("bytes")) == ["better"]


def test_where_less_is_better_the_front_turns_around():
    found = runs(("far", 9.0, 10), ("near", 2.0, 30), ("farther", 11.0, 20), mode="min")
    assert names(found.front("bops")) == ["far", "near"]


def test_runs_without_score_or_cost_are_on_no_front():
    assert names(runs(("unscored", None, 1), ("scored", 0.3, 9)).front("macs")) == ["scored"]
    assert runs(("scored", 0.3, 9)).front("latency") == ()


@pytest.mark.parametrize(
    ("key", "order"),
    [("score", ["b", "a", "c"]), ("accuracy", ["b", "a", "c"]), ("macs", ["c", "a", "b"]), ("name", ["a", "b", "c"])],
)
def test_runs_are_sorted_by_score_name_or_cost(key, order):
    found = runs(("a", 0.6, 20), ("b", 0.7, 30), ("c", None, 10))
    assert names(found.sorted_by(key).rows) == order


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(QpruneError, match=r'There is no "byte"; nearest: "bytes"; runs are sorted by name, score'):
        runs(("a", 0.6, 20)).sorted_by("byte")


def test_a_table_marks_the_front_and_fits_80_columns():
    long = "a_name_that_is_much_longer_than_any_column_that_a_table_has_room_for"
    found = runs((f"{long}_1", 0.875, 20_000_000), (f"{long}_2", 0.75, 30_000_000))
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "2 runs of net, accuracy on test images"
    assert lines[3].split()[1:] == ["87.50", "%", "7", "20", "M*", "1.28", "G*", "40", "MB*"]
    assert lines[4].split()[1:] == ["75.00", "%", "7", "30", "M", "1.92", "G", "60", "MB"]
    assert [line.split()[0][-2:] for line in lines[3:5]] == ["_1", "_2"]


def test_latency_is_a_column_only_where_it_is_known():
    timed = Comparison((ComparedRun("a", 0.5, 1, 2, 3, 4, latency=0.0025),), "accuracy", "max")
    assert "2.5 ms*" in str(timed)
    assert "latency" not in str(runs(("a", 0.5, 20)))


def test_seeds_of_one_run_are_summed_up():
    found = runs(("a", 0.5, 20), ("a@seed1", 0.75, 20), ("a@seed12", 1.0, 20), ("b", 0.25, 20))
    assert found.over_seeds() == ["a: 75.00 % over 3 seeds, from 50.00 % to 100.00 %"]
    assert found.over_seeds()[0] in str(found)


def test_a_figure_has_a_panel_for_each_cost_that_is_known_of_two_runs():
    figure = runs(("a", 0.5, 20), ("b", 0.75, 30)).plot()
    assert [axes.get_xlabel() for axes in figure.axes] == ["packed bytes", "MACs", "bit operations"]
    assert figure.axes[0].get_ylabel() == "accuracy"


def test_runs_without_scores_cannot_be_drawn():
    with pytest.raises(QpruneError, match="None of these runs has a score on test images"):
        runs(("a", None, 20)).plot()


def test_compare_reads_scores_and_costs_from_the_reports():
    found = qprune.compare("net", runs=chain())
    reports = [json.loads((chain() / run.name / "report.json").read_text()) for run in found.rows]
    assert names(found.rows) == ["dense", "half", "w4"]
    assert [run.score for run in found.rows] == [report["scores"]["test"]["accuracy"] for report in reports]
    assert [run.bytes for run in found.rows] == [report["costs"]["packed_bytes"] for report in reports]
    assert [run.macs for run in found.rows] == [report["costs"]["macs_kept"] for report in reports]
    assert found.rows[0].bops == found.rows[0].macs * 32 * 32


def test_a_run_named_twice_is_there_once():
    assert names(qprune.compare("net/w4", "net", chain() / "net/w4", runs=chain()).rows) == ["w4", "dense", "half"]


def test_compare_sorts():
    found = qprune.compare("net", sort="bytes", runs=chain())
    assert [run.bytes for run in found.rows] == sorted(run.bytes for run in found.rows)


def test_unfinished_runs_of_a_folder_are_left_out_and_named(tmp_path):
    root = chain_at(tmp_path)
    (root / "net/half/model.pt").unlink()
    found = qprune.compare("net", runs=root)
    assert names(found.rows) == ["dense", "w4"]
    assert found.notes == ("Left out, since not finished: half",)


def test_an_unfinished_run_that_was_named_is_refused(tmp_path):
    root = chain_at(tmp_path)
    (root / "net/half/model.pt").unlink()
    with pytest.raises(CheckpointError, match="net/half is not finished"):
        qprune.compare("net/half", "net/dense", runs=root)


def test_runs_on_other_data_cannot_be_compared():
    with pytest.raises(QpruneError) as caught:
        qprune.compare(chain() / "net/dense", hostile() / "<i>net")
    assert str(caught.value) == (
        "Only runs of one task, data and metric can be compared: net/dense is classification of digits, scored by "
        "accuracy (max), <i>net is classification of folder, scored by accuracy (max). Name runs of one kind."
    )


def test_two_runs_of_one_name_are_called_by_their_folders(tmp_path):
    other = chain_at(tmp_path) / "net/w4"
    first, second = qprune.compare(chain() / "net/w4", other).rows
    assert (first.name, second.name) == (str((chain() / "net/w4").resolve()), str(other.resolve()))


def test_nothing_cannot_be_compared():
    with pytest.raises(QpruneError, match="There is nothing to compare: name runs, or a folder of runs"):
        qprune.compare()


def test_a_comparison_is_plain_data():
    assert runs(("a", 0.5, 20)).to_dict()["rows"][0]["macs"] == 20


def test_a_comparison_is_one_html_file(tmp_path):
    file = qprune.compare("net", runs=chain()).to_html(tmp_path / "new/it.html")
    page = Path(file).read_text()
    assert page.count("<svg") == 1
    assert "468 B*" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/", "")
