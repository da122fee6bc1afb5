import math

import pytest
import torch
from torch import nn

from qprune.errors import PlanError
from qprune.spec import LrSpec, OptimizerSpec
from qprune.training import make_lr_schedule, make_optimizer
from qprune.training.optimizers import lr_factor


def factors(spec: LrSpec, steps: int, steps_per_epoch: int = 4) -> list[float]:
    return [lr_factor(spec, step, steps, steps_per_epoch) for step in range(steps)]


def test_optimizers_are_torchs_with_the_specs_options() -> None:
    net = nn.Linear(3, 2)
    sgd = make_optimizer(OptimizerSpec("sgd", lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True), net)
    adam = make_optimizer(OptimizerSpec("adam", lr=0.2, betas=(0.5, 0.9)), net)
    adamw = make_optimizer(OptimizerSpec("adamw", lr=0.3, weight_decay=0.05), net)

    assert type(sgd) is torch.optim.SGD
    assert [sgd.defaults[name] for name in ("lr", "momentum", "weight_decay", "nesterov")] == [0.1, 0.9, 0.01, True]
    assert type(adam) is torch.optim.Adam
    assert [adam.defaults[name] for name in ("lr", "betas", "weight_decay")] == [0.2, (0.5, 0.9), 0.0]
    assert type(adamw) is torch.optim.AdamW
    assert [adamw.defaults[name] for name in ("lr", "weight_decay")] == [0.3, 0.05]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_fused_steps_are_torchs_and_differ_by_rounding(name: str) -> None:
    momentum = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    images, nets = torch.randn(7, 5), []
    for fused in (False, True):
        torch.manual_seed(1)
        nets.append(net := nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)))
        optimizer = make_optimizer(OptimizerSpec(name, lr=0.01, weight_decay=0.01, fused=fused, **momentum), net)
        assert bool(optimizer.defaults["fused"]) is fused
        for _ in range(5):
            optimizer.zero_grad()
            net(images).square().sum().backward()
            optimizer.step()
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, other)


def test_fused_steps_of_parameters_that_torch_has_none_for_are_refused() -> None:
    net = nn.Linear(2, 3, dtype=torch.complex64)
    with pytest.raises(PlanError) as error:
        make_optimizer(OptimizerSpec("adam", lr=0.1, fused=True), net)
    assert str(error.value) == (
        "train.optimizer.fused changes parameters of floating point on devices that torch has fused steps for, and "
        "this network has complex64 on cpu. Leave fused out."
    )


def test_parameters_that_are_not_trained_are_left_out() -> None:
    net = nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    optimizer = make_optimizer(OptimizerSpec("sgd", lr=0.1), net)
    assert [group["params"] for group in optimizer.param_groups] == [[net.weight]]


def test_constant_schedule_keeps_the_rate() -> None:
    assert factors(LrSpec(), 3) == [1.0, 1.0, 1.0]


def test_warmup_rises_in_equal_parts_to_the_full_rate() -> None:
    assert factors(LrSpec(warmup="1ep"), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_multistep_falls_at_each_milestone() -> None:
    spec = LrSpec("multistep", milestones=["0.5ep", "5it"], gamma=0.5)
    assert factors(spec, 7) == [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_warmup_multiplies_a_milestone() -> None:
    spec = LrSpec("multistep", milestones=[1], gamma=0.5, warmup=2)
    assert factors(spec, 4) == [0.5, 0.5, 0.5, 0.5]


def test_cosine_is_half_a_wave_from_the_warmup_to_the_end() -> None:
    spec = LrSpec("cosine", warmup=2, final=0.2)
    expected = [0.5, 1.0, 1.0, 0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2, 0.6]
    assert factors(spec, 6)[:5] == pytest.approx(expected)
    assert lr_factor(spec, 6, 6, 4) == pytest.approx(0.2)


def test_cosine_is_torchs_cosine_annealing() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=0.4)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9, eta_min=0.1)
    for factor in factors(LrSpec("cosine", final=0.25), 9):
        assert 0.4 * factor == pytest.approx(oracle.get_last_lr()[0])
        optimizer.step()
        oracle.step()


@pytest.mark.parametrize(("warmup", "share"), [(0, 0.3), (12, 0.12)])
def test_one_cycle_is_torchs_without_momentum(warmup: int, share: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=100, pct_start=share, cycle_momentum=False, final_div_factor=1e4
    )
    spec = LrSpec("onecycle", warmup=warmup, final=1 / 25e4)
    for step in range(100):
        assert 0.5 * lr_factor(spec, step, 100, 10) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step() if step < 99 else None


@pytest.mark.parametrize("decay_from", [0, "0it", "0ep"])
def test_linear_decays_from_the_first_step_by_default(decay_from: int | str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    oracle = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=8)
    for spec in (LrSpec("linear"), LrSpec("linear", decay_from=decay_from)):
        assert lr_factor(spec, 0, 8, 4) == 1.0
        assert [lr_factor(spec, step, 8, 4) for step in range(8)] == pytest.approx([1 - step / 8 for step in range(8)])
    for step in range(8):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * lr_factor(LrSpec("linear"), step, 8, 4))
        optimizer.step()
        oracle.step()


def test_linear_is_constant_and_then_a_line() -> None:
    spec = LrSpec("linear", decay_from="1ep", final=0.5)
    assert factors(spec, 8) == pytest.approx([1, 1, 1, 1, 1, 0.875, 0.75, 0.625])


def test_schedule_sets_the_optimizers_rate_step_by_step() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=0.4)
    schedule = make_lr_schedule(LrSpec("multistep", milestones=[2]), optimizer, steps=4, steps_per_epoch=1)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.4, 0.4, 0.04, 0.04])


def test_schedule_state_is_plain_data() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=0.4)
    state = make_lr_schedule(LrSpec(), optimizer, steps=4, steps_per_epoch=1).state_dict()
    assert state["lr_lambdas"] == [None]


def test_moments_after_the_end_are_refused() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=0.4)
    spec = LrSpec("multistep", milestones=["1ep", "5ep"], warmup=30)
    with pytest.raises(PlanError) as error:
        make_lr_schedule(spec, optimizer, steps=20, steps_per_epoch=4)
    assert str(error.value).split("\n") == [
        "train.lr_schedule.milestones[1] must be over before training ends at step 20 (5.00 ep); received '5ep'. "
        "Train longer, or leave it out.",
        "train.lr_schedule.warmup must be over before training ends at step 20 (5.00 ep); received 30. "
        "Train longer, or leave it out.",
    ]
