"""What masks and quantizers share: state that is visible at birth and starts fresh from a dense checkpoint."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from qprune.masking import in_torch_func

log = logging.getLogger(__name__)


class Compressor(nn.Module, ABC):
    """A mask or a quantizer: measures in training forwards, and changes only when the driver commits between steps.

    Attributes:
        measuring: whether training forwards add to the accumulators; set by the driver.
        driver: the number of the driver that commits, 0 for none; set by the driver.
    """

    def __init__(self) -> None:
        super().__init__()
        self.measuring = False
        self.driver = 0

    @abstractmethod
    def fresh(self) -> dict[str, Tensor]:
        """The saved state of a compressor that has done nothing yet: each of its tensors with its harmless value."""

    @property
    def trained(self) -> tuple[str, ...]:
        """Which of `fresh` are parameters; the others are buffers."""
        return ()

    def unsaved(self) -> dict[str, Tensor]:
        """The accumulators of a step, which no file holds, with the values of a step that measured nothing."""
        return {}

    def register_state(self, device: torch.device | str | None) -> None:
        """Register all tensors, as a compressor that has done nothing has them."""
        for name, value in self.fresh().items():
            if name in self.trained:
                self.register_parameter(name, nn.Parameter(value.to(device)))
            else:
                self.register_buffer(name, value.to(device))
        for name, value in self.unsaved().items():
            self.register_buffer(name, value.to(device), persistent=False)

    def forget(self) -> None:
        """Drop what the forwards of this step measured."""
        for name, nothing in self.unsaved().items():
            self._buffers[name].copy_(nothing)  # type: ignore[union-attr]

    @property
    def hooked(self) -> bool:
        """Whether anybody hooked a function to its calls.

        Example:
            >>> ChannelMask(4).hooked
            False
        """
        return any((self._forward_hooks, self._forward_pre_hooks, self._backward_hooks, self._backward_pre_hooks))

    @abstractmethod
    def select(self, channels: Tensor) -> None:
        """Go on with these channels alone, given by their numbers; what it knows about them stays as it is."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Compressor":
        # .to(dtype) is for the layer's arithmetic, not for scores and scales: as a float16 a small scale is 0.
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(keep_dtype, recurse)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        fresh = self.fresh()
        missing = [name for name in fresh if prefix + name not in state_dict]
        assigned = local_metadata.get("assign_to_params_buffers", False)
        device = home(state_dict, prefix) if assigned else None
        if len(missing) == len(fresh):
            log.info("%s: the checkpoint has no state for it, it starts fresh", prefix.rstrip("."))
            state_dict.update({prefix + name: value.to(device) for name, value in fresh.items()})
        elif missing:
            lists[2].append(
                f'"{prefix.rstrip(".")}" is incomplete: {", ".join(missing)} missing. '
                "Load all of its entries, or none of them to start fresh."
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)
        if not assigned:
            self.forget()
        else:
            for name, value in self.unsaved().items():
                setattr(self, name, value.to(device))


def home(state_dict: dict[str, Any], prefix: str) -> torch.device:
    """The device of the entries of ``state_dict`` that are nearest to a module: its own, its host's, its block's."""
    path = prefix.split(".")
    tensors = {name: value for name, value in state_dict.items() if isinstance(value, Tensor)}

    def shared(name: str) -> int:
        return next((i for i, (a, b) in enumerate(zip(path, name.split("."), strict=False)) if a != b), len(path))

    return tensors[max(tensors, key=shared)].device if tensors else torch.get_default_device()


def measure(observe: Callable[..., None], *values: Tensor) -> None:
    """Call ``observe`` with the tensors, or with the plain ones that torch.func's transforms wrapped.

    Those let nothing be written to a buffer from within, but leave the forward of an autograd function alone.
    """
    # to call the function always would cost every measured layer
    if in_torch_func():
        _Beneath.apply(observe, *values)
    else:
        observe(*values)


class _Beneath(torch.autograd.Function):
    @staticmethod
    def forward(observe: Callable[..., None], *values: Tensor) -> Tensor:
        observe(*values)
        return values[0].new_empty(0)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: Any, output: Tensor) -> None:
        """Nothing to remember: nobody reads the result."""

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> None:
        """Nobody asks for it."""
