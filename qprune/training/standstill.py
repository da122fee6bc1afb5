"""`Standstill`: notices that nothing was trained between two steps of a driver, without reading any device."""

import logging
import weakref
from collections.abc import Iterator

from torch import Tensor, nn

from qprune.layers import Compressor

log = logging.getLogger(__name__)


class Standstill:
    """Compares how often each tensor of a network was written, which torch counts on the host; warns of it once.

    An optimizer writes parameters, a training forward statistics and what compressors measure, a backward gradients. So
    whatever a step does, and whichever part of the network it does it to, one of them was written; compiled or not.
    """

    def __init__(self, net: nn.Module, told: bool = False) -> None:
        self.told = told
        # looked up once: to walk through the modules takes twenty times as long as to ask the tensors
        self._parameters = list(net.parameters())
        self._tensors = [*self._parameters, *_written(net)]
        self._versions: list[int] = []
        self._gradient: weakref.ref[Tensor] | None = None
        self._gradient_version = 0

    def note(self) -> None:
        """Remember the present versions of all tensors."""
        # a step whose gradients overflowed writes no parameter, but its gradients are others
        gradient = next((parameter.grad for parameter in self._parameters if parameter.grad is not None), None)
        self._gradient = None if gradient is None else weakref.ref(gradient)
        self._gradient_version = 0 if gradient is None else gradient._version
        self._versions = [tensor._version for tensor in self._tensors]

    def lasts(self) -> bool:
        """Whether nothing was written since `note`; false before the first."""
        if not self._versions:
            return False
        return not self._new_gradient() and all(
            tensor._version == version for tensor, version in zip(self._tensors, self._versions, strict=True)
        )

    def warn(self, step: int) -> None:
        """Warn once that the driver moves its schedules, after step ``step``, though nothing was trained."""
        if not self.told and self.lasts():
            self.told = True
            log.warning(
                "ScheduleDriver.step was called after step %d with nothing trained since: every call moves all "
                "schedules by a step. Call it once after every optimizer.step(), and not where a Trainer does.",
                step,
            )

    def _new_gradient(self) -> bool:
        if self._gradient is None:
            return any(parameter.grad is not None for parameter in self._parameters)
        gradient = self._gradient()
        return gradient is None or gradient._version != self._gradient_version


def _written(net: nn.Module) -> Iterator[Tensor]:
    """One buffer of each module that a training forward writes."""
    for module in net.modules():
        names = module.unsaved() if isinstance(module, Compressor) else module._buffers
        # the last: num_batches_tracked, for torch does not count how its kernels write running statistics
        yield from (buffer for name in list(names)[-1:] if (buffer := module._buffers[name]) is not None)
