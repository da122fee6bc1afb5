"""`find_groups`: the channels of a network that can be pruned together, and the layers whose weights make them."""

from collections.abc import Iterator, Sequence
from math import floor
from typing import Any

import torch
from attrs import field, frozen
from torch import nn

from qprune.coupling import Streams, streams
from qprune.flow import Call, Flow, trace
from qprune.grouping import stream_groups
from qprune.selection import host_of, not_a_host

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU)
NORMS = (nn.BatchNorm2d, nn.InstanceNorm2d)
WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@frozen
class Group:
    """Channels that are kept or dropped together.

    Attributes:
        name: its first site, ``"stem.act.output"``, or ``"classifier.weight"`` where nothing can be pruned.
        members: the layers at whose output these channels are masked and quantized; empty where they must all stay,
            as those of the network's own output.
        weights: the layers that make the channels. Each layer with weights is in one group of its network.
        channels: how many there are.
        coupled: whether it takes one mask for all of the places where they are, see `qprune.coupling`.
        step: they are dropped so many at once: one of each group of the convolutions of groups that read or make them.

    Example:
        >>> Group("act.output", members=("act",), weights=("conv",), channels=16).coupled
        False
    """

    name: str
    members: tuple[str, ...]
    weights: tuple[str, ...]
    channels: int
    coupled: bool = False
    step: int = 1

    def whole_steps(self, count: float) -> int:
        """The largest number of channels, at most ``count``, that can be dropped."""
        return floor(count / self.step + 1e-9) * self.step

    @property
    def title(self) -> str:
        """The name, and how many more sites there are: ``a.output +2``."""
        more = len(self.members or self.weights) - 1
        return f"{self.name} +{more}" if more > 0 else self.name


@torch.no_grad()
def find_groups(net: nn.Module, example: Any) -> tuple[Group, ...]:
    """The groups of a network, in the order in which data reaches them.

    The channels of a group correspond one to one, through activations, normalizations, sums and depthwise convolutions
    (they are a stream, see `qprune.coupling.streams`). It is masked as the specs of the house do it: at the outputs of
    rectifiers; where none is behind what makes the channels, at the outputs of normalizations; else at that of the
    layer itself. A concatenation has a group of its own where it is normalized or rectified, since its parts can then
    not be dropped before it; where it is not, its parts are the groups.

    Args:
        net: a network without masks.
        example: an input of it, a tensor or a tuple of arguments; only its shape matters.

    Raises:
        PlanError: if the calls of the network cannot be followed.

    Example:
        >>> net = qprune.zoo.create("resnet20", width=0.25, shortcut="B")
        >>> groups = find_groups(net, torch.zeros(1, 3, 32, 32))
        >>> groups[0].members
        ('act', 'stage1.0.act2', 'stage1.1.act2', 'stage1.2.act2')
    """
    flow = trace(net, example)
    found = streams(net, flow)
    return tuple(_Network(flow, found, stream_groups(net, flow, found)).groups())


@frozen(eq=False)
class _Network:
    flow: Flow
    streams: Streams
    steps: dict[int, int]  # of the streams that convolutions of groups read or make
    calls: dict[int, list[Call]] = field(init=False)  # of each stream
    readers: dict[int, list[Call]] = field(init=False)  # of each call
    unmasked: set[int] = field(init=False)  # streams of the network's own outputs

    @calls.default
    def _calls(self) -> dict[int, list[Call]]:
        calls: dict[int, list[Call]] = {}
        for call in self.flow.calls:
            calls.setdefault(self._of(call), []).append(call)
        return calls

    @readers.default
    def _readers(self) -> dict[int, list[Call]]:
        readers: dict[int, list[Call]] = {call.index: [] for call in self.flow.calls}
        for call in self.flow.calls:
            for maker in set(call.inputs) & set(readers):
                readers[maker].append(call)
        return readers

    @unmasked.default
    def _unmasked(self) -> set[int]:
        named = {call.index for path in self.flow.output_paths() for call in self.flow.of(path)}
        return {self.streams.of_call[index] for index in {*self.flow.outputs, *named}}

    def _of(self, call: Call) -> int:
        return self.streams.of_call[call.index]

    def groups(self) -> Iterator[Group]:
        for stream, calls in self.calls.items():
            weights = _paths(call for call in calls if isinstance(call.layer, WEIGHTED) and not not_a_host(call.layer))
            places = self._places(stream)
            members = _paths(places)
            if members:
                coupled = len(members) > 1 or stream in self.streams.meeting
                shape = (places[0].shape[1], coupled, self.steps.get(stream, 1))
                yield Group(f"{members[0]}.output".lstrip("."), members, weights, *shape)
            elif weights:
                made = next(call for call in calls if call.path == weights[0])
                yield Group(f"{weights[0]}.weight".lstrip("."), (), weights, made.shape[1])

    def _places(self, stream: int) -> list[Call]:
        """The calls at whose results a stream is masked."""
        if stream in self.unmasked:
            return []
        sources = [call for call in self.calls[stream] if not any(self._is_in(stream, i) for i in call.inputs)]
        found = {call.index: call for source in sources for call in self._behind(source)}
        if not found:  # else the mask of these follows: what makes channels says less of them than what reads them
            found = {call.index: call for call in sources if self._is_prunable(call)}
        return [found[index] for index in sorted(found)]

    def _is_in(self, stream: int, index: int) -> bool:
        return index >= 0 and self.streams.of_call[index] == stream

    def _behind(self, source: Call) -> Sequence[Call]:
        """The rectifiers that hand on what a call makes; else the normalizations."""
        reached = [call for call in self._reached(source) if self._takes_a_mask(call)]
        for kinds in (RECTIFIERS, NORMS):
            if able := [call for call in reached if isinstance(call.layer, kinds)]:
                return able
        return []

    def _is_prunable(self, source: Call) -> bool:
        return source.mixes() and self._takes_a_mask(source) and not self._is_normalized_later(source)

    def _reached(self, source: Call) -> list[Call]:
        """What hands on the channels that a call makes, itself the first."""
        reached, new = {source.index: source}, [source]
        while new:
            behind = [
                reader for call in new for reader in self.readers[call.index] if self._of(reader) == self._of(source)
            ]
            new = [call for call in behind if call.index not in reached]
            reached |= {call.index: call for call in new}
        return list(reached.values())

    def _is_normalized_later(self, source: Call) -> bool:
        """Whether a concatenation reads it that is masked as a whole."""
        behind = [reader for call in self._reached(source) for reader in self.readers[call.index]]
        return any(reader.concatenates() and self._places(self._of(reader)) for reader in behind)

    def _takes_a_mask(self, call: Call) -> bool:
        layer = call.layer
        if layer is None or not_a_host(layer) or "output" not in host_of(layer).sides:
            return False
        # in other shapes dimension 1 is none of channels
        return len(call.shape) in (2, 4) and call.shape[1] > 1 and len(self.flow.of(str(call.path))) == 1


def _paths(calls: Iterator[Call] | Sequence[Call]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(call.path) for call in calls))
