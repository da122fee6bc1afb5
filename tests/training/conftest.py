from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qprune.data import eval_loader, load_data, train_loader
from qprune.layers import PrunedConv2d, PrunedQuantConv2d
from qprune.schedules import Layerwise, QuantizeFrom
from qprune.spec import DataSpec, LrSpec, OptimizerSpec
from qprune.tasks import Classification
from qprune.training import ScheduleDriver, Trainer, make_lr_schedule, make_optimizer

MakeTrainer = Callable[..., Trainer]
CROP = {"name": "RandomCrop", "size": 8, "padding": 1}


def joint_net() -> nn.Module:
    """Two masks in one layerwise sequence, 4-bit quantizers afterwards, and dropout; done at step 17."""
    layerwise = Layerwise(sparsity=0.5, start=2, interval=5, refresh=2, order="registration")
    bits = {"weight_bits": 4, "act_bits": 4, "quant_schedule": QuantizeFrom(17)}
    return nn.Sequential(
        PrunedConv2d(1, 6, 3, padding=1, schedule=layerwise, at="output"),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        PrunedQuantConv2d(6, 8, 3, stride=2, padding=1, prune_schedule=layerwise, at="output", **bits),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),
    )


def dense_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))


@pytest.fixture
def make_trainer() -> MakeTrainer:
    """Trainers on 150 digits: 5 steps an epoch, the last one of 22 images."""

    def make(
        net: nn.Module | None = None,
        *,
        steps: int = 10,
        val: bool = True,
        lr: float = 0.05,
        schedule: LrSpec | None = None,
        fused: bool = False,
        **options: Any,
    ) -> Trainer:
        torch.manual_seed(3)
        net, compile = net or dense_net(), options.get("compile") is not None
        data = load_data(DataSpec("digits", augment=[CROP], train_images=150), seed=1)
        train = train_loader(data.train, batch=32, seed=1)
        optimizer = make_optimizer(OptimizerSpec("sgd", lr=lr, momentum=0.9, weight_decay=5e-4, fused=fused), net)
        return Trainer(
            net,
            Classification(classes=10, label_smoothing=0.1),
            train=train,
            val=eval_loader(data.val, batch=64) if val else None,
            optimizer=optimizer,
            lr_schedule=make_lr_schedule(schedule or LrSpec("cosine", warmup="2it"), optimizer, steps, 5),
            driver=ScheduleDriver(net, steps_per_epoch=5, optimizer=optimizer, steps=steps, measure_all=compile),
            steps=steps,
            **options,
        )

    return make


@pytest.fixture
def make_joint_trainer(make_trainer: MakeTrainer) -> MakeTrainer:
    def make(**options: Any) -> Trainer:
        torch.manual_seed(7)
        return make_trainer(joint_net(), **({"steps": 25} | options))

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    return made
