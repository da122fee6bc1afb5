"""Switches of torch's that hold for the whole process: set for a training, put back after it."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from qprune.errors import SpecError
from qprune.float32 import float32_math
from qprune.spec import Spec, TrainSpec
from qprune.spec.recipe import REDUCE_OVERHEAD

log = logging.getLogger(__name__)


@contextmanager
def switched(*, tf32: bool = False, cudnn_benchmark: bool = False) -> Iterator[None]:
    """Set what a training asks for meanwhile; then, and after errors, the process has its own settings again.

    Without ``tf32`` products are in float32. ``cudnn_benchmark`` lets cuDNN choose by timing; without it the process's
    own setting stays.

    Example:
        >>> with switched(cudnn_benchmark=True):
        ...     print(torch.backends.cudnn.benchmark)
        True
    """
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = benchmark or cudnn_benchmark
    try:
        with float32_math(tf32=tf32):
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark


def check_switches(specs: Iterable[Spec], deterministic: bool) -> None:
    """Refuse runs that are to be deterministic and let cuDNN choose by timing.

    Args:
        specs: of a run, and of those that are trained before it.
        deterministic: whether they are to give the same bits in every run.

    Raises:
        SpecError: for the first of them.

    Example:
        >>> check_switches([read_spec("digits/baseline")], deterministic=True)
    """
    for spec in specs:
        if deterministic and spec.train.cudnn_benchmark:
            raise SpecError(
                "train.cudnn_benchmark lets cuDNN choose by timing, and deterministic asks for the same bits in every "
                f"run: leave one of them out (train.cudnn_benchmark in {spec.name})."
            )


def tell_switches(train: TrainSpec, device: torch.device) -> None:
    """Log what the switches of a run mean on its device; warn of those that do nothing there."""
    asked = {
        f'compile = "{REDUCE_OVERHEAD}"': train.compile == REDUCE_OVERHEAD,
        "tf32": train.tf32,
        "cudnn_benchmark": train.cudnn_benchmark,
    }
    idle = [name for name, on in asked.items() if on]
    if idle and device.type != "cuda":
        log.warning(
            "%s: for GPUs alone, and without effect on %s%s.",
            ", ".join(f"train.{name}" for name in idle),
            device.type,
            ", where steps are compiled as by true" if train.compile == REDUCE_OVERHEAD else "",
        )
    elif train.tf32:
        log.info("Training steps round factors of products to TF32; validation is in float32.")
