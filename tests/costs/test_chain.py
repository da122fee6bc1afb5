import json
import os
from pathlib import Path

import pytest
from torch import nn

from qprune.costs import chain_of, chain_table, performance_density, summarize

TASK = {"monitor": "accuracy", "mode": "max"}


def run(name: str, accuracy: float | None, width: int) -> dict:
    costs = summarize(nn.Sequential(nn.Conv2d(3, width, 1), nn.Conv2d(width, 2, 1)), (3, 5, 7)).to_dict()["total"]
    return {"name": name, "scores": {"test": {"accuracy": accuracy}} if accuracy else {}, "costs": costs} | TASK


def test_each_run_has_a_line_with_what_it_cost_and_bought():
    row = run("digits/baseline", 0.9812, 4)
    lines = chain_table([row, run("digits/a75_w4a4", 0.9641, 7)]).splitlines()
    assert len(lines) == 4
    density = performance_density(0.9812, row["costs"]["megabytes"])
    cells = ["digits/baseline", "98.12", "%", "26", "100.0", "%", "32", "32", "104", "B", f"{density:.4g}"]
    assert lines[2].split() == cells
    assert lines[3].startswith("digits/a75_w4a4  ")


def test_a_run_without_a_test_score_shows_a_dash():
    cells = chain_table([run("mine", None, 4)]).splitlines()[2].split()
    assert (cells[1], cells[-1]) == ("-", "-")


def test_where_less_is_better_the_density_is_one_over_the_score():
    row = run("gan", None, 4) | {"monitor": "distance", "mode": "min", "scores": {"test": {"distance": 8.0}}}
    header, _, line = chain_table([row]).splitlines()
    assert "test distance" in header
    assert header.endswith("1 / distance per MB")
    assert (line.split()[1], line.split()[-1]) == (
        "8.00",
        f"{performance_density(0.125, row['costs']['megabytes']):.4g}",
    )


def test_a_chain_of_no_runs_is_a_header():
    assert chain_table([]).splitlines()[0].startswith("run  test accuracy")


def test_pruned_parameters_show_as_count_and_share():
    row = run("a75", 0.5, 4)
    row["costs"] |= {"parameters_kept": 13, "weight_bits": [4], "activation_bits": [4, 32]}
    assert chain_table([row]).splitlines()[2].split()[3:9] == ["13", "50.0", "%", "4", "4,", "32"]


def report(root: Path, name: str, init: str | None) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "report.json").write_text(json.dumps(run(name, 0.5, 4) | {"init": init}))


def test_a_chain_is_read_from_its_first_run_to_its_last(tmp_path: Path):
    report(tmp_path, "net/c", "net/b")
    report(tmp_path, "net/b", "net/a")
    report(tmp_path, "net/a", None)
    assert [row["name"] for row in chain_of("net/c", tmp_path)] == ["net/a", "net/b", "net/c"]


def test_a_chain_begins_where_reports_do(tmp_path: Path):
    report(tmp_path, "b", "gone")
    assert [row["name"] for row in chain_of("b", tmp_path)] == ["b"]
    assert chain_of("gone", tmp_path) == []


def test_a_chain_that_was_closed_to_a_circle_ends(tmp_path: Path):
    report(tmp_path, "a", "b")
    report(tmp_path, "b", "a")
    assert [row["name"] for row in chain_of("b", tmp_path)] == ["a", "b"]


DAMAGES = {
    "it is not JSON": [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5000],
    "it is no table": [b"[]", b"5", b"null"],
    "it has no name as a report has": [b"{}", b'{"name": 5}'],
}


@pytest.mark.parametrize(("reason", "content"), [(why, each) for why, all_ in DAMAGES.items() for each in all_])
def test_a_damaged_report_ends_the_chain_with_a_warning(tmp_path, caplog, reason, content):
    report(tmp_path, "net/b", "net/a")
    report(tmp_path, "net/a", None)
    (tmp_path / "net/a/report.json").write_bytes(content)
    assert [row["name"] for row in chain_of("net/b", tmp_path)] == ["net/b"]
    assert caplog.messages == [
        f"{tmp_path / 'net/a/report.json'} is left out of the table: {reason}. Score the run again with --resume."
    ]


@pytest.mark.parametrize("key", ["name", "init", "monitor", "mode", "scores", "costs"])
@pytest.mark.parametrize("value", [5, [], {"test": 5}, {"test": {"accuracy": "high"}}, "a\0"])
def test_a_report_with_a_wrong_entry_is_left_out_or_shown(tmp_path, caplog, key, value):
    report(tmp_path, "net/a", None)
    whole = json.loads((tmp_path / "net/a/report.json").read_text())
    (tmp_path / "net/a/report.json").write_text(json.dumps(whole | {key: value}))
    rows = chain_of("net/a", tmp_path)
    assert chain_table(rows)
    assert bool(rows) == (not caplog.messages)
    assert rows == [] or key in ("name", "monitor", "scores", "init")


@pytest.mark.parametrize(
    "costs", [{}, {"parameters": True}, {"megabytes": -1}, {"weight_bits": [0.5]}, {"parameters": 10**400}]
)
def test_costs_that_are_none_are_left_out(tmp_path, caplog, costs):
    report(tmp_path, "net/a", None)
    whole = json.loads((tmp_path / "net/a/report.json").read_text())
    (tmp_path / "net/a/report.json").write_text(json.dumps(whole | {"costs": whole["costs"] | costs if costs else {}}))
    assert chain_of("net/a", tmp_path) == []
    assert "it has no costs as a report has" in caplog.text


def test_a_pipe_in_place_of_a_report_is_not_waited_for(tmp_path, caplog):
    report(tmp_path, "net/a", None)
    (tmp_path / "net/a/report.json").unlink()
    os.mkfifo(tmp_path / "net/a/report.json")
    assert chain_of("net/a", tmp_path) == []
    assert "it is a named pipe, and only regular files are read. Score the run again" in caplog.text


def test_names_of_a_report_move_no_cursor(tmp_path):
    report(tmp_path, "net/a", None)
    whole = json.loads((tmp_path / "net/a/report.json").read_text())
    (tmp_path / "net/a/report.json").write_text(json.dumps(whole | {"name": "a\x1b[2J\nb\u202e"}))
    lines = chain_table(chain_of("net/a", tmp_path)).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("a\\x1b[2J\\nb\\u202e  ")


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (None, "test accuracy  parameters kept  share  weight bits  act bits  packed  accuracy per MB"),
        (100, "accuracy kept share bits bits packed MB"),
        (80, "accuracy kept share bits bits packed"),
        (60, "accuracy kept bits packed"),
        (10, "accuracy kept packed"),
    ],
)
def test_a_table_takes_no_more_columns_than_there_are(width: int | None, columns: str) -> None:
    lines = chain_table([run("digits/a75_layerwise", 0.9641, 4)], width).splitlines()
    header = lines[0] if width is None else lines[1]
    assert header.split() == ["run", *columns.split()]
    assert width is None or max(map(len, lines)) <= max(width, 50)
    assert lines[-1].split()[1:3] == ["96.41", "%"]
