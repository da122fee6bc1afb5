import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qprune.errors import TrainingError
from qprune.layers import QuantConv2d
from qprune.schedules import QuantizeFrom
from qprune.training import Callback, CallbackError, ModelCheckpoint, TerminateOnNaN, Trainer
from qprune.training.checkpoint import load

MakeTrainer = Callable[..., Trainer]


class Break(nn.Module):
    """Gives NaN from its 8th training forward on."""

    forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += self.training
        return x * float("nan") if self.training and self.forwards > 7 else x


def net_with(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), *layers, nn.Flatten(), nn.Linear(3 * 6 * 6, 10))


def test_nan_stops_with_the_step_and_the_first_layer(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(net_with(Break(), nn.ReLU()), callbacks=[TerminateOnNaN(), ModelCheckpoint(tmp_path)])
    with pytest.raises(TrainingError) as error:
        trainer.fit()
    assert str(error.value) == (
        'The loss is not finite at step 7: the first such values are in the output of "1" (Break). Lower the learning '
        "rate, warm it up, or check the data; the last good checkpoint was kept."
    )
    assert load(tmp_path / "last.pt")["step"] == 5
    assert not (tmp_path / "model.pt").exists()


def test_network_stays_as_it_was_before_the_bad_step(make_trainer: MakeTrainer) -> None:
    states: list[dict[str, Tensor]] = []

    class Keep(Callback):
        def on_train_batch_begin(self, batch: int, logs: dict[str, Any]) -> None:
            states.append(copy.deepcopy(self.trainer.net.state_dict()))

    trainer = make_trainer(net_with(Break()), callbacks=[Keep(), TerminateOnNaN()])
    with pytest.raises(TrainingError):
        trainer.fit()
    assert all(torch.equal(value, states[-1][name]) for name, value in trainer.net.state_dict().items())


def test_site_is_named_where_a_compressor_is_the_first(make_trainer: MakeTrainer) -> None:
    conv = QuantConv2d(3, 3, 1, weight_bits=4, act_bits=4, schedule=QuantizeFrom(2))
    trainer = make_trainer(net_with(conv), steps=20, callbacks=[TerminateOnNaN()])

    class Spoil(Callback):
        def on_train_batch_begin(self, batch: int, logs: dict[str, Any]) -> None:
            if self.trainer.step == 6:
                conv.input_quant.scale.fill_(torch.nan)  # type: ignore[union-attr]

    trainer.use([Spoil()])
    with pytest.raises(TrainingError, match=r'step 6: the first such values are in the site "1\.input"\.'):
        trainer.fit()


def test_weights_are_named_where_they_are_not_finite(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(callbacks=[TerminateOnNaN()])
    with torch.no_grad():
        trainer.net[3].weight[2, 5] = torch.inf  # type: ignore[index, union-attr, operator]
    with pytest.raises(TrainingError, match=r'step 0: the first such values are in the weight of "3" \(Linear\)'):
        trainer.fit()


def test_bad_batch_is_named(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(callbacks=[TerminateOnNaN()])
    trainer.train.items.mean = (float("nan"),)  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match="step 0: the batch itself has such values"):
        trainer.fit()


def test_loss_of_finite_outputs_is_named(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(callbacks=[TerminateOnNaN()])
    step = type(trainer.task).step

    def spoiled(task: Any, net: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        loss, output = step(task, net, batch)
        return loss * torch.inf, output

    monkeypatch.setattr(type(trainer.task), "step", spoiled)
    with pytest.raises(TrainingError, match="the output of every layer is finite, the loss has such values"):
        trainer.fit()


def test_step_is_exact_where_it_is_read_late(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(net_with(Break()), steps=20, validate_every=20, callbacks=[TerminateOnNaN(every=10)])
    with pytest.raises(TrainingError, match=r'not finite at step 7: .*the weight of "0"'):
        trainer.fit()
    assert trainer.step == 9


def test_late_look_comes_before_anything_is_saved(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callbacks = [TerminateOnNaN(every=100), ModelCheckpoint(tmp_path)]
    with pytest.raises(TrainingError, match="not finite at step 7"):
        make_trainer(net_with(Break()), steps=20, callbacks=callbacks).fit()
    assert load(tmp_path / "last.pt")["step"] == 5


@pytest.mark.parametrize("options", [{"every": 9}, {"minutes": 1e-9}])
def test_late_look_comes_before_a_checkpoint_in_the_middle_of_an_epoch(
    make_trainer: MakeTrainer, tmp_path: Path, options: dict[str, Any]
) -> None:
    callbacks = [TerminateOnNaN(every=100), ModelCheckpoint(tmp_path, **options)]
    with pytest.raises(TrainingError, match="not finite at step 7"):
        make_trainer(net_with(Break()), steps=20, validate_every=5, callbacks=callbacks).fit()
    assert load(tmp_path / "last.pt")["step"] <= 7


def test_late_look_comes_before_the_checkpoint_of_a_crash(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Crash(Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            if self.trainer.step == 9:
                raise OSError("no room")

    callbacks = [TerminateOnNaN(every=100), Crash(), ModelCheckpoint(tmp_path)]
    with pytest.raises(CallbackError, match=r"no room\. That step was not saved"):
        make_trainer(net_with(Break()), steps=20, callbacks=callbacks).fit()
    assert load(tmp_path / "last.pt")["step"] == 5


def test_skipped_update_hides_no_bad_loss(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(net_with(Break()), callbacks=[TerminateOnNaN()])
    trainer.lr_schedule = None
    trainer.update.apply = lambda: None  # type: ignore[method-assign]  # as scaled losses do when gradients overflow
    with pytest.raises(TrainingError, match="not finite at step 7"):
        trainer.fit()


def test_interval_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="every must be at least 1; received 0"):
        TerminateOnNaN(every=0)
