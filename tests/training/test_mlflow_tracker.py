"""MLflow, in its store of local files, has what the history has."""

from pathlib import Path

import pytest

mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")

import qprune  # noqa: E402
from qprune.training.callbacks import Callback, Logs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow's own, about its store of files


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return tmp_path / "store"


OPTIONS = ['train.log=["mlflow"]', "train.length=3ep", "data.train_images=270"]


class Stop(Callback):
    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.trainer.interruption.came = epoch == 1


def runs() -> list[object]:
    client = mlflow.tracking.MlflowClient()
    experiment = client.get_experiment_by_name("qprune")
    return list(client.search_runs([experiment.experiment_id]))


def test_a_run_has_parameters_numbers_and_files(tmp_path: Path) -> None:
    history = qprune.fit("digits/baseline", runs=tmp_path / "runs", overrides=OPTIONS, verbose=0)
    (run,) = runs()
    assert run.info.run_name == "digits/baseline"
    assert run.info.status == "FINISHED"
    assert run.data.params["train.optimizer.lr"] == "0.05"
    client = mlflow.tracking.MlflowClient()
    told = client.get_metric_history(run.info.run_id, "val/accuracy")
    assert [point.step for point in told] == history.history["step"]
    assert [point.value for point in told] == history.history["val_accuracy"]
    assert run.data.metrics["final/test/accuracy"] == history.scores["test"]["accuracy"]
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"spec.toml", "history.csv", "report.json"} <= files


def test_a_resumed_run_is_the_same_run_without_a_doubled_point(tmp_path: Path) -> None:
    options = {"runs": tmp_path / "runs", "overrides": OPTIONS, "verbose": 0}
    assert qprune.fit("digits/baseline", callbacks=[Stop()], **options).interrupted
    assert [run.info.status for run in runs()] == ["KILLED"]
    history = qprune.fit("digits/baseline", resume=True, **options)
    (run,) = runs()
    assert run.info.status == "FINISHED"
    told = mlflow.tracking.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in told] == history.history["step"]
    assert len(told) == 3


def test_a_server_that_is_not_there_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    history = qprune.fit("digits/baseline", runs=tmp_path / "runs", overrides=OPTIONS, verbose=0)
    assert "test" in history.scores
    told = [record.getMessage() for record in caplog.records if record.name.startswith("qprune.training.tracker")]
    assert told[0].startswith("MLflow cannot be told of this training: ")
    assert told[1:] == ["MLflow has not all of this training; it is in the run's history.csv."]
