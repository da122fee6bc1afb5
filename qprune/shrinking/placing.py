"""Decides where channels are moved if neighbouring layers kept different ones: which layer gathers, which scatters.

The measure is the count of numbers that are read and written: channels times positions. A gather or scatter to k
channels reads and writes all k of them; a channel that a layer carries along is read and written once in passing.
"""

from collections.abc import Iterator, Mapping
from math import prod

import torch
from attrs import frozen
from torch import Tensor, nn

from qprune.flow import NORMS, Shape
from qprune.layers import Compressed
from qprune.shrinking.layer_rules import Concatenated, Layer
from qprune.shrinking.rule import Rule


def placed(
    rules: list[Rule], values: list[Tensor], needed: list[Tensor], present: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Choose the channels that every layer makes and that every tensor has, so that few numbers are moved.

    Each layer that reads other channels than there are gathers or scatters its input. Two things may spare that, and
    are done where fewer numbers move: layers without parameters carry along what comes in and nobody behind them reads
    (a concatenation copies its input anyway), or constants that somebody behind them wants (a sum of many channels and
    few, which were made larger on the way); and a tensor is scattered once where it is made, not by each reader.

    Of each call's result ``values`` are the constants, ``needed`` are the channels that are read, and ``present`` those
    that must exist at least. Rules of layers that carry constants forget that these are constants.
    """
    places = _Places(rules, values, needed, present)
    for rule in filter(_carries, places.free):
        for slot, maker in places.joints(rule):
            places.weigh(rule, places.left_over(rule, slot, maker), carried=True)
    for rule in reversed(places.free):
        wanted = places.wanted(rule)
        places.weigh(rule, wanted, carried=False)
        if _carries(rule):
            places.weigh(rule, wanted, carried=True)
    return places.needed, places.present


def constants_of(rule: Layer, targets: Tensor, values: Tensor) -> Tensor:
    """The constants of a result, NaN where its layer makes the channel (``targets`` tells which) as any other."""
    own = (targets >= 0) & rule.made[targets.clamp(min=0)].isnan()
    return torch.where(own, torch.nan, values)


@frozen(eq=False)
class _Kept:
    """What a layer makes and takes, as channels of its result and of its arguments."""

    makes: Tensor  # the channels of the result that the layer computes
    takes: Mapping[int, Tensor] = {}  # what it takes from each argument if it exists
    whole: bool = True  # whether it makes nothing else, such as the rest of a group


class _Places:
    """The choice while it is being made; ``free`` are the layers whose results are read by layers alone."""

    def __init__(self, rules: list[Rule], values: list[Tensor], needed: list[Tensor], present: list[Tensor]) -> None:
        self.values, self.needed, self.present = values, list(needed), list(present)
        self.readers: list[list[tuple[Rule, int]]] = [[] for _ in rules]
        for rule in rules:
            for slot, maker in enumerate(rule.call.inputs):
                if maker >= 0:
                    self.readers[maker].append((rule, slot))
        self.kept = [self._kept(rule) if isinstance(rule, Layer) else _Kept(torch.empty(0)) for rule in rules]
        self.free = [rule for rule in rules if isinstance(rule, Layer) and self._is_free(rule)]

    def _is_free(self, rule: Layer) -> bool:
        index = rule.call.index
        adapt = [slot in self.kept[reader.call.index].takes for reader, slot in self.readers[index]]
        return bool(adapt) and all(adapt) and not rule.idle(self.needed[index])

    def joints(self, rule: Rule) -> Iterator[tuple[int, int]]:
        """The arguments that are read with the channels they were made with: each one's place, and the call."""
        for slot, (maker, matched) in enumerate(zip(rule.call.inputs, rule.call.matched, strict=True)):
            if matched:
                yield slot, maker

    def _kept(self, rule: Layer) -> "_Kept":
        needed = self.needed[rule.call.index]
        outputs, inputs = rule.kept(needed)
        if rule.idle(needed):
            outputs, inputs = torch.zeros_like(outputs), [torch.zeros_like(each) for each in inputs]
        takes = {slot: _taken(rule, slot, inputs[slot], self.values[maker]) for slot, maker in self.joints(rule)}
        makes = _behind(rule, outputs & rule.made.isnan())
        return _Kept(makes, takes, whole=bool(outputs.sum() == makes.sum()))

    def left_over(self, rule: Layer, slot: int, maker: int) -> Tensor:
        """The channels of the result that would hold what an argument has and the layer does not take."""
        own = [torch.zeros(len(entered), dtype=torch.bool) for entered in rule.entered]
        extra, sources = self.present[maker] & ~self.kept[rule.call.index].takes[slot], rule.sources(slot)
        own[slot] = (sources >= 0) & extra[sources.clamp(min=0)]
        return _behind(rule, torch.cat(own) if isinstance(rule, Concatenated) else own[slot])

    def wanted(self, rule: Layer) -> Tensor:
        """The channels that the readers of the result take from it if it exists."""
        takes = [self.kept[reader.call.index].takes[slot] for reader, slot in self.readers[rule.call.index]]
        return torch.stack(takes).any(0)

    def weigh(self, rule: Layer, more: Tensor, *, carried: bool) -> None:
        """Let more channels exist if that moves fewer numbers: carried through the layer, or put back behind it."""
        index = rule.call.index
        before = self.needed[index], self.present[index], self.kept[index], rule.made
        moved = self._moved(rule)
        self.present[index] = self.present[index] | more
        if carried:
            self.needed[index] = self.needed[index] | more
            targets = rule.targets()[more]
            rule.made = rule.made.clone()
            rule.made[targets[targets >= 0]] = torch.nan
            self.kept[index] = self._kept(rule)
        if self._moved(rule) >= moved:
            self.needed[index], self.present[index], self.kept[index], rule.made = before

    def _moved(self, rule: Layer) -> int:
        """Numbers read and written to move channels around a layer; by the layer, too, if it carries some."""
        call, kept = rule.call, self.kept[rule.call.index]
        moved = _aligned(self.present[call.index], kept.makes, call.shape, kept.whole)
        for slot, maker in self.joints(rule):
            moved += _aligned(kept.takes[slot], self.present[maker], call.shapes[slot])
            moved += _carries(rule) * _size(kept.takes[slot], call.shapes[slot])
        moved += _carries(rule) * _size(kept.makes, call.shape)
        return moved + sum(self._moved_by(reader, slot, call.index) for reader, slot in self.readers[call.index])

    def _moved_by(self, reader: Rule, slot: int, maker: int) -> int:
        take, exists, call = self.kept[reader.call.index].takes[slot], self.present[maker], reader.call
        aligned = _aligned(take, exists, call.shapes[slot])
        if not _carries(reader) or (take & ~exists).any():
            return aligned
        rest = exists & ~take
        return min(aligned, _size(rest, call.shapes[slot]) + _size(rest, call.shape))


def _carries(rule: Rule) -> bool:
    """Whether a layer has nothing of its own for a channel: one more costs but its copy."""
    if not isinstance(rule, Layer) or isinstance(rule.layer, (Compressed, *NORMS, nn.GroupNorm)):
        return False
    return not list(rule.layer.parameters())


def _taken(rule: Layer, slot: int, stay: Tensor, values: Tensor) -> Tensor:
    sources, entered = rule.sources(slot)[stay], rule.entered[slot][stay]
    there = (sources >= 0) & (entered.isnan() | (values[sources.clamp(min=0)] == entered))
    taken = torch.zeros(len(values), dtype=torch.bool)
    taken[sources[there]] = True
    return taken


def _behind(rule: Layer, outputs: Tensor) -> Tensor:
    """The channels of the result that are these output channels of the layer itself."""
    targets = rule.targets()
    return (targets >= 0) & outputs[targets.clamp(min=0)]


def _aligned(wanted: Tensor, given: Tensor, shape: Shape, whole: bool = True) -> int:
    return 0 if whole and torch.equal(wanted, given) else 2 * _size(wanted, shape)


def _size(chosen: Tensor, shape: Shape) -> int:
    return int(chosen.sum()) * prod(shape[1:]) // max(len(chosen), 1)
