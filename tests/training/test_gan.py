"""Training a GAN: several forwards, one step, one tick; and resuming it in the middle."""

from pathlib import Path
from typing import Any

import torch
from comparing import same

from qprune.layers import sites
from qprune.spec import read_spec
from qprune.training import Callback, ModelCheckpoint, Trainer, prepare
from qprune.training.checkpoint import load

SMALL = [
    "model.width=0.07", "model.width_ba=0.07", "model.width_discriminators=0.07", "data.size=32", "data.train_images=6",
    "train.length=9it", "train.validate_every=9it", 'train.lr_schedule={name="constant"}', "task.pool=2",
]  # fmt: skip
MASKS = [{"sites": [{"types": ["Conv2d"], "paths": ["generator_*.blocks.*"], "at": "input"}], "sparsity": 0.5,
          "schedule": {"kind": "layerwise", "start": 0, "interval": 3, "refresh": 3}}]  # fmt: skip


def trainer(**tables: Any) -> Trainer:
    table = read_spec("streets/cyclegan/baseline", SMALL).to_dict() | tables
    return prepare(read_spec(table)).trainer


class Stop(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        if self.trainer.step == self.step:
            self.trainer.stop_training = self.trainer.history.interrupted = True


def test_resumed_gan_equals_the_unbroken_one_to_the_bit_with_its_pools(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = trainer()
    whole.use([ModelCheckpoint(tmp_path / "whole")])
    whole.fit()
    first = trainer()
    first.use([Stop(5), ModelCheckpoint(tmp_path)])
    assert first.fit().interrupted
    second = trainer()
    second.use([ModelCheckpoint(tmp_path)])
    second.resume_from(load(tmp_path / "last.pt"))
    torch.manual_seed(99)
    second.fit()
    assert same(load(tmp_path / "last.pt"), load(tmp_path / "whole/last.pt"))
    assert len(load(tmp_path / "last.pt")["ranks"][0]["task"]["pool_b"]["images"]) == 2


def test_masks_of_both_generators_follow_the_data_and_one_step_is_one_tick() -> None:
    trained = trainer(prune=MASKS, train={"length": "99it", "batch": 1, "optimizer": {"name": "adam", "lr": 0.0002}})
    assert trained.driver is not None
    order = [entry.site for entry in sorted(trained.driver.plan.sites, key=lambda entry: entry.timeline.freeze)]
    assert [site.split(".")[0] for site in order] == ["generator_ab"] * 12 + ["generator_ba"] * 12
    trained.use([Stop(4)])
    trained.fit()
    assert trained.driver.steps_done == trained.step == 4
    masks = {site.name: site.mask for site in sites(trained.net)}
    assert [event["site"] for event in trained.history.events if event["frozen"]] == order[:1]
    # generator_ab ran three times in each of the three steps that the first mask measured, all before one commit
    assert int(masks[order[0]].seen) == 3
