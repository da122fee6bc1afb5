"""`train.log` names what is told; what is not installed is refused before anything is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

import qprune
from qprune.errors import QpruneError, SpecError
from qprune.readable import score_text
from qprune.spec import read_spec
from qprune.spec.recipe import LOGS
from qprune.training import trackers
from qprune.training.tracker import Point, Tracker
from qprune.training.trackers import TENSORBOARD, TRACKERS, check_trackers, make_trackers


def test_the_spec_knows_the_trackers_that_there_are() -> None:
    assert (TENSORBOARD, *TRACKERS) == LOGS
    assert read_spec("digits/baseline").train.log == (TENSORBOARD,)


@pytest.mark.parametrize("value", ['["tensorbord"]', '"mlflow"', '["mlflow", "mlflow"]', "3"])
def test_another_value_is_refused(value: str) -> None:
    with pytest.raises(
        SpecError, match='log must be a list of "tensorboard", "mlflow" and "wandb", none of them twice'
    ):
        read_spec("digits/baseline", [f"train.log={value}"])


def test_a_tracker_that_is_not_installed_is_refused_before_a_chain_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(SpecError) as error:
        qprune.fit("digits/a75_layerwise", chain=True, runs=tmp_path, overrides=['train.log=["wandb"]'], verbose=0)
    assert str(error.value) == (
        'train.log names "wandb", and Weights & Biases is not installed: pip install "qprune[wandb]", or leave it out '
        "(train.log in digits/a75_layerwise)."
    )
    assert list(tmp_path.iterdir()) == []
    check_trackers([read_spec("digits/baseline")])  # TensorBoard always is


def test_parameters_are_the_values_of_the_spec_by_their_keys() -> None:
    (tracker,) = make_trackers(read_spec("digits/a75_w4a4", ['train.log=["tensorboard", "mlflow"]']))
    assert tracker.name == "digits/a75_w4a4"
    assert tracker.parameters["train.optimizer.lr"] == 0.005
    assert tracker.parameters["quantize.0.bits"] == 4
    assert isinstance(tracker.parameters["model.layers"], list)
    assert not [value for value in tracker.parameters.values() if isinstance(value, dict)]


def test_without_a_log_there_are_no_event_files_and_a_resumed_run_may_choose_anew(tmp_path: Path) -> None:
    options = {"runs": tmp_path, "verbose": 0}
    history = qprune.fit("digits/baseline", overrides=["train.length=19it", "train.log=[]"], **options)
    assert history.run is not None
    assert not (history.run / "tensorboard").exists()
    again = qprune.fit("digits/baseline", overrides=["train.length=19it"], resume=True, **options)
    assert again.history["step"] == [19]


class Keeping(Tracker):
    """Keeps copies of the files that it is given."""

    title, package = "Keeping", "json"
    files: ClassVar[dict[str, str]] = {}

    def begin(self) -> int:
        self.id = self.id or "new"
        return -1

    def send(self, points: Sequence[Point]) -> None:
        pass

    def send_files(self, files: Sequence[Path]) -> None:
        self.files.update({file.name: file.read_text(encoding="utf-8") for file in files})

    def end(self, outcome: str) -> None:
        pass


def test_a_tracker_is_given_the_page_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jinja2")
    monkeypatch.setitem(TRACKERS, "mlflow", Keeping)
    options = ['train.log=["mlflow"]', "train.length=19it"]
    history = qprune.fit("digits/baseline", runs=tmp_path, overrides=options, verbose=0)
    assert Keeping.files.keys() == {"spec.toml", "history.csv", "report.json", "report.html"}
    assert score_text("accuracy", history.scores["test"]["accuracy"]) in Keeping.files["report.html"]
    Keeping.files.clear()


def test_where_no_page_can_be_made_trackers_are_given_the_rest_and_the_log_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise QpruneError("jinja2 is missing.")

    monkeypatch.setitem(TRACKERS, "mlflow", Keeping)
    monkeypatch.setattr("qprune.reports.report", refused)
    options = ['train.log=["mlflow"]', "train.length=19it"]
    with caplog.at_level("WARNING"):
        qprune.fit("digits/baseline", runs=tmp_path, overrides=options, verbose=0)
    assert "report.json" in Keeping.files
    assert "report.html" not in Keeping.files
    assert f"There is no page about {tmp_path / 'digits/baseline'} for trackers: jinja2 is missing." in caplog.messages
    Keeping.files.clear()
