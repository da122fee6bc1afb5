"""Optimizers and learning-rate schedules from their tables of a spec."""

import math
from typing import Any

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from qprune.errors import PlanError, as_lines
from qprune.layers import learned_parameters
from qprune.schedules.durations import in_epochs, is_zero, to_steps
from qprune.spec import LrSpec, OptimizerSpec

FIRST = 1 / 25  # of the rate, where one cycle begins; as in torch


def make_optimizer(spec: OptimizerSpec, net: nn.Module) -> optim.Optimizer:
    """Make a torch optimizer over the trainable parameters of ``net``: all in one group, without learned steps.

    The steps and offsets that quantizers learn form a second group, without weight decay, if there are any.

    Args:
        spec: which one, and its options.
        net: the network, with its compressors in place (masks and measured ranges are buffers, and not trained); where
            fused steps are asked for, on the device on which it is trained.

    Raises:
        PlanError: for fused steps of parameters that torch has none for.

    Example:
        >>> type(make_optimizer(OptimizerSpec("adam", lr=0.001), nn.Linear(2, 3))).__name__
        'Adam'
    """
    learned = dict.fromkeys(learned_parameters(net))
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    parameters: list[dict[str, Any]] = [{"params": [each for each in trainable if each not in learned]}]
    if learned:
        parameters.append({"params": [each for each in trainable if each in learned], "weight_decay": 0.0})
    options: dict[str, Any] = {"lr": spec.lr, "weight_decay": spec.weight_decay}
    if spec.fused:  # else torch chooses, and need not be told of it
        _check_fused(trainable)
        options["fused"] = True
    if spec.name == "sgd":
        return optim.SGD(parameters, momentum=spec.momentum, nesterov=spec.nesterov, **options)
    kind = {"adam": optim.Adam, "adamw": optim.AdamW}[spec.name]
    return kind(parameters, betas=spec.betas, **options)


def _check_fused(parameters: list[nn.Parameter]) -> None:
    """Refuse fused steps where torch has none, which torch itself says in the first step only."""
    for dtype, device in dict.fromkeys((parameter.dtype, parameter.device) for parameter in parameters):
        tried = nn.Parameter(torch.zeros(1, dtype=dtype, device=device))
        tried.grad = torch.zeros_like(tried)
        try:
            optim.SGD([tried], fused=True).step()
        except RuntimeError:
            raise PlanError(
                "train.optimizer.fused changes parameters of floating point on devices that torch has fused steps for, "
                f"and this network has {str(dtype).removeprefix('torch.')} on {device}. Leave fused out."
            ) from None


def make_lr_schedule(spec: LrSpec, optimizer: optim.Optimizer, steps: int, steps_per_epoch: int) -> LambdaLR:
    """Make a torch schedule that is stepped once after each optimizer step; see `lr_factor` for its values.

    Args:
        spec: which one, and its options.
        optimizer: whose learning rates it sets.
        steps: length of training.
        steps_per_epoch: what an epoch is, for durations in epochs.

    Raises:
        PlanError: as `check_lr_schedule`; one line per mistake.

    Example:
        >>> sgd = make_optimizer(OptimizerSpec("sgd", lr=0.5), nn.Linear(2, 3))
        >>> make_lr_schedule(LrSpec(warmup="5it"), sgd, steps=20, steps_per_epoch=4).get_last_lr()
        [0.1]
    """
    check_lr_schedule(spec, steps, steps_per_epoch)
    # a lambda, because LambdaLR would write the attributes of any other callable into checkpoints
    return LambdaLR(optimizer, lambda step: lr_factor(spec, step, steps, steps_per_epoch))


def lr_factor(spec: LrSpec, step: int, steps: int, steps_per_epoch: int) -> float:
    """The learning rate in step ``step`` (counted from 0) as a multiple of the optimizer's ``lr``.

    With w steps of warm-up, step s < w has (s + 1) / w, times the milestones passed by then; the cosine and the line
    start after it and reach ``final`` at ``steps``, so that the last step is just above it. One cycle is that of
    torch's ``OneCycleLR`` without its cycle of the momentum: a rate of ``lr`` at the end of the rise, and of ``final``
    in the last step.

    Source: Loshchilov and Hutter, 2017, arXiv:1608.03983 (cosine); Goyal et al., 2017, arXiv:1706.02677 (warm-up);
    Smith and Topin, 2018, arXiv:1708.07120 (one cycle).
    """
    warmup = _steps(spec.warmup, steps_per_epoch)
    if spec.name == "onecycle":
        return _one_cycle(step, (warmup or 0.3 * steps) - 1, steps - 1, spec.final)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if spec.name == "multistep":
        return rise * spec.gamma ** sum(to_steps(mark, steps_per_epoch) <= step for mark in spec.milestones)
    start = max(warmup, _steps(spec.decay_from, steps_per_epoch))
    share = max(0, step - start) / max(1, steps - start)
    if spec.name == "cosine":
        return rise * (spec.final + (1 - spec.final) * (1 + math.cos(math.pi * share)) / 2)
    if spec.name == "linear":
        return rise * (1 - (1 - spec.final) * share)
    return rise


def _one_cycle(step: int, top: float, last: int, final: float) -> float:
    if step <= top:
        return FIRST + (1 - FIRST) * (1 - math.cos(math.pi * step / max(1.0, top))) / 2
    share = min(1.0, (step - top) / max(1.0, last - top))
    return final + (1 - final) * (1 + math.cos(math.pi * share)) / 2


def check_lr_schedule(spec: LrSpec, steps: int, steps_per_epoch: int) -> None:
    """Refuse a learning-rate schedule of which a part lies past the end of training."""
    moments = {f"milestones[{index}]": mark for index, mark in enumerate(spec.milestones)}
    moments |= {"decay_from": spec.decay_from}
    late = {name: mark for name, mark in moments.items() if _steps(mark, steps_per_epoch) >= steps}
    if _steps(spec.warmup, steps_per_epoch) > steps:
        late["warmup"] = spec.warmup
    if late:
        end = f"must be over before training ends at step {in_epochs(steps, steps_per_epoch)}"
        lines = [f"train.lr_schedule.{name} {end}; received {mark!r}" for name, mark in late.items()]
        raise PlanError(as_lines(f"{line}. Train longer, or leave it out." for line in lines))


def _steps(duration: int | str, steps_per_epoch: int) -> int:
    return 0 if is_zero(duration) else to_steps(duration, steps_per_epoch)  # which makes a step of "0ep"
