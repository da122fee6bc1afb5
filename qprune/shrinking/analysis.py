"""Finds the channels of a network that are dead and can be cut: a pass forwards, one backwards, and what must exist."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isnan
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, fx, nn

from qprune.flow import Call, Flow
from qprune.layers import Compressed
from qprune.shrinking.constants import Mode, unknown
from qprune.shrinking.cut import Cut, Joint, cut_of
from qprune.shrinking.layer_rules import Layer, at_least_one
from qprune.shrinking.placing import constants_of, placed
from qprune.shrinking.rule import Rule
from qprune.shrinking.rules import Rigid, hooked, rule_for, shared_rule
from qprune.shrinking.weighted_rule import Weighted
from qprune.zoo import deployed_prefix


@frozen(eq=False)
class Analysis:
    """The result of `analyse`: what can be cut from a network, and what holds the rest."""

    # by module path, what of a layer stays, and how it is joined to its neighbours; layers that stay whole are left out
    cuts: Mapping[str, Cut]
    # by module path, the layer's own output and (first argument's) input channels that stay
    kept: Mapping[str, tuple[Tensor, Tensor]]
    held: tuple[str, ...]  # what keeps channels around it from going, in sentences
    # by their paths, modules with parameters that never run, of the part that is used after training
    unused: tuple[str, ...] = ()


def analyse(net: nn.Module, flow: Flow, mode: Mode) -> Analysis:
    """Follow zeros and constants forwards through the network, and reading backwards.

    Example:
        >>> from qprune.flow import trace
        >>> from qprune.layers import PrunedConv2d
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), PrunedConv2d(4, 2, 1))
        >>> _ = net[1].input_mask.keep[1:].fill_(False)
        >>> mode = Mode(settled=lambda mask: True, training=False)
        >>> analyse(net, trace(net, torch.zeros(1, 3, 5, 7)), mode).cuts["0"].outputs
        (0,)
    """
    rules, values, needed = follow(net, flow, mode)
    made, present = placed(rules, values, needed, _present(flow, rules, values, needed))
    layers = {rule.call.path: rule for rule in rules if isinstance(rule, Layer)}
    stays = {str(path): rule.kept(made[rule.call.index]) for path, rule in layers.items()}
    kept = {path: (outputs, inputs[0]) for path, (outputs, inputs) in stays.items()}
    cuts = {str(path): _cut(rule, values, made, present) for path, rule in layers.items()}
    held = dict.fromkeys(rule.reason for rule in rules if rule.reason and _holds(rule, values, needed))
    seen = dict.fromkeys(text for index, text in _seen(flow) if _goes(index, rules, values, needed))
    return Analysis(
        {path: cut for path, cut in cuts.items() if cut is not None}, kept, (*held, *seen), _unused(net, flow)
    )


def _unused(net: nn.Module, flow: Flow) -> tuple[str, ...]:
    if isinstance(net, fx.GraphModule):
        return ()  # opened from a file by its calls: what these do not use its author had kept for training
    return tuple(path for path in flow.unused if path.startswith(deployed_prefix(net)))


def follow(net: nn.Module, flow: Flow, mode: Mode) -> tuple[list[Rule], list[Tensor], list[Tensor]]:
    """For each call its rule, the constants that its result holds, and which channels of that are read.

    Example:
        >>> from qprune.flow import trace
        >>> net = nn.Sequential(nn.Conv2d(3, 2, 1))
        >>> follow(net, trace(net, torch.zeros(1, 3, 5, 7)), Mode(settled=lambda mask: True, training=False))[1:]
        ([tensor([nan, nan])], [tensor([True, True])])
    """
    rules = _rules(net, flow, mode.looking_at(net))
    values = _forwards(flow, rules)
    return rules, values, _backwards(flow, rules, values)


def _rules(net: nn.Module, flow: Flow, mode: Mode) -> list[Rule]:
    times = Counter(call.path for call in flow.calls if call.path)  # the network itself, "", is called once
    shared = sharing(net)
    rules = []
    for call in flow.calls:
        path = call.path or ""
        rule = shared_rule(call, mode) if times[path] > 1 else rule_for(call, mode)
        if call.layer is not None and hooked(call.layer):
            rule = Rule(call, mode, _hook(path))
        elif call.index in flow.overwriting:
            rule = Rule(call, mode, f"{path or call.name}: it overwrites what is read again behind it, or hands it on")
        elif isinstance(rule, Layer) and path in shared:
            rule = Rigid(rule, f"it shares a parameter with {shared[path]}")
        elif isinstance(rule, Layer) and path in flow.borrowed:
            rule = Rigid(rule, f"{flow.borrowed[path]} reads a parameter or buffer of it, too")
        elif isinstance(rule, Layer) and path in flow.measured:
            rule = Rigid(rule, f"its number of channels is read for {flow.measured[path]}")
        rules.append(rule)
    return rules


def _seen(flow: Flow) -> Iterator[tuple[int, str]]:
    """Results whose channels must all be there because of more than the calls that read them, each with the reason."""
    for index, path in flow.watched.items():
        yield index, _hook(path)
    for origin, use in flow.measured.items():
        if isinstance(origin, int):
            call = flow.calls[origin]
            yield origin, f"{call.path or call.name}: its number of channels is read for {use}"


def _hook(path: str) -> str:
    return f"{path or 'the network'}: it has a hook, which may read or change any channel"


def sharing(net: nn.Module) -> dict[str, str]:
    """The layers that hold a parameter which another layer holds too, each with one of the others."""
    holders: dict[int, list[str]] = {}
    for path, module in net.named_modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(path)
    return {
        path: next(p for p in paths if p != path) for paths in holders.values() if len(set(paths)) > 1 for path in paths
    }


def _of_arguments(call: Call, table: Sequence[Tensor], outside: Callable[[int], Tensor]) -> list[Tensor]:
    found = []
    for maker, count, matched in zip(call.inputs, call.counts, call.matched, strict=True):
        found.append(table[maker] if matched else outside(count))
    return found


def _forwards(flow: Flow, rules: list[Rule]) -> list[Tensor]:
    values: list[Tensor] = []
    read: list[Tensor] = []  # what those who read it may rely on: a hook may change everything
    for call, rule in zip(flow.calls, rules, strict=True):
        made = rule.values(_of_arguments(call, read, unknown))
        values.append(made)
        read.append(unknown(len(made)) if call.index in flow.watched else made)
    return values


def _backwards(flow: Flow, rules: list[Rule], values: list[Tensor]) -> list[Tensor]:
    # the network's outputs are read; so is, for all we know, what no call on record reads (y[:, :3] = x leaves none),
    # and what a hook sees
    read = {maker for call in flow.calls for maker in call.inputs} - set(flow.outputs) - set(flow.watched)
    needed = [torch.full((call.count,), call.index not in read) for call in flow.calls]
    for rule in reversed(rules):
        call, read_behind = rule.call, needed[rule.call.index]
        if not isinstance(rule, Layer):  # a constant is made of constants, which stay, or is a product with 0
            read_behind = read_behind & values[call.index].isnan()
        for maker, matched, wanted in zip(call.inputs, call.matched, rule.wanted(read_behind), strict=True):
            if maker >= 0:
                needed[maker] = needed[maker] | wanted if matched else torch.ones_like(needed[maker])
    return needed


def _present(flow: Flow, rules: list[Rule], values: list[Tensor], needed: list[Tensor]) -> list[Tensor]:
    """The channels of every tensor that must exist, even if as constants."""
    present = [value.isnan() & need for value, need in zip(values, needed, strict=True)]
    for index in _whole(flow):
        present[index] = torch.ones_like(present[index])
    functions = [rule for rule in rules if not isinstance(rule, Layer)]
    changed = True
    while changed:
        changed = False
        present = [at_least_one(each) for each in present]  # and what is made of that one exists, too
        for rule in functions:
            call = rule.call
            arguments = _of_arguments(call, present, lambda count: torch.ones(count, dtype=torch.bool))
            result, arguments = rule.closed(present[call.index], arguments)
            given = zip(call.inputs, arguments, call.matched, strict=True)
            for index, wanted in [(call.index, result), *((maker, each) for maker, each, fits in given if fits)]:
                if (wanted & ~present[index]).any():
                    present[index] = present[index] | wanted
                    changed = True
    return present


def _whole(flow: Flow) -> Iterator[int]:
    # outputs of the network, what a hook sees or the network's own code counts, what nobody on record reads, and
    # results read with other channels than they were made with
    yield from (index for index, _ in _seen(flow))
    read = {maker for call in flow.calls for maker in call.inputs}
    for call in flow.calls:
        if call.index in flow.outputs or call.index not in read:
            yield call.index
        yield from (
            maker for maker, matched in zip(call.inputs, call.matched, strict=True) if maker >= 0 and not matched
        )


def _cut(rule: Layer, values: list[Tensor], needed: list[Tensor], present: list[Tensor]) -> Cut | None:
    call = rule.call
    outputs, inputs = rule.kept(needed[call.index])
    exists = _of_arguments(call, present, lambda count: torch.ones(count, dtype=torch.bool))
    behind = _of_arguments(call, values, unknown)
    here = present[call.index]
    if rule.idle(needed[call.index]):
        arguments = [_blank(int(there.sum()), len(_indices(stay))) for there, stay in zip(exists, inputs, strict=True)]
    else:
        arguments = [
            _joint(rule.sources(slot)[stay], exists[slot], rule.entered[slot][stay], behind[slot])
            for slot, stay in enumerate(inputs)
        ]
    # of what nobody reads nothing is picked: readers know its constants, and whatever else it held is 0 from now on
    targets = rule.targets() if needed[call.index].any() else torch.full_like(here, -1, dtype=torch.int64)
    result = _joint(targets[here], outputs, constants_of(rule, targets, values[call.index])[here])
    bias = rule.folded(outputs, inputs[0]) if isinstance(rule, Weighted) else None
    cut = Cut(
        inputs=tuple(_indices(stay) for stay in inputs),
        outputs=_indices(outputs),
        arguments=tuple(arguments),
        result=result,
        masks=rule.settled_masks(),
        axis=call.axis,
        added_bias=None if bias is None else tuple(bias.tolist()),
    )
    return None if cut == cut_of(rule.layer, tuple(map(len, inputs)), len(outputs), call.axis) else cut


def _joint(sources: Tensor, exists: Tensor, wanted: Tensor, values: Tensor | None = None) -> Joint | None:
    """Indices and fill values that make channels from those that exist; None if they are all of these, in order.

    ``sources`` has for each channel the one that it is, or -1 for a constant, ``wanted`` the constant, or NaN. Where
    ``values``, the same of those that it is made of, hold the constant already, they are picked.
    """
    place = (exists.cumsum(0) - 1).tolist()
    pairs = []
    for source, constant in zip(sources.tolist(), wanted.tolist(), strict=True):
        there = source >= 0 and bool(exists[source])
        if there and (isnan(constant) or (values is not None and float(values[source]) == constant)):
            pairs.append((place[source], 0.0))
        else:  # a channel that is neither there nor constant is read by nobody
            pairs.append((-1, 0.0 if isnan(constant) else constant))
    untouched = [index for index, _ in pairs] == list(range(int(exists.sum())))
    return None if untouched else tuple(pairs)


def _blank(given: int, wanted: int) -> Joint | None:
    """So many zeros, for want of anybody who reads them; None if as many are given."""
    return None if given == wanted else ((-1, 0.0),) * wanted


def _indices(chosen: Tensor) -> tuple[int, ...]:
    return tuple(chosen.nonzero().flatten().tolist())


def _holds(rule: Rule, values: list[Tensor], needed: list[Tensor]) -> bool:
    """Whether a channel would go but for this call: one that is constant before it, or that nobody reads behind it."""
    layer: Any = rule.call.layer
    masked = isinstance(layer, Compressed) and any(layer.slot(side, "mask") is not None for side in layer.sides)
    if not isinstance(rule, Layer) and masked:
        return True
    if not needed[rule.call.index].all():
        return True
    for maker, matched in zip(rule.call.inputs, rule.call.matched, strict=True):
        if matched and not values[maker].isnan().all():
            return True
    return False


def _goes(index: int, rules: list[Rule], values: list[Tensor], needed: list[Tensor]) -> bool:
    """Whether a channel of this call's result would go if nothing but the calls that read it mattered."""
    if not values[index].isnan().all():
        return True
    wanted = [
        each
        for rule in rules
        for maker, each, matched in zip(
            rule.call.inputs, rule.wanted(needed[rule.call.index]), rule.call.matched, strict=True
        )
        if maker == index and matched
    ]
    return bool(wanted) and not torch.stack(wanted).any(0).all()
