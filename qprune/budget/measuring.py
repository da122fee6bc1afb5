"""`measure_sensitivity`: every group, ratio and width alone, one after the other; the cost is told before it starts."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, TextIO

import torch
from attrs import frozen
from torch import Tensor, nn

from qprune.budget.changing import drop, masked, pruned, quantized, renormalized
from qprune.budget.divergence import divergence, outputs_of
from qprune.budget.groups import Group, find_groups
from qprune.budget.kept import Kept, Setting
from qprune.budget.sensitivity import Curve, Sensitivity
from qprune.budget.showing import Shown
from qprune.errors import PlanError
from qprune.flow import trace
from qprune.importances import IMPORTANCES, fitting
from qprune.layers import sites
from qprune.spelling import nearest
from qprune.training.content import checksum
from qprune.zoo import deployed

RATIOS = (0.125, 0.25, 0.5, 0.625, 0.75, 0.875)
BITS = (2, 4, 8)


def measure_sensitivity(
    net: nn.Module,
    batches: Sequence[Tensor],
    *,
    compare: str,
    ratios: Sequence[float] = RATIOS,
    bits: Sequence[int] = BITS,
    importance: str = "activation-l1",
    seed: int = 0,
    around: Mapping[Group, float] = MappingProxyType({}),
    file: Path | None = None,
    verbose: str | int = "auto",
    out: TextIO | None = None,
) -> Sensitivity:
    """Measure how far the outputs of a network move if one group of channels is pruned, or has fewer bits.

    No label is needed. Batch normalizations take their statistics anew on the same images in every changed network, and
    in the dense one that it is compared with, so that the ratio 0 gives 0. Of a network that trains more than is used
    afterwards the used part is measured, with paths as they are in that part.

    What it is given, and refuses, is as for `qprune.sensitivity`. Shares of the channels of the groups ``around`` are
    dropped meanwhile, while another group is measured; outputs are compared with the dense ones all the same.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(80, 7))
        >>> found = measure_sensitivity(
        ...     net, [torch.randn(9, 3, 8, 8)], compare="classes", ratios=(0, 0.5), bits=(8,), verbose=0
        ... )
        >>> [curve.group.name for curve in found.curves]
        ['1.output', '2.output', '4.weight']
    """
    check_dense(net, ratios, bits, importance)
    part = deployed(net)
    kept = Kept(file, _key(part, batches, around, compare=compare, importance=importance, seed=seed))
    plan = _Plan(find_groups(part, batches[0][:1]), tuple(map(float, ratios)), tuple(bits))
    missing = [setting for setting in plan.settings() if setting not in kept]
    problems: dict[str, str] = {}
    if missing:
        work = _Work(part, batches, compare, importance, seed, around)
        problems = _measure(work, plan, missing, kept, Shown(verbose, out or sys.stderr))
    curves = tuple(plan.curve(group, kept, problems.get(group.name, "")) for group in plan.groups)
    count = sum(map(len, batches))
    return Sensitivity(curves, compare, count, importance, sum(setting in kept for setting in missing))


def check_dense(net: nn.Module, ratios: Sequence[float], bits: Sequence[int], importance: str) -> None:
    """Refuse what cannot be measured."""
    for ratio in ratios:
        if not 0 <= ratio < 1:
            raise PlanError(f"A ratio is the share of channels to drop, at least 0 and less than 1; received {ratio}.")
    for width in bits:
        if width not in range(2, 9):
            raise PlanError(f"bits must be whole numbers from 2 to 8, which quantizers can have; received {width}.")
    if not ratios and not bits:
        raise PlanError("There is nothing to measure: give ratios, bits, or both.")
    usable = [word for word in fitting("output") if not IMPORTANCES[word].gradient_power]
    if importance not in usable:
        raise PlanError(
            f"importance must be one that is known at outputs without a loss ({', '.join(usable)}); received "
            f'"{importance}"{nearest(importance, usable)}.'
        )
    first = next(sites(net), None)
    if first is not None:
        kind = "quantizer" if first.mask is None else "mask"
        raise PlanError(
            f"A dense network is measured, and this one has a {kind} at {first.name}. Give the one that "
            "it started from."
        )


def _key(net: nn.Module, batches: Sequence[Tensor], around: Mapping[Group, float], **facts: Any) -> str:
    """All that a measurement depends on, in one word."""
    state = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
    images = [batch.cpu() for batch in batches]
    if around:
        facts["around"] = {group.name: ratio for group, ratio in around.items()}
    return checksum({"state": state, "images": images, **facts})


@frozen
class _Plan:
    groups: tuple[Group, ...]
    ratios: tuple[float, ...]
    bits: tuple[int, ...]

    def settings(self) -> list[Setting]:
        return [setting for group in self.groups for setting in self.of(group)]

    def of(self, group: Group) -> Iterator[Setting]:
        yield from ((group.name, "ratio", ratio) for ratio in (self.ratios if group.members else ()))
        yield from ((group.name, "bits", width) for width in self.bits)

    def curve(self, group: Group, kept: Kept, problem: str) -> Curve:
        found = [setting for setting in self.of(group) if setting in kept]
        ratios = {level: kept[name, kind, level] for name, kind, level in found if kind == "ratio"}
        bits = {int(level): kept[name, kind, level] for name, kind, level in found if kind == "bits"}
        return Curve(group, ratios, bits, problem)


class _Work:
    """The dense network, and what is measured against it."""

    def __init__(
        self,
        net: nn.Module,
        batches: Sequence[Tensor],
        compare: str,
        importance: str,
        seed: int,
        around: Mapping[Group, float],
    ) -> None:
        self.net, self.batches, self.compare = net, batches, compare
        self.importance, self.seed = importance, seed
        began = perf_counter()
        self.dense = outputs_of(renormalized(net, batches), batches)
        measured = perf_counter()
        trace(net, batches[0][:1])
        self._passes, self._tracing = measured - began, perf_counter() - measured
        self.around = dict(around)
        self._meanwhile = self.ready(*around) if around else net

    def seconds(self, settings: Sequence[Setting]) -> float:
        """About how long these take."""
        ratios = [setting for setting in settings if setting[1] == "ratio"]
        widths = len(settings) - len(ratios)
        groups = len({name for name, _, _ in ratios})
        # each takes statistics and compares outputs; a third pass ranks the channels of a group, or measures ranges
        passes = len(settings) + 0.5 * (groups + widths)
        return passes * self._passes + (groups + widths) * self._tracing

    def ready(self, *groups: Group) -> nn.Module:
        """The network with the masks of these groups, and what is dropped meanwhile."""
        changed = masked(
            self.net, self.batches, list(self.around | dict.fromkeys(groups, 0.0)), self.importance, self.seed
        )
        drop(changed, self.around)
        return changed

    def of_ratio(self, ready: nn.Module, group: Group, ratio: float) -> float:
        return self._divergence(pruned(ready, self.batches, {group: ratio}))

    def of_bits(self, group: Group, bits: int) -> float:
        return self._divergence(quantized(self._meanwhile, self.batches, group, bits))

    def _divergence(self, changed: nn.Module) -> float:
        return divergence(changed, self.batches, self.dense, self.compare)


def _measure(work: _Work, plan: _Plan, missing: Sequence[Setting], kept: Kept, shown: Shown) -> dict[str, str]:
    """Measure what is missing; for each group that cannot be pruned, why."""
    problems: dict[str, str] = {}
    by_group = {group: [each for each in missing if each[0] == group.name] for group in plan.groups}
    groups, images = len({name for name, _, _ in missing}), sum(map(len, work.batches))
    shown.cost(f"{len(missing)} measurements of {groups} groups, on {images} images each", work.seconds(missing))
    with torch.no_grad(), shown.bar(len(missing)) as bar:
        for group, settings in by_group.items():
            bar.set_description_str(group.title, refresh=False)
            ratios = [each for each in settings if each[1] == "ratio"]
            try:
                ready = work.ready(group) if ratios else work.net
            except PlanError as error:
                problems[group.name] = str(error)
                bar.update(len(ratios))
                ratios = []
            for setting in ratios:
                kept[setting] = work.of_ratio(ready, group, setting[2])
                bar.update()
            for setting in settings:
                if setting[1] == "bits":
                    kept[setting] = work.of_bits(group, int(setting[2]))
                    bar.update()
    return problems
