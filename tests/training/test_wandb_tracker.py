"""Weights & Biases, offline, has what the history has."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")

import qprune  # noqa: E402
from qprune.training.callbacks import Callback, Logs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of the library's own


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    yield tmp_path
    wandb.teardown()  # else its process keeps this folder for the next test


OPTIONS = ['train.log=["wandb"]', "train.length=3ep", "data.train_images=270"]


class Stop(Callback):
    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.trainer.interruption.came = epoch == 1


def records(folder: Path) -> Iterator[Any]:
    """What the logs hold, once all of them are closed: a process of W&B's own writes them, a moment later."""
    files = sorted({file.resolve() for file in folder.rglob("*.wandb")})
    for _ in range(100):
        logs = [[parsed(content) for content in contents(file.read_bytes())] for file in files]
        if all(any(record.WhichOneof("record_type") == "exit" for record in log) for log in logs):
            break
        time.sleep(0.2)
    return (record for log in logs for record in log)


def parsed(content: bytes) -> Any:
    from wandb.proto import wandb_internal_pb2

    record = wandb_internal_pb2.Record()
    record.ParseFromString(content)
    return record


def contents(data: bytes, block: int = 2**15) -> Iterator[bytes]:
    """The records of a log of LevelDB: a head of 7 bytes, blocks, in each parts with checksum, length and kind."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if block - place % block < 7:  # too short for a part
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [record.history.item for record in records(folder) if record.WhichOneof("record_type") == "history"]
    return [{item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json) for item in row}
            for row in found]  # fmt: skip


def run_ids(folder: Path) -> set[str]:
    return {record.run.run_id for record in records(folder) if record.WhichOneof("record_type") == "run"}


def test_a_run_has_parameters_numbers_and_files(offline: Path) -> None:
    history = qprune.fit("digits/baseline", runs=offline / "runs", overrides=OPTIONS, verbose=0)
    told = [(row["step"], row["val/accuracy"]) for row in rows(offline) if "val/accuracy" in row]
    assert told == list(zip(history.history["step"], history.history["val_accuracy"], strict=True))
    run = next(record.run for record in records(offline) if record.WhichOneof("record_type") == "run")
    assert (run.display_name, run.project) == ("digits/baseline", "qprune")
    assert json.loads({item.key: item.value_json for item in run.config.update}["train.optimizer.lr"]) == 0.05
    artifacts = [record for record in records(offline) if "artifact" in str(record.WhichOneof("record_type"))
                 or record.request.WhichOneof("request_type") == "log_artifact"]  # fmt: skip
    assert artifacts
    assert rows(offline)[-1]["final/test/accuracy"] == history.scores["test"]["accuracy"]


def test_a_resumed_run_is_the_same_run_without_a_doubled_point(offline: Path) -> None:
    options = {"runs": offline / "runs", "overrides": OPTIONS, "verbose": 0}
    assert qprune.fit("digits/baseline", callbacks=[Stop()], **options).interrupted
    history = qprune.fit("digits/baseline", resume=True, **options)
    assert len(run_ids(offline)) == 1
    assert [row["step"] for row in rows(offline) if "train/loss" in row] == history.history["step"]
    assert len(history) == 3
