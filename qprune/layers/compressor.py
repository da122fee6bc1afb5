"""What masks and quantizers share: state that is visible at birth and starts fresh from a dense checkpoint."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

log = logging.getLogger(__name__)


class Compressor(nn.Module, ABC):
    """A mask or a quantizer: measures in training forwards, and changes only when the driver commits between steps.

    Attributes:
        measuring: whether training forwards add to the accumulators; set by the driver.
    """

    def __init__(self) -> None:
        super().__init__()
        self.measuring = False

    @abstractmethod
    def fresh(self) -> dict[str, Tensor]:
        """The saved state of a compressor that has done nothing yet: each of its buffers with its harmless value."""

    @abstractmethod
    def forget(self) -> None:
        """Drop what the forwards of this step measured."""

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
        if len(missing) == len(fresh):
            log.info("%s: the checkpoint has no state for it, it starts fresh", prefix.rstrip("."))
            state_dict.update({prefix + name: value for name, value in fresh.items()})
        elif missing:
            lists[2].append(
                f'"{prefix.rstrip(".")}" is incomplete: {", ".join(missing)} missing. '
                "Load all of its entries, or none of them to start fresh."
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)
