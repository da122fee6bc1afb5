"""The folder of a run goes missing while it is trained."""

import json
import re
import shutil
import tempfile

import pytest

import qprune
from qprune.errors import CheckpointError
from qprune.spec import read_spec
from qprune.training import Callback, load_checkpoint
from qprune.training.run import Run

SMALL = [
    *("data.train_images=90", "train.batch=16", "train.length=13it", "train.validate_every=5it"),
    'train.checkpoint_every="1it"',
]


class At(Callback):
    """Does something once, after a step or before scoring."""

    def __init__(self, what, step=None, hook="on_train_batch_end"):
        self.what, self.step, self.done = what, step, False
        setattr(self, hook, self._act)

    def _act(self, *_):
        if not self.done and (self.step is None or self.trainer.step == self.step):
            self.done = True
            self.what()


def fit(runs, *callbacks, **options):
    spec = read_spec("digits/baseline", SMALL)
    return qprune.fit(spec, runs=runs, name="run", callbacks=callbacks, device="cpu", verbose=0, **options)


def refusal(runs, *callbacks):
    with pytest.raises(CheckpointError) as error:
        fit(runs, *callbacks)
    return str(error.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    runs = tmp_path_factory.mktemp("whole")
    fit(runs)
    return bits(Run(runs / "run"))


def bits(run):
    return {name: value.tolist() for name, value in load_checkpoint(run.model)["state"].items()}


def told(path, step, kept):
    return (
        f"{path} was removed, replaced or taken by another training while it was trained. All up to step {step} is "
        f"kept in {kept}. Move that to {path}, or elsewhere, and go on with --resume."
    )


def assert_goes_on(runs, kept, whole):
    if (runs / "run").is_symlink():
        (runs / "run").unlink()
    shutil.rmtree(runs / "run", ignore_errors=True)
    shutil.move(kept, runs / "run")
    fit(runs, resume=True)
    assert bits(Run(runs / "run")) == whole


def test_folder_that_is_removed_ends_the_training_and_what_was_trained_is_kept_beside_it(tmp_path, whole):
    run, kept = tmp_path / "run", tmp_path / "run-kept-2"
    (tmp_path / "run-kept-1").mkdir()
    assert refusal(tmp_path, At(lambda: shutil.rmtree(run), step=7)) == told(run, 7, kept)
    assert not run.exists()
    assert load_checkpoint(kept / "last.pt")["step"] == 7
    assert_goes_on(tmp_path, kept, whole)


def test_nothing_is_written_where_a_link_in_place_of_the_folder_leads(tmp_path, whole):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()

    def swap():
        run.rename(tmp_path / "gone")
        run.symlink_to(elsewhere)

    assert refusal(tmp_path, At(swap, step=9)) == told(run, 9, tmp_path / "run-kept-1")
    assert list(elsewhere.iterdir()) == []
    assert_goes_on(tmp_path, tmp_path / "run-kept-1", whole)


def test_a_lock_that_is_taken_away_ends_the_training(tmp_path):
    run = tmp_path / "run"
    message = refusal(tmp_path, At(lambda: shutil.rmtree(run / ".lock"), step=3))
    assert message == told(run, 3, tmp_path / "run-kept-1")
    assert load_checkpoint(run / "last.pt")["step"] == 2
    assert load_checkpoint(tmp_path / "run-kept-1/last.pt")["step"] == 3


def test_a_folder_that_is_moved_and_leaves_a_link_is_trained_on(tmp_path, whole):
    run = tmp_path / "run"

    def move():
        run.rename(tmp_path / "large disk")
        run.symlink_to(tmp_path / "large disk")

    fit(tmp_path, At(move, step=7))
    assert bits(Run(tmp_path / "large disk")) == whole


@pytest.mark.parametrize("linked", [False, True])
def test_where_the_folder_above_is_gone_too_the_system_s_folder_keeps_it(tmp_path, monkeypatch, whole, linked):
    runs, run = tmp_path / "runs", tmp_path / "runs" / "run"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()

    def remove():
        runs.rename(tmp_path / "gone")
        if linked:
            runs.symlink_to(tmp_path / "elsewhere")

    message = refusal(runs, At(remove, step=7))
    (kept,) = tmp_path.glob("qprune-run-*")
    assert message == told(run, 7, kept)
    assert not list((tmp_path / "elsewhere").iterdir())
    runs.unlink(missing_ok=True)
    runs.mkdir()
    assert_goes_on(runs, kept, whole)


def test_where_it_can_be_kept_nowhere_that_is_told(tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert f"{runs / 'run'} cannot be written: No such file or directory" in refusal(
        runs, At(lambda: shutil.rmtree(runs), step=7)
    )


def test_a_folder_that_is_removed_after_the_last_step_leaves_a_model(tmp_path, whole):
    run = tmp_path / "run"
    message = refusal(tmp_path, At(lambda: shutil.rmtree(run), hook="on_train_end"))
    kept = Run(tmp_path / "run-kept-1")
    assert message == told(run, 13, kept.path)
    assert bits(kept) == whole
    assert_goes_on(tmp_path, kept.path, whole)


def test_a_folder_that_is_removed_while_the_model_is_scored_leaves_model_and_scores(tmp_path, monkeypatch, whole):
    from qprune.training import fitting

    run, evaluate = tmp_path / "run", fitting.evaluate

    def remove(*arguments):
        shutil.rmtree(run, ignore_errors=True)
        return evaluate(*arguments)

    monkeypatch.setattr(fitting, "evaluate", remove)
    kept = Run(tmp_path / "run-kept-1")
    assert refusal(tmp_path) == told(run, 13, kept.path)
    assert bits(kept) == whole
    assert "test" in json.loads(kept.report.read_text())["scores"]


def test_a_callback_that_fails_after_the_folder_is_gone_finds_its_step_saved(tmp_path):
    def fail():
        shutil.rmtree(tmp_path / "run")
        raise LookupError("no such thing")

    with pytest.raises(qprune.QpruneError, match=r"LookupError: no such thing\. Everything up to that step is saved"):
        fit(tmp_path, At(fail, step=7))
    assert load_checkpoint(tmp_path / "run-kept-1/last.pt")["step"] == 7


def test_the_log_tells_at_once(tmp_path, caplog):
    refusal(tmp_path, At(lambda: shutil.rmtree(tmp_path / "run"), step=7))
    (line,) = (line for line in caplog.messages if "saving in" in line)
    assert re.fullmatch(r".*/run is gone: stopping after this step and saving in .*/run-kept-1\.", line)
