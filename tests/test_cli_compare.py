"""`qprune report`, `compare` and `sweep` in the shell."""

import signal

import pytest
from click.testing import CliRunner
from tiny_runs import DIGITS, HALF, chain, chain_at

from qprune import sweeps
from qprune.cli import main
from qprune.spec import read_spec, spec_to_toml


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def write(folder):
    (folder / "try.toml").write_text(spec_to_toml(read_spec({"name": "net/try"} | DIGITS | HALF)))
    return folder / "try.toml"


def test_report_says_where_the_page_is(tmp_path):
    found = run("report", "net/half", "--out", tmp_path / "it.html", "--runs", chain())
    assert (found.exit_code, found.output) == (0, f"The page is in {tmp_path / 'it.html'}\n")
    assert "<h1>net/half</h1>" in (tmp_path / "it.html").read_text()


def test_report_of_no_run_is_a_sentence(tmp_path):
    found = run("report", "net/half", "--runs", tmp_path)
    assert found.exit_code == 2
    assert found.output.startswith("qprune: There is no run net/half")


def test_compare_prints_a_table_in_the_order_asked_for(tmp_path):
    found = run("compare", "net", "--sort", "bytes", "--html", tmp_path / "it.html", "--runs", chain())
    lines = found.output.splitlines()
    assert lines[0] == "3 runs of net, accuracy on test images"
    assert [line.split()[0] for line in lines[3:6]] == ["w4", "half", "dense"]
    assert lines[-1] == f"The page is in {tmp_path / 'it.html'}"


def test_compare_of_an_unknown_key_is_a_sentence():
    found = run("compare", "net", "--sort", "byte", "--runs", chain())
    assert (found.exit_code, found.output[:32]) == (2, 'qprune: There is no "byte"; near')


def test_a_dry_sweep_lists_the_runs_and_trains_none(tmp_path):
    found = run("sweep", write(tmp_path), "--set", "train.batch=16,32", "--seeds", 2, "--dry-run", "--runs", tmp_path)
    assert found.output.splitlines() == [
        "net/try_batch16", "net/try_batch16@seed1", "net/try_batch32", "net/try_batch32@seed1",
    ]  # fmt: skip
    assert not (tmp_path / "net").exists()


def test_a_sweep_trains_and_compares_and_then_has_nothing_left(tmp_path):
    root = chain_at(tmp_path)
    command = ["sweep", write(tmp_path), "--set", "prune.0.sparsity=0.25,0.75", "--quiet", "--runs", root]
    found = run(*command, "--sort", "bytes")
    assert found.exit_code == 0
    assert "2 runs of net, accuracy on test images" in found.output
    again = run(*command, "--dry-run")
    assert again.output.splitlines() == ["net/try_sparsity0.25 (done)", "net/try_sparsity0.75 (done)"]


def test_a_sweep_trains_first_what_its_runs_start_from(tmp_path):
    spec = tmp_path / "specs/net"
    spec.mkdir(parents=True)
    (spec / "dense.toml").write_text(spec_to_toml(read_spec({"name": "net/dense"} | DIGITS)))
    (spec / "try.toml").write_text(spec_to_toml(read_spec({"name": "net/try"} | DIGITS | HALF)))
    command = ["sweep", spec / "try.toml", "--set", "prune.0.sparsity=0.5", "--quiet", "--runs", tmp_path / "runs"]
    alone = run(*command)
    assert alone.exit_code == 2
    assert "net/dense" in alone.output
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert run(*command, "--chain").exit_code == 0
    assert (tmp_path / "runs/net/dense/model.pt").is_file()


@pytest.mark.parametrize(("preempted", "code"), [(False, 128 + signal.SIGINT), (True, 128 + signal.SIGTERM)])
def test_an_interrupted_sweep_ends_as_a_shell_expects(tmp_path, monkeypatch, preempted, code):
    def stopped(*_, **__):
        raise sweeps.InterruptedSweep("runs/net/try", preempted)

    monkeypatch.setattr(sweeps, "sweep", stopped)
    found = run("sweep", write(tmp_path), "--runs", tmp_path)
    assert found.exit_code == code
    assert "The sweep was interrupted in runs/net/try, where everything is saved" in found.output
