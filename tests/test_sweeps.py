"""A sweep: which runs there are, what they are called, what is trained and what is there already."""

import pytest
from tiny_runs import DIGITS, HALF, chain_at

import qprune
from qprune import api
from qprune.errors import CheckpointError, SpecError
from qprune.sweeps import InterruptedSweep, trials
from qprune.training import History

SPEC = {"name": "net/try"} | DIGITS | HALF


def names(values, **options):
    return [trial.name.removeprefix("net/try") for trial in trials(SPEC, values, runs="nowhere", **options)]


def test_every_combination_is_a_run_with_the_values_in_its_name():
    found = names(["prune.0.sparsity=0.25,0.5", "train.batch=16,32"])
    assert found == ["_sparsity0.25_batch16", "_sparsity0.25_batch32", "_sparsity0.5_batch16", "_sparsity0.5_batch32"]


def test_values_of_python_and_of_text_make_the_same_runs():
    assert trials(SPEC, {"prune.0.sparsity": [0.25, 0.5]}, runs="nowhere") == trials(
        SPEC, ["prune.0.sparsity=0.25,0.5"], runs="nowhere"
    )


def test_seeds_are_counted_on_from_that_of_the_spec():
    found = trials(SPEC | {"seed": 4}, ["train.batch=16"], seeds=3, runs="nowhere")
    assert [trial.name for trial in found] == ["net/try_batch16", "net/try_batch16@seed5", "net/try_batch16@seed6"]
    assert [trial.seed for trial in found] == [None, 5, 6]


def test_without_values_the_seeds_are_the_sweep():
    assert names([], seeds=2) == ["", "@seed1"]


def test_keys_that_end_alike_have_their_whole_path_in_the_name():
    assert names(["train.optimizer.name=sgd,adam", "data.name=digits"]) == [
        "_train-optimizer-namesgd_data-namedigits", "_train-optimizer-nameadam_data-namedigits",
    ]  # fmt: skip


def test_commas_of_a_list_or_a_text_divide_no_values():
    found = trials(SPEC, ["about='a, b',c", "train.optimizer={ name = 'sgd', lr = 0.1 }"], runs="nowhere")
    assert [trial.overrides[0] for trial in found] == ["about='a, b'", "about=c"]
    assert found[0].name == "net/try_abouta-b_optimizername-sgd-lr-0.1"


@pytest.mark.parametrize(
    ("values", "options", "sentence"),
    [
        (["train.batch=16,16"], {}, "Two runs of the sweep would be called net/try_batch16: leave out a value"),
        (["train.batch"], {}, 'Values of a sweep must read key.path=value,value; received "train.batch".'),
        (["train.batch="], {}, 'A sweep needs values of "train.batch"; received none.'),
        ([], {"seeds": 0}, "A sweep needs at least 1 seed; received 0."),
        ({"seed": list(range(999))}, {"seeds": 2}, "A sweep has at most 1,000 runs; received 1,998."),
        (["prune.0.sparsity=0.5,1.5"], {}, "sparsity must be in [0, 1); received 1.5"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_a_sentence(values, options, sentence):
    with pytest.raises(SpecError) as caught:
        names(values, **options)
    assert sentence in str(caught.value)


def test_a_sweep_trains_what_is_missing_and_compares(tmp_path, monkeypatch):
    root = chain_at(tmp_path)
    values = {"prune.0.sparsity": [0.25, 0.75]}
    found = qprune.sweep(SPEC, values, runs=root, verbose=0)
    assert [run.name for run in found.rows] == ["net/try_sparsity0.25", "net/try_sparsity0.75"]
    assert found.rows[0].params > found.rows[1].params
    before = [(root / run.name / "model.pt").stat().st_mtime_ns for run in found.rows]
    monkeypatch.setattr(api, "fit", None)  # nothing is left to train
    assert qprune.sweep(SPEC, values, runs=root, verbose=0) == found
    assert [(root / run.name / "model.pt").stat().st_mtime_ns for run in found.rows] == before
    assert [trial.done for trial in trials(SPEC, values, runs=root)] == [True, True]


def test_a_finished_run_of_another_spec_is_not_taken_for_one_of_the_sweep(tmp_path):
    root = chain_at(tmp_path)
    qprune.sweep(SPEC, ["prune.0.sparsity=0.25"], runs=root, verbose=0)
    other = SPEC | {"train": SPEC["train"] | {"batch": 16}}
    with pytest.raises(CheckpointError, match=r"train\.batch was 32 and is 16 now"):
        qprune.sweep(other, ["prune.0.sparsity=0.25"], runs=root, verbose=0)


def test_a_sweep_of_which_one_run_cannot_work_trains_none(tmp_path):
    root = chain_at(tmp_path)
    with pytest.raises(qprune.PlanError, match="training ends"):
        qprune.sweep(SPEC, ["prune.0.schedule.at=3,400"], runs=root, verbose=0)
    assert not (root / "net/try_at3").exists()


def test_an_interrupted_sweep_says_where_and_goes_no_further(tmp_path, monkeypatch):
    root, begun = chain_at(tmp_path), []

    def stopped(spec, *, name, **_):
        begun.append(name)
        return History(run=root / name, interrupted=True, preempted=True)

    monkeypatch.setattr(api, "fit", stopped)
    with pytest.raises(InterruptedSweep, match=r"in .*net/try_batch16, where everything is saved") as caught:
        qprune.sweep(SPEC, ["train.batch=16,32"], runs=root)
    assert begun == ["net/try_batch16"]
    assert caught.value.preempted
