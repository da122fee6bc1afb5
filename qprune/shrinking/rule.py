"""`Rule`: what is known about one call of a network, for following its channels."""

import torch
from torch import Tensor

from qprune.flow import Call
from qprune.shrinking.constants import Mode, unknown


class Rule:
    """Base class of the rules, one per kind of call; this one knows nothing about its call.

    ``reason`` says in a sentence why nothing is known, and the channels around the call must all stay, if they must.
    """

    movable = False  # whether it is a layer that can be cut, and that can gather and scatter

    def __init__(self, call: Call, mode: Mode, reason: str | None = None) -> None:
        self.call, self.mode = call, mode
        unheard_of = f"{call.path or call.name}: what {call.name} does to channels is not known"
        self.reason: str | None = reason or unheard_of

    def values(self, values: list[Tensor]) -> Tensor:
        """The channels of the result, given those of each argument; see `qprune.shrinking.constants`."""
        return unknown(self.call.count)

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """The channels of each argument that are read, given those of the result that are."""
        return [torch.ones(count, dtype=torch.bool) for count in self.call.counts]

    def closed(self, present: Tensor, arguments: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The channels of the result and of the arguments that must exist, given those that must exist at least.

        Of functions alone: a layer that is `movable` adapts to anything.
        """
        return torch.ones_like(present), [torch.ones_like(argument) for argument in arguments]
