import math

import pytest

from qprune.errors import TrainingError
from qprune.tasks import Classification
from qprune.training.monitor import Monitor

TASK = Classification(classes=3)


@pytest.mark.parametrize(
    ("name", "mode", "value", "best", "expected"),
    [
        (None, None, 0.7, 0.5, True),
        (None, None, 0.5, 0.5, False),
        (None, None, 0.1, None, True),
        (None, None, math.nan, None, False),
        ("val_loss", None, 0.4, 0.5, True),
        ("loss", None, 0.6, 0.5, False),
        ("val_loss", "max", 0.6, 0.5, True),
        ("val_top5", None, 0.6, 0.5, True),
        ("val_share_without_loss", None, 0.6, 0.5, True),  # the end of a name means nothing
        (None, "min", 0.4, 0.5, True),
    ],
)
def test_losses_shall_fall_and_metrics_rise(
    name: str | None, mode: str | None, value: float, best: float | None, expected: bool
) -> None:
    assert Monitor(name, mode).better(TASK, value, best) == expected


def test_better_by_no_more_than_min_delta_is_not_better() -> None:
    assert not Monitor().better(TASK, 0.75, 0.5, min_delta=0.25)
    assert Monitor().better(TASK, 0.875, 0.5, min_delta=0.25)


def test_name_that_the_history_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(TrainingError) as error:
        Monitor("val_acc").value(TASK, {"loss": 0.5, "val_loss": 0.5}, "EarlyStopping")
    assert str(error.value) == (
        'EarlyStopping monitors "val_acc", which the history does not have; it has loss, val_loss. '
        "Give one of them as monitor."
    )


def test_missing_validation_split_is_said() -> None:
    with pytest.raises(TrainingError, match=r'monitors "val_accuracy", .* Names with val_ need a validation split\.$'):
        Monitor().value(TASK, {"loss": 0.5}, "EarlyStopping")


def test_other_modes_are_refused() -> None:
    with pytest.raises(ValueError, match='mode must be "max" or "min"; received \'auto\''):
        Monitor(mode="auto")
