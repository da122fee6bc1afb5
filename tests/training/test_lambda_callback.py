from collections.abc import Callable

import pytest

from qprune.training import Trainer
from qprune.training.lambda_callback import LambdaCallback

MakeTrainer = Callable[..., Trainer]


def test_functions_are_hooks(make_trainer: MakeTrainer) -> None:
    told: list[object] = []
    callback = LambdaCallback(
        on_epoch_end=lambda epoch, logs: told.append((epoch, logs["step"])),
        on_train_end=lambda logs: told.append("end"),
    )
    make_trainer(steps=7, callbacks=[callback]).fit()
    assert told == [(0, 5), (1, 7), "end"]


def test_name_that_is_no_hook_is_refused() -> None:
    with pytest.raises(ValueError, match=r"on_epoch_ends is no hook\. Nearest: on_epoch_end\."):
        LambdaCallback(on_epoch_ends=print)
    with pytest.raises(ValueError, match=r"xyz is no hook\. Hooks are on_train_begin, on_train_end, "):
        LambdaCallback(xyz=print)
