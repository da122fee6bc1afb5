"""What a network has and never runs in eval mode: heads that only teach. `shrink` leaves it out."""

from collections.abc import Iterable
from typing import Any, NoReturn

from torch import nn

from qprune.errors import ShrinkError


class LeftOut(nn.Module):
    """Takes the place of what was left out, and says so if it is called after all.

    Example:
        >>> LeftOut("aux1")(torch.zeros(1))
        Traceback (most recent call last):
        ...
        qprune.errors.ShrinkError: aux1 was left out when the network was shrunk, since it did not run ...
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse."""
        raise ShrinkError(
            f"{self.path} was left out when the network was shrunk, since it did not run on the example in eval mode. "
            "Train without it (of most networks: set it to None), or shrink with an example on which it runs."
        )

    def extra_repr(self) -> str:
        """Where it is."""
        return self.path


def leave_out(net: nn.Module, paths: Iterable[str]) -> None:
    """Put a `LeftOut` in the place of modules that never run, in place."""
    for path in paths:
        net.set_submodule(path, LeftOut(path))
