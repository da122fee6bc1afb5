"""`plan_spec`: the plan of a spec, of which nothing is trained or read."""

import torch
from attrs import evolve

from qprune.assemble import assemble
from qprune.data import EpochSampler, describe
from qprune.exact import make_exact
from qprune.flow import trace
from qprune.plan import Plan, make_plan
from qprune.report import forecast
from qprune.schedules import to_steps
from qprune.spec import Spec
from qprune.tasks import make_task
from qprune.training.batches import check_output, part_size
from qprune.training.optimizers import check_lr_schedule


def plan_spec(spec: Spec, per_epoch: int | None = None) -> Plan:
    """The plan of a spec, with what its network costs before and after; nothing is trained or read.

    Args:
        spec: what to plan.
        per_epoch: optimizer steps of one epoch; by default from the size of the data set.

    Raises:
        PlanError: for rules or a learning-rate schedule that cannot work.
        SpecError: for a task that the data is not for.
    """
    info = describe(spec.data)
    task = make_task(spec.task, info.classes, info.kind)
    with torch.random.fork_rng(devices=[]):
        net = assemble(spec, len(info.classes), info.shape)
        if spec.numerics == "exact":
            make_exact(net, torch.zeros(2, *info.shape, device="meta"))
    sampler = EpochSampler(info.sizes["train"], spec.train.batch)
    known = per_epoch is None
    per_epoch = per_epoch or steps_per_epoch(info.sizes["train"], spec.train.batch)
    steps = to_steps(spec.train.length, per_epoch)
    check_lr_schedule(spec.train.lr_schedule, steps, per_epoch)
    flow = trace(net, torch.zeros(2, *info.shape, device="meta"))
    check_output(task, flow, info.shape, spec.data.name)
    if known:
        part_size(flow, sampler.fewest, sampler.other_batch(least=2))
    plan = make_plan(net, flow, steps_per_epoch=per_epoch, steps=steps)
    return evolve(plan, cost=forecast(net, plan, info.shape))


def steps_per_epoch(images: int, batch: int) -> int:
    """Optimizer steps of one pass over the data; the short last batch counts.

    Example:
        >>> steps_per_epoch(50_000, 128)
        391
    """
    return -(-images // batch)
