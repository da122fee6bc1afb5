"""Where channels that no longer exist are put back: before each layer that reads them, or once, behind their maker."""

from collections.abc import Iterator

import torch
from torch import Tensor

from qprune.flow import Flow
from qprune.shrink.layer_rules import Layer
from qprune.shrink.rule import Rule


def scattered_once(
    flow: Flow, rules: list[Rule], values: list[Tensor], needed: list[Tensor], present: list[Tensor]
) -> list[Tensor]:
    """Which channels of every tensor must exist, where several layers would put the same constants around it.

    Each layer that reads other channels than there are gathers or scatters its input, which moves as many channels as
    it reads. If fewer are moved by scattering the tensor once, where it is made, its constants exist from there on.

    Args:
        flow: the trace.
        rules: the rule of each call.
        values: the constants of each call's result.
        needed: which of its channels are read.
        present: which of its channels must exist at least.
    """
    return [
        _cheaper(present[call.index], list(_takes(call.index, rules, values, needed)))
        if isinstance(rule, Layer) and call.index not in flow.outputs and _layers_alone(call.index, rules)
        else present[call.index]
        for call, rule in zip(flow.calls, rules, strict=True)
    ]


def _layers_alone(maker: int, rules: list[Rule]) -> bool:
    return all(isinstance(rule, Layer) for rule in rules if maker in rule.call.inputs)


def _takes(maker: int, rules: list[Rule], values: list[Tensor], needed: list[Tensor]) -> Iterator[Tensor]:
    """For each layer that reads a tensor, the channels that it takes from there if they exist."""
    for rule in rules:
        if isinstance(rule, Layer) and maker in rule.call.inputs:
            _, inputs = rule.kept(needed[rule.call.index])
            for slot, stay in enumerate(inputs):
                if rule.call.inputs[slot] == maker:
                    yield _taken(rule, slot, stay, values[maker])


def _taken(rule: Layer, slot: int, stay: Tensor, values: Tensor) -> Tensor:
    sources, entered = rule.sources(slot)[stay], rule.entered[slot][stay]
    there = (sources >= 0) & (entered.isnan() | (values[sources.clamp(min=0)] == entered))
    taken = torch.zeros(len(values), dtype=torch.bool)
    taken[sources[there]] = True
    return taken


def _cheaper(least: Tensor, takes: list[Tensor]) -> Tensor:
    whole = torch.stack([least, *takes]).any(0)
    if len(takes) < 2 or torch.equal(whole, least):
        return least
    return whole if int(whole.sum()) + _moved(whole, takes) < _moved(least, takes) else least


def _moved(exists: Tensor, takes: list[Tensor]) -> int:
    return sum(int(take.sum()) for take in takes if not torch.equal(take, exists))
