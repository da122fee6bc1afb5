"""Switches that hold for a process: on while it trains, off while it validates, its own again afterwards."""

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from few_streets import draw_few_streets
from torch import Tensor, nn

import qprune
from qprune.errors import CheckpointError, SpecError
from qprune.layers import Compressed
from qprune.spec import OptimizerSpec, TrainSpec, read_spec
from qprune.training import Callback, CallbackError, Trainer, prepare
from qprune.training.checkpoint import load
from qprune.training.switches import switched, tell_switches

MakeTrainer = Callable[..., Trainer]
ON = {"train.tf32": True, "train.cudnn_benchmark": True}
SHORT = {
    "data.train_images": 135,
    "train.length": "2it",
    "train.validate_every": "1it",
    "train.lr_schedule": {"name": "constant"},
}


def now() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark


class Noted(nn.Sequential):
    """Notes torch's settings in each forward."""

    def forward(self, images: Tensor) -> Tensor:
        self.seen: dict[bool, set[tuple[bool, bool]]] = getattr(self, "seen", {})
        self.seen.setdefault(self.training, set()).add(now())
        return super().forward(images)


def noted() -> Noted:
    return Noted(nn.Flatten(), nn.Linear(64, 10))


def test_steps_round_to_tf32_and_validation_does_not(make_trainer: MakeTrainer) -> None:
    net, before = noted(), now()
    make_trainer(net, steps=2, validate_every=1, tf32=True, cudnn_benchmark=True).fit()
    assert net.seen == {True: {(True, True)}, False: {(False, True)}}
    assert now() == before


def test_training_is_in_float32_unless_tf32_is_asked_for(make_trainer: MakeTrainer) -> None:
    assert torch.backends.cudnn.allow_tf32  # as torch has it
    net = noted()
    make_trainer(net, steps=2).fit()
    assert net.seen == {True: {(False, False)}, False: {(False, False)}}


def test_settings_are_put_back_when_a_callback_fails(make_trainer: MakeTrainer) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            assert now() == (True, True)
            raise LookupError

    before = now()
    with pytest.raises(CallbackError):
        make_trainer(steps=2, tf32=True, cudnn_benchmark=True, callbacks=[Fails()]).fit()
    assert now() == before


def test_a_process_that_times_convolutions_goes_on_doing_so() -> None:
    with torch.backends.cudnn.flags(benchmark=True):
        with switched():
            assert torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.benchmark


def test_keys_of_a_spec_reach_the_steps(tmp_path: Path) -> None:
    net = noted()
    seen = net.seen = {}
    qprune.fit("digits/baseline", model=net, runs=tmp_path, device="cpu", overrides=SHORT | ON, verbose=0)
    assert seen == {}  # a copy is trained
    trained = noted()

    class Notes(Callback):
        def on_train_begin(self, logs: dict[str, Any]) -> None:
            trained.seen = self.trainer.net.seen = {}  # type: ignore[assignment]

    options: dict[str, Any] = {"model": noted(), "runs": tmp_path, "device": "cpu", "verbose": 0}
    qprune.fit("digits/baseline", name="told", overrides=SHORT | ON, callbacks=[Notes()], **options)
    assert trained.seen[True] == {(True, True)}
    assert {tf32 for tf32, _ in trained.seen[False]} == {False}


def test_a_run_goes_on_with_the_switches_it_was_begun_with(tmp_path: Path) -> None:
    options: dict[str, Any] = {"runs": tmp_path, "device": "cpu", "verbose": 0}
    qprune.fit("digits/baseline", overrides=SHORT | {"train.tf32": True}, **options)
    with pytest.raises(CheckpointError, match=r"train\.tf32 was true and is not set now"):
        qprune.fit("digits/baseline", overrides=SHORT, resume=True, **options)
    changed = SHORT | {"train.tf32": True, "train.optimizer.fused": True}
    with pytest.raises(CheckpointError, match=r"train\.optimizer\.fused was not set and is true now"):
        qprune.fit("digits/baseline", overrides=changed, resume=True, **options)


def test_timing_is_refused_where_runs_are_to_be_deterministic(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        qprune.fit("digits/baseline", runs=tmp_path, overrides=SHORT | ON, deterministic=True, verbose=0)
    assert str(error.value) == (
        "train.cudnn_benchmark lets cuDNN choose by timing, and deterministic asks for the same bits in every run: "
        "leave one of them out (train.cudnn_benchmark in digits/baseline)."
    )
    assert not list(tmp_path.iterdir())


def told(device: str, caplog: pytest.LogCaptureFixture, **switches: Any) -> list[str]:
    sgd = OptimizerSpec("sgd", lr=0.1)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        tell_switches(TrainSpec(length="2it", batch=4, optimizer=sgd, **switches), torch.device(device))
    return caplog.messages


def test_switches_for_gpus_are_told_where_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    assert told("cpu", caplog) == told("cuda", caplog) == []
    assert told("cpu", caplog, tf32=True, cudnn_benchmark=True) == [
        "train.tf32, train.cudnn_benchmark: for GPUs alone, and without effect on cpu."
    ]
    assert told("cpu", caplog, compile="reduce-overhead") == [
        'train.compile = "reduce-overhead": for GPUs alone, and without effect on cpu, where steps are compiled as by '
        "true."
    ]
    assert told("cuda", caplog, tf32=True) == [
        "Training steps round factors of products to TF32; validation is in float32."
    ]


@pytest.mark.parametrize("value", ["max-autotune", 1])
def test_other_ways_to_compile_are_refused(value: Any) -> None:
    with pytest.raises(SpecError, match='compile must be true, false or "reduce-overhead"; received'):
        TrainSpec(length=1, batch=1, optimizer=OptimizerSpec("sgd", lr=1), compile=value)


def test_replayed_steps_do_not_accumulate() -> None:
    with pytest.raises(SpecError) as error:
        TrainSpec(length=1, batch=4, optimizer=OptimizerSpec("sgd", lr=1), compile="reduce-overhead", accumulate=2)
    assert str(error.value) == (
        'compile = "reduce-overhead" replays a recorded step, which would overwrite the gradients that accumulate adds '
        "up: use compile = true, or accumulate = 1; received accumulate = 2"
    )


# ---- recompute, which changes no bits

JOINT = [
    "data.train_images=135", "train.length=10it", "train.validate_every=5it", "train.ema=0.9", "train.accumulate=2",
    'train.lr_schedule={name="constant"}',
    'prune=[{sites=[{types=["Conv2d"], at="input", skip=[0]}], sparsity=0.5, schedule={kind="one-shot", at=2}}]',
    'quantize=[{sites=[{types=["Conv2d"], at="weight"}, {types=["Conv2d"], at="input"}], bits=4, start=4}]',
]  # fmt: skip
GAN = [
    "model.width=0.07", "model.width_ba=0.1", "model.width_discriminators=0.07", "data.size=32", "data.train_images=6",
    "train.batch=1", "train.length=6it", "train.validate_every=6it", 'train.lr_schedule={name="constant"}',
    'prune=[{sites=[{types=["Conv2d"], paths=["generator_*.blocks.1.*"], at="input"}], sparsity=0.5, '
    'schedule={kind="one-shot", at=2}}]',
    'quantize=[{sites=[{types=["Conv2d"], paths=["generator_*"], at="weight"}, {types=["Conv2d"], '
    'paths=["generator_*"], at="input"}], bits=4, start=3}]',
]  # fmt: skip


def hosts(net: nn.Module) -> list[Compressed]:
    return [module for module in net.modules() if isinstance(module, Compressed)]


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("digits/baseline", JOINT),
        ("digits/baseline", [*JOINT, "train.shrink=as-frozen", "train.precision=bfloat16"]),
        ("streets/cyclegan/baseline", GAN),
    ],
)
def test_a_run_that_recomputes_ends_with_the_same_bits(
    name: str, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_few_streets(monkeypatch)
    plain, other = (
        prepare(read_spec(name, [*overrides, f"train.recompute={value}"]), device="cpu").trainer
        for value in ("false", "true")
    )
    assert hosts(plain.net)
    assert not any(host.recompute for host in hosts(plain.net))
    assert all(host.recompute for host in hosts(other.net))
    plain.fit()
    other.fit()
    assert same(plain.net.state_dict(), other.net.state_dict())
    assert all(host.recompute for host in hosts(other.net))
    if plain.average is not None and other.average is not None:
        assert same(plain.average.state_dict(), other.average.state_dict())


def test_a_run_may_recompute_from_where_it_goes_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"runs": tmp_path, "device": "cpu", "verbose": 0}
    qprune.fit("digits/baseline", name="whole", overrides=JOINT, **options)

    class CtrlC(Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            if self.trainer.step == 5:
                os.kill(os.getpid(), signal.SIGINT)

    history = qprune.fit("digits/baseline", name="cut", overrides=JOINT, callbacks=[CtrlC()], **options)
    assert history.interrupted
    qprune.fit("digits/baseline", name="cut", overrides=[*JOINT, "train.recompute=true"], resume=True, **options)
    one, other = (load(tmp_path / name / "model.pt")["state"] for name in ("whole", "cut"))
    assert same(one, other)


def test_a_trainer_leaves_a_network_that_recomputes_as_it_is(make_joint_trainer: MakeTrainer) -> None:
    net = make_joint_trainer().net
    assert not any(host.recompute for host in hosts(net))
    assert all(host.recompute for host in hosts(make_joint_trainer(recompute=True).net))


def test_compiled_steps_do_not_recompute() -> None:
    with pytest.raises(SpecError) as error:
        TrainSpec(length=1, batch=4, optimizer=OptimizerSpec("sgd", lr=1), compile=True, recompute=True)
    assert str(error.value) == (
        "recompute = true is for steps that are not compiled, because torch.compile decides itself what it keeps: "
        "leave one of them out; received compile = true"
    )
