"""What a run left is read back, and what is missing or damaged is said."""

import json
import shutil

import pytest
from tiny_runs import chain, chain_at

from qprune.errors import CheckpointError
from qprune.run_record import RunRecord, find_runs, unfinished_below


def test_a_record_knows_name_score_and_root_of_a_run():
    record = RunRecord.open("net/w4", chain())
    report = json.loads((chain() / "net/w4/report.json").read_text())
    assert (record.name, record.monitor, record.mode) == ("net/w4", "accuracy", "max")
    assert record.score == report["scores"]["test"]["accuracy"]
    assert record.root == chain().resolve()


def test_the_root_is_found_from_the_folder_alone(tmp_path):
    chain_at(tmp_path)
    assert RunRecord.open(tmp_path / "runs/net/half", "elsewhere").root == (tmp_path / "runs").resolve()


def test_a_run_under_another_name_keeps_the_root_it_was_asked_in(tmp_path):
    shutil.copytree(chain() / "net/half", tmp_path / "copied")
    assert RunRecord.open(tmp_path / "copied", tmp_path).root == tmp_path


def test_the_history_has_entries_and_events():
    history, notes = RunRecord.open("net/half", chain()).history()
    assert notes == []
    assert len(history) == 2
    assert {event["site"] for event in history.events} == {"act1.output", "act2.output"}


def test_without_a_checkpoint_the_entries_come_from_the_table_and_a_note_says_so(tmp_path):
    root = chain_at(tmp_path)
    whole, _ = RunRecord.open("net/half", root).history()
    (root / "net/half/last.pt").unlink()
    history, notes = RunRecord.open("net/half", root).history()
    assert history.history["val_accuracy"] == whole.history["val_accuracy"]
    assert history.events == []
    assert notes == ["last.pt is not at hand, so when masks froze and quantizers started is not known."]


@pytest.mark.parametrize("content", ["", "step\nx\n", "loss\n0.5\n", "step,loss\n3\n", "\0"])
def test_a_damaged_table_of_entries_is_said(tmp_path, content):
    root = chain_at(tmp_path)
    (root / "net/half/last.pt").write_bytes(b"nothing")
    (root / "net/half/history.csv").write_text(content)
    history, notes = RunRecord.open("net/half", root).history()
    assert history.history == {}
    assert notes[1] == "history.csv is not at hand, so there are no losses and metrics over steps."


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    root = chain_at(tmp_path)
    (root / "net/half/model.pt").unlink()
    with pytest.raises(CheckpointError, match=r"net/half is not finished, so there is nothing to show yet\."):
        RunRecord.open("net/half", root)


def test_a_damaged_report_is_refused_in_a_sentence(tmp_path):
    root = chain_at(tmp_path)
    (root / "net/half/report.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"report\.json cannot be used: it has no name as a report has\. Score"):
        RunRecord.open("net/half", root)


@pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b"\xff", "cannot be read"), (b"a = ", "holds a")])
def test_a_damaged_spec_is_refused_in_a_sentence(tmp_path, content, reason):
    root = chain_at(tmp_path)
    (root / "net/half/spec.toml").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"spec\.toml {reason}"):
        RunRecord.open("net/half", root)


def test_a_certificate_that_is_none_is_noted_and_left_out(tmp_path):
    root = chain_at(tmp_path)
    (root / "net/half/model.certificate.json").write_text('{"outputs": 5}')
    record = RunRecord.open("net/half", root)
    found, (note,) = record.certificates()
    assert found == []
    assert record.milliseconds is None
    assert note.endswith("holds no certificate as qprune writes it. Export the run again.")


def test_a_folder_stands_for_the_finished_runs_below_it(tmp_path):
    root = chain_at(tmp_path)
    (root / "net/w4/model.pt").unlink()
    assert [path.name for path in find_runs("net", root)] == ["dense", "half"]
    assert unfinished_below("net", root) == [root / "net/w4"]


def test_a_run_stands_for_itself():
    assert find_runs("net/w4", chain()) == [chain() / "net/w4"]
    assert unfinished_below("net/w4", chain()) == []


def test_what_is_neither_a_run_nor_a_folder_of_some_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no run nett/w4.*Nearest: net/w4"):
        find_runs("nett/w4", chain())
    with pytest.raises(CheckpointError, match="There is no run"):
        find_runs(tmp_path, chain())
