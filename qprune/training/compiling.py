"""Compiled views of a network for training; the network itself is not changed."""

import copy
from typing import Any

import torch
from torch import nn

from qprune.errors import PlanError

GRAPHS = 64  # of all networks of one class in a process


def compiled(net: nn.Module, backend: str, mode: str | None = None) -> Any:
    """A compiled view of ``net`` on the same parameters, for training; evaluation runs ``net`` itself.

    Of a network that is trained as several, such as a GAN, each is compiled. With a `ScheduleDriver` that lets sites
    ``measure_all`` there is one graph for steps that measure and one for those that do not, for each batch size;
    twice as many for a generator that sees images of its own kind and generated ones.

    With the ``mode`` ``"reduce-overhead"`` each graph is recorded on a GPU once and replayed. Call `begin_step` before
    each step: what the one before computed is overwritten. A network that is trained as several cannot have that mode.
    """
    from torch._dynamo import config  # imports the compiler, which takes seconds

    # torch counts those of all networks of one class together, and runs the rest uncompiled: 8 would not do for a chain
    config.recompile_limit = max(config.recompile_limit, GRAPHS)
    if not hasattr(net, "deployed"):
        return torch.compile(net, backend=backend, mode=mode, dynamic=False)
    if mode is not None:
        raise PlanError(
            f'train.compile = "{mode}" replays recorded steps, which would overwrite gradients that several runs of a '
            "generator or discriminator add up in one step: use train.compile = true."
        )
    view = copy.copy(net)
    parts = {name: torch.compile(part, backend=backend, dynamic=False) for name, part in net.named_children()}
    object.__setattr__(view, "_modules", parts)
    return view


def begin_step() -> None:
    """Let a recorded graph overwrite what the step before computed."""
    torch.compiler.cudagraph_mark_step_begin()


def graphs_compiled() -> int:
    """Number of graphs that this process has compiled so far."""
    from torch._dynamo.utils import counters  # imports the compiler, which takes seconds

    return int(counters["stats"]["unique_graphs"])
