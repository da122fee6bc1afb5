"""`TerminateOnNaN`: stops when the loss is no longer a number, and says where that came from."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from qprune.errors import TrainingError
from qprune.host import on_host
from qprune.layers import ChannelMask, FakeQuant
from qprune.training.callbacks import Callback, Logs


class TerminateOnNaN(Callback):
    """Stops training with a `TrainingError` if the loss is NaN or infinite.

    It belongs at the head of the callbacks: then nothing is saved any more, and the last good checkpoint stays.
    With scaled losses (float16) a step whose gradients overflow is no error; a loss that does is one.

    Losses stay on the device, and are read every ``every`` steps and before anything is saved. Where they are read at
    every step, that is before the update: the network also stays as it was, and the layer named is the culprit. Where
    they are read later, the network has gone bad by then, and the layer named is the first in it.

    Args:
        every: steps between two looks; by default 1 on a CPU, and 50 where each look waits for the device.

    Raises:
        ValueError: if ``every`` is less than 1.

    Example:
        >>> TerminateOnNaN()
    """

    def __init__(self, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every must be at least 1; received {every}")
        self.every = every
        self._losses: dict[int, Tensor] = {}

    def on_train_begin(self, logs: Logs) -> None:
        """Begin with no loss."""
        self._losses.clear()

    def on_before_optimizer_step(self) -> None:
        """Keep the loss, and look at those that are kept if it is time."""
        assert self.trainer.loss is not None
        self._losses[self.trainer.step] = self.trainer.loss.detach()
        every = self.every or (1 if self.trainer.device.type == "cpu" else 50)
        if (self.trainer.step + 1) % every == 0:
            self._read()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Look before anything of this epoch is saved."""
        self._read()

    on_train_end = on_epoch_end

    def state_dict(self) -> dict[str, Any]:
        """Look before a checkpoint in the middle of an epoch is written; there is nothing to remember."""
        self._read()
        return {}

    def _read(self) -> None:
        losses = zip(self._losses, on_host(list(self._losses.values())), strict=True)  # waits for the device
        step = next((step for step, loss in losses if not math.isfinite(loss)), None)
        if step is not None:
            raise TrainingError(
                f"The loss is not finite at step {step}: {find_offender(self.trainer)}. Lower the learning rate, "
                "warm it up, or check the data; the last good checkpoint was kept."
            )
        self._losses.clear()


def find_offender(trainer: Any) -> str:
    """Run the trainer's present batch once more, and say where the first value that is not finite appears."""
    if not _finite(trainer.batch):
        return "the batch itself has such values"
    found: list[str] = []
    with torch.no_grad(), _watched(trainer.net, found):
        loss, _ = trainer.task.step(trainer.net, trainer.batch)
    if found:
        return f"the first such values are in {found[0]}"
    end = "the loss has such values" if not _finite(loss) else "they are gone when the batch is run again"
    return f"the output of every layer is finite, {end}"


@contextmanager
def _watched(net: nn.Module, found: list[str]) -> Iterator[None]:
    def note(path: str, module: nn.Module, _: Any, result: Any) -> None:
        if not found and not _finite(result):
            found.append(_place(path, module))

    with ExitStack() as stack:
        for path, module in net.named_modules():
            stack.enter_context(module.register_forward_hook(partial(note, path)))
        yield


def _place(path: str, module: nn.Module) -> str:
    if isinstance(module, ChannelMask | FakeQuant):
        return f'the site "{path.removesuffix("_mask").removesuffix("_quant")}"'
    bad = [name for name, parameter in module.named_parameters(recurse=False) if not _finite(parameter)]
    if bad:
        return f'the {bad[0]} of "{path}" ({type(module).__name__})'
    return f'the output of "{path}" ({type(module).__name__})'


def _finite(values: Any) -> bool:
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
