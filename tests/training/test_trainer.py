import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from qprune.data import eval_loader
from qprune.errors import DataError
from qprune.spec import LrSpec
from qprune.tasks import Classification
from qprune.training import Callback, CallbackError, Trainer, evaluate

MakeTrainer = Callable[..., Trainer]
TIMES = ("seconds",)


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        self.calls.append(("train begin", self.trainer.step))

    def on_train_end(self, logs: dict[str, Any]) -> None:
        self.calls.append(("train end", self.trainer.step))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any]) -> None:
        self.calls.append(("epoch begin", epoch))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        self.calls.append(("epoch end", epoch))

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any]) -> None:
        self.calls.append(("batch begin", batch))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        self.calls.append(("batch end", batch))

    def close(self) -> None:
        self.calls.append(("close",))


def test_network_learns_digits(make_trainer: MakeTrainer) -> None:
    history = make_trainer(steps=60).fit().history
    assert history["loss"][-1] < history["loss"][0]
    assert history["val_accuracy"][-1] > 0.8


def test_validation_comes_every_so_many_steps_and_at_the_end(make_trainer: MakeTrainer) -> None:
    history = make_trainer(steps=13, validate_every=3).fit().history
    assert history["step"] == [3, 6, 9, 12, 13]
    assert history["epoch"] == [0.6, 1.2, 1.8, 2.4, 2.6]


def test_validation_is_once_an_epoch_by_default(make_trainer: MakeTrainer) -> None:
    assert make_trainer(steps=12).fit().history["step"] == [5, 10, 12]


def test_history_lists_have_equal_lengths_and_val_names(make_trainer: MakeTrainer) -> None:
    history = make_trainer(steps=12).fit().history
    assert list(history) == [
        "loss", "accuracy", "top5", "val_loss", "val_accuracy", "val_top5", "lr", "step", "epoch", "seconds",
    ]  # fmt: skip
    assert {len(values) for values in history.values()} == {3}
    assert all(type(value) in (int, float) for values in history.values() for value in values)


def test_without_a_validation_split_there_are_no_val_names(make_trainer: MakeTrainer) -> None:
    history = make_trainer(steps=5, val=False).fit().history
    assert [name for name in history if name.startswith("val_")] == []


def test_optimizer_steps_exactly_as_often_as_asked(make_trainer: MakeTrainer) -> None:
    trainer, steps = make_trainer(steps=7), []
    trainer.optimizer.register_step_post_hook(lambda *_: steps.append(trainer.step))
    trainer.fit()
    assert steps == list(range(7))
    assert trainer.driver is not None
    assert trainer.driver.steps_done == 7


def test_history_has_the_rate_of_the_last_step(make_trainer: MakeTrainer) -> None:
    history = make_trainer(steps=7, lr=0.5, validate_every=2, schedule=LrSpec(warmup=4)).fit().history
    assert history["lr"] == pytest.approx([0.25, 0.5, 0.5, 0.5])


def test_training_loss_is_the_mean_over_the_images_of_the_period(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(steps=5)
    losses: list[tuple[float, int]] = []

    class Losses(Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            losses.append((float(logs["loss"]), len(self.trainer.batch[1])))

    trainer.use([Losses()])
    loss = trainer.fit().history["loss"][0]
    assert [size for _, size in losses] == [32, 32, 32, 32, 22]
    assert loss == pytest.approx(sum(value * size for value, size in losses) / 150)


def test_loop_equals_a_hand_written_one(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(steps=8, lr=0.1, schedule=LrSpec(), val=False)
    net = copy.deepcopy(trainer.net)
    trainer.fit()

    sgd, task = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=5e-4), trainer.task
    sampler: Any = trainer.train.sampler
    for epoch, batches in ((0, 5), (1, 3)):
        sampler.epoch = epoch
        for _, (images, labels) in zip(range(batches), trainer.train, strict=False):
            loss, _ = task.step(net, (images.to(memory_format=torch.channels_last), labels))
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), trainer.net.parameters(), strict=True))


def test_hooks_come_in_keras_order(make_trainer: MakeTrainer) -> None:
    recorder = Recorder()
    make_trainer(steps=3, validate_every=2, callbacks=[recorder]).fit()
    assert recorder.calls == [
        ("train begin", 0), ("epoch begin", 0),
        ("batch begin", 0), ("batch end", 0), ("batch begin", 1), ("batch end", 1), ("epoch end", 0),
        ("epoch begin", 1), ("batch begin", 2), ("batch end", 2), ("epoch end", 1),
        ("train end", 3), ("close",),
    ]  # fmt: skip


def test_dropped_entries_are_zero_when_the_epoch_ends(make_joint_trainer: MakeTrainer) -> None:
    seen = []

    class Look(Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
            conv: Any = self.trainer.net[0]  # type: ignore[index]
            dropped = ~conv.output_mask.keep
            if self.trainer.driver is not None and self.trainer.driver.finished:
                seen.append((int(dropped.sum()), float(conv.weight[dropped].abs().sum().detach())))

    make_joint_trainer(callbacks=[Look()], validate_every=1).fit()
    assert seen == [(3, 0.0)] * 9


def test_events_are_in_the_history(make_joint_trainer: MakeTrainer) -> None:
    events = make_joint_trainer().fit().events
    assert [event["step"] for event in events if event.get("frozen")] == [6, 12]
    assert [(event["step"], event["site"]) for event in events if "bits" in event] == [
        (17, "3.input"),
        (17, "3.weight"),
    ]


def test_callback_can_stop_training(make_trainer: MakeTrainer) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            self.trainer.stop_training = self.trainer.step == 4

    trainer = make_trainer(steps=9, callbacks=[Stop()])
    history = trainer.fit()
    assert (trainer.step, trainer.finished, history.interrupted) == (4, True, False)


def test_callbacks_are_closed_after_an_error(make_trainer: MakeTrainer) -> None:
    class Fail(Recorder):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            raise ZeroDivisionError

    recorder = Fail()
    with pytest.raises(CallbackError, match="Fail failed in on_train_batch_end at step 1: ZeroDivisionError"):
        make_trainer(callbacks=[recorder]).fit()
    assert recorder.calls[-1] == ("close",)


def test_images_and_weights_have_channels_last_only_if_asked(make_trainer: MakeTrainer) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = x.is_contiguous(memory_format=torch.channels_last)
            result: torch.Tensor = self.conv(x).mean((2, 3))
            return result

    loader = DataLoader(TensorDataset(torch.rand(6, 3, 5, 7), torch.arange(6) % 4), batch_size=2)
    for asked in (True, False):
        net = Two()
        options = {"train": loader, "optimizer": torch.optim.SGD(net.parameters(), 0.1), "steps": 2}
        Trainer(net, Classification(classes=4), channels_last=asked, **options).fit()  # type: ignore[arg-type]
        assert net.seen is asked
        assert net.conv.weight.is_contiguous(memory_format=torch.channels_last) is asked


def test_loader_of_ones_own_trains_for_as_many_steps_as_asked() -> None:
    loader = DataLoader(TensorDataset(torch.rand(7, 1, 3, 5), torch.arange(7) % 3), batch_size=2, shuffle=True)
    net = nn.Sequential(nn.Flatten(), nn.Linear(15, 3))
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    history = Trainer(net, Classification(classes=3), train=loader, optimizer=sgd, steps=9).fit()
    assert history.history["step"] == [4, 8, 9]


def test_empty_training_loader_is_refused() -> None:
    loader: Any = DataLoader(TensorDataset(torch.rand(3, 2), torch.arange(3)), batch_size=4, drop_last=True)
    net = nn.Linear(2, 3)
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    trainer = Trainer(net, Classification(classes=3), train=loader, optimizer=sgd, steps=9, steps_per_epoch=2)
    with pytest.raises(DataError, match="nothing to train on: the loader gave no batch"):
        trainer.fit()


def test_evaluate_weighs_images_not_batches() -> None:
    images, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    net = nn.Linear(4, 3)
    scores = evaluate(net, Classification(classes=3), DataLoader(TensorDataset(images, labels), batch_size=2))
    output = net(images).detach()
    assert scores["loss"] == pytest.approx(float(nn.functional.cross_entropy(output, labels)))
    assert scores["accuracy"] == pytest.approx(float((output.argmax(1) == labels).float().mean()))


def test_evaluate_changes_nothing(make_joint_trainer: MakeTrainer) -> None:
    trainer = make_joint_trainer(steps=18)
    trainer.fit()
    net = trainer.net
    net.train()
    net[1].eval()  # type: ignore[index]
    before, rng = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    assert trainer.val is not None
    evaluate(net, trainer.task, trainer.val)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [m.training for m in net] == [True, False] + [True] * 7  # type: ignore[attr-defined]
    assert torch.equal(rng, torch.get_rng_state())


def test_evaluation_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to evaluate on"):
        evaluate(nn.Linear(2, 3), Classification(classes=3), [])


def test_reported_validation_loss_is_not_smoothed(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(steps=5)
    history = trainer.fit().history
    assert trainer.val is not None
    plain = Classification(classes=10)
    assert history["val_loss"][-1] == evaluate(trainer.net, plain, eval_loader(trainer.val, batch=64))["loss"]


def test_the_time_spent_waiting_for_data_is_logged(make_trainer, caplog) -> None:
    caplog.set_level("INFO", logger="qprune.training.trainer")
    make_trainer(steps=7).fit()
    told = [record.getMessage() for record in caplog.records if "waiting for data" in record.getMessage()]
    assert [re.match(r"Step (\d+): [\d.]+ s, of which \d+ % waiting for data$", line)[1] for line in told] == ["5", "7"]
