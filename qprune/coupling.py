"""Masks that agree: sites of a rule that have the same channels get one mask, and so does all that makes them.

Tensors whose channels correspond one to one, through activations, normalizations, pooling, depthwise convolutions, sums
and products, are one *stream*. A residual network has one per stage. A convolution makes other channels of those it
reads, and a concatenation moves them, so each begins a stream of its own.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import field, frozen
from torch import Tensor, nn

from qprune.flow import Call, Flow
from qprune.layers import Aligned, Site, follow_sources, sites
from qprune.selection import Filling, fill, not_a_host, of_channels
from qprune.shrinking.analysis import follow
from qprune.shrinking.function_rules import Pointwise
from qprune.shrinking.kept import BY_MASKS
from qprune.shrinking.layer_rules import Channelwise, Summed
from qprune.shrinking.rule import Rule
from qprune.shrinking.rules import Rigid
from qprune.shrinking.weighted_rule import Weighted


@frozen(eq=False)
class Streams:
    """The streams of a network, each by the number of one of its calls."""

    of_call: tuple[int, ...]  # for each call of the trace the stream that its result belongs to
    meeting: frozenset[int]  # the streams that several tensors come together in
    # the streams that begin with channels of others, moved: by a concatenation, a pad, a slice
    composed: frozenset[int]

    def of_site(self, flow: Flow, path: str, side: str) -> int | None:
        """The stream whose channels are those of a site; None for those of an image that the network is given."""
        call = flow.of(path)[0]
        index = call.inputs[0] if side == "input" else call.index
        return self.of_call[index] if index >= 0 else None


def streams(net: nn.Module, flow: Flow) -> Streams:
    """Find the streams of a network.

    Example:
        >>> from qprune.flow import trace
        >>> from qprune.zoo import create
        >>> net = create("resnet20", width=0.25, shortcut="B")
        >>> flow = trace(net, torch.zeros(1, 3, 32, 32))
        >>> found = streams(net, flow)
        >>> len({found.of_site(flow, f"stage1.{block}.act2", "output") for block in range(3)})
        1
    """
    rules, _, _ = follow(net, flow, BY_MASKS)
    parents = list(range(len(flow.calls)))
    for call, rule in zip(flow.calls, rules, strict=True):
        for maker in _carried(call, rule):
            parents[_root(parents, call.index)] = _root(parents, maker)
    for call in flow.calls:
        if call.layer is not None and next(call.layer.parameters(recurse=False), None) is not None:
            first = flow.of(str(call.path))[0]  # of a layer that runs several times: one weight makes all of them
            parents[_root(parents, call.index)] = _root(parents, first.index)
    of_call = tuple(_root(parents, call.index) for call in flow.calls)
    begun = [(of_call[rule.call.index], rule) for rule in rules if not _carried(rule.call, rule)]
    times = Counter(stream for stream, _ in begun)
    composed = {stream for stream, rule in begun if not isinstance(_inner(rule), Weighted)}
    return Streams(of_call, frozenset(stream for stream in times if times[stream] > 1), frozenset(composed))


def choose_apart(net: nn.Module, flow: Flow, names: Container[str]) -> bool:
    """Whether several masks of these sites choose for themselves among channels that are added somewhere.

    Args:
        net: a network with masks in place.
        flow: its trace.
        names: of the sites that are asked about, ``"<module path>.<side>"``.

    Example:
        >>> from qprune.flow import trace
        >>> from qprune.zoo import create
        >>> net = create("resnet20", width=0.25, shortcut="B")
        >>> choose_apart(net, trace(net, torch.zeros(1, 3, 32, 32)), ["stage1.0.act2.output"])
        False
    """
    masked = [site for site in sites(net) if site.mask is not None and site.name in names and not site.mask.coupled]
    if len(masked) < 2:
        return False
    found = streams(net, flow)
    times = Counter(found.of_site(flow, site.path, site.side) for site in masked if flow.of(site.path))
    return any(times[stream] > 1 for stream in found.meeting)


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


def _inner(rule: Rule) -> Rule:
    return rule.layer if isinstance(rule, Rigid) else rule


def _carried(call: Call, rule: Rule) -> list[int]:
    """The calls whose channels this one hands on, each in its place."""
    rule = _inner(rule)
    layer: Any = call.layer
    if isinstance(layer, Aligned) or not isinstance(rule, Pointwise | Summed | Channelwise | Weighted):
        return []
    if isinstance(rule, Weighted) and not call.counts[0] == call.count == rule.groups:
        return []
    pairs = zip(call.inputs, call.counts, call.matched, strict=True)
    return [maker for maker, count, matched in pairs if matched and count == call.count]


def couple(net: nn.Module, flow: Flow, fillings: Sequence[Filling], origin: str) -> list[str]:
    """Let the masks of coupled rules agree, in place: those on one stream share a mask, and no channel of it escapes.

    A group is all sites of one rule on one stream, if there are several, or if the stream is one in which tensors come
    together. Its members know each other (`ChannelMask.coupled`). What else puts values into dropped channels of the
    stream, a convolution without a mask, say, or a normalization behind a sum, gets a mask that follows the group's; as
    far behind it as nobody else reads.

    The masks of all rules are in place, nothing chosen yet. Gives every mistake as a sentence, which names the origin
    of the rules; then masks are in place that do not agree.
    """
    keys = [filling.rule for filling in fillings if filling.kind == "mask" and filling.couple]
    if not keys:
        return []
    found = streams(net, flow)
    groups, mistakes = _groups(net, flow, found, [f for f in fillings if f.kind == "mask"], origin)
    mistakes = mistakes or [
        "couple = true has no effect: no two of the rule's sites have the same channels, and none is of a sum or a "
        f"product; leave it out ({key}.couple in {origin})."
        for key in dict.fromkeys(keys)
        if all(group.rule != key for group in groups)
    ]
    if mistakes:
        return mistakes
    for group in groups:
        for site in group.members:
            assert site.mask is not None
            site.mask.coupled = group.names
    return _hold_together(net, flow, found, groups, origin)


@frozen(eq=False)
class _Group:
    rule: str
    stream: int
    members: list[Site] = field(factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.members)

    def told(self) -> str:
        first, *others = self.names
        return f'"{first}"' + (f" and {len(others)} more" if others else "")


def _groups(
    net: nn.Module, flow: Flow, found: Streams, fillings: Sequence[Filling], origin: str
) -> tuple[list[_Group], list[str]]:
    """The groups of all coupled rules, in the order in which data reaches them, and what is wrong with them."""
    rule_of = {f"{f.path}.{f.side}".lstrip("."): f for f in fillings}
    by_stream: dict[int, list[Site]] = {}
    for site in sorted(sites(net), key=lambda site: (flow.position(site.path), site.host.sides.index(site.side))):
        if site.mask is None or site.mask.ranking.follows or not _along_channels(flow, site):
            continue
        stream = found.of_site(flow, site.path, site.side)
        if stream is not None:
            by_stream.setdefault(stream, []).append(site)
    groups, mistakes = [], []
    for stream, members in by_stream.items():
        first = next((f for s in members if (f := rule_of.get(s.name)) is not None and f.couple), None)
        if first is None or not (len(members) > 1 or stream in found.meeting):
            continue
        groups.append(_Group(first.rule, stream, members))
        mistakes += [f"{line} ({first.rule}.couple in {origin})." for line in _disagreements(members, rule_of, first)]
    return groups, mistakes


def _along_channels(flow: Flow, site: Site) -> bool:
    """Whether it masks the channels of its tensor; a linear layer may read others, and one image has no batch."""
    for call in flow.of(site.path)[:1]:
        at_input = site.side == "input"
        shape, layout = (call.shapes[0], call.layouts[0]) if at_input else (call.shape, call.layout)
        axis = site.host.channel_axis if site.mask is None or site.side == "weight" else site.mask.axis
        return len(shape) > 1 and layout == (axis % len(shape),)
    return False


def _disagreements(members: Sequence[Site], rule_of: Mapping[str, Filling], first: Filling) -> Iterator[str]:
    start = f"{first.path}.{first.side}".lstrip(".")
    for site in members:
        other = rule_of.get(site.name)
        if other is None or other.rule != first.rule:
            by = f"by {other.rule}" if other is not None else "of its own"
            yield (
                f'"{site.name}" has a mask {by}, and its channels are those that "{start}" shares; choose both in one '
                "coupled rule, or exclude one"
            )
        elif other.options["schedule"] != first.options["schedule"]:
            one, two = (getattr(each.options["schedule"], "sparsity", None) for each in (first, other))
            yield f'"{start}" and "{site.name}" share their channels, and so one sparsity; received {one} and {two}'


def _hold_together(net: nn.Module, flow: Flow, found: Streams, groups: Sequence[_Group], origin: str) -> list[str]:
    """Add masks that follow until dropped channels are nowhere in their streams; what stands in the way is returned."""
    by_stream = {group.stream: group for group in groups}
    mistakes: dict[str, None] = {}
    while not mistakes:
        sources = list(_sources(net, flow, found, by_stream))
        if not sources:
            break
        for call in sources:
            group = by_stream[found.of_call[call.index]]
            places = _places(flow, found, call)
            if isinstance(places, str):
                mistakes[f"{group.told()} would drop channels {places} ({group.rule}.couple in {origin})."] = None
                continue
            for place in places:
                _let_follow(net, place, group)
    return list(mistakes)


def _let_follow(net: nn.Module, place: Call, group: _Group) -> None:
    layer: Any = net.get_submodule(str(place.path))
    if getattr(layer, "output_mask", None) is not None:
        return  # it is behind several
    options = {"importance": "tied", "tied": ((group.names[0], 0),)}
    fill(net, Filling(str(place.path), "output", "mask", options | of_channels(layer, place)))


def _sources(net: nn.Module, flow: Flow, found: Streams, groups: Mapping[int, _Group]) -> Iterator[Call]:
    """Where values get into channels that a group dropped, and somebody would read them: the first of each way."""
    # a stream that another begins may be zero because that one is; so it is looked at while the other keeps all
    alone = [group for stream, group in groups.items() if stream in found.composed]
    others = [group for stream, group in groups.items() if stream not in found.composed]
    # not all channels at once, nor one: layers that mix neighbours must see both, and a pad makes some of them zero
    tried = [(those, start) for those in (others, *([group] for group in alone)) if those for start in (0, 1)]
    lasting = {index for those, start in tried for index in _lasting(net, flow, found, those, start)}
    for index in sorted(lasting):
        alike = [maker for maker in flow.calls[index].inputs if maker >= 0 and _same(found, maker, index)]
        if not lasting & set(alike):
            yield flow.calls[index]


def _lasting(net: nn.Module, flow: Flow, found: Streams, groups: Sequence[_Group], start: int) -> Iterator[int]:
    """The calls whose results hold values that are read, in channels that these groups dropped: every other one."""
    with _dropped(net, groups, slice(start, None, 2)):
        _, values, needed = follow(net, flow, BY_MASKS)
    own = {group.stream for group in groups}
    for call in flow.calls:
        lasts = values[call.index].isnan() & needed[call.index]
        if found.of_call[call.index] in own and len(lasts) > 1 and lasts[start::2].any():
            yield call.index


def _same(found: Streams, one: int, other: int) -> bool:
    return found.of_call[one] == found.of_call[other]


@contextmanager
def _dropped(net: nn.Module, groups: Iterable[_Group], dropped: slice) -> Iterator[None]:
    """As if each group had dropped these channels."""
    masks = {site.name: site.mask for site in sites(net) if site.mask is not None}
    names = {name for group in groups for name in group.names}
    before: dict[str, Tensor] = {name: mask.keep.clone() for name, mask in masks.items()}
    try:
        for name in names:
            masks[name].keep[dropped] = False
        follow_sources(masks)
        yield
    finally:
        for name, mask in masks.items():
            mask.keep.copy_(before[name])


def _places(flow: Flow, found: Streams, source: Call) -> tuple[Call, ...] | str:
    """Where to mask what a call brings in: as far behind it as nobody else reads; or why there is no such place.

    Where nothing on that way takes a mask, all that reads it must.
    """
    way = [source]
    while len(readers := flow.readers(way[-1])) == 1 and way[-1].index not in flow.outputs:
        (reader,) = readers
        if len(reader.inputs) != 1 or not _same(found, reader.index, source.index):
            break
        way.append(reader)
    if any(call.index in flow.outputs or call.path in flow.output_paths() for call in way):
        return "of the network's own output, which cannot be pruned; exclude them"
    able = [call for call in way if _takes_a_mask(flow, call)]
    if able:
        return (able[-1],)
    behind = [_places(flow, found, call) for call in readers if _same(found, call.index, source.index)]
    if len(behind) < len(readers) or not behind or any(isinstance(each, str) for each in behind):
        name = source.path or source.name
        return (
            f"that {name} ({source.name}, operation {source.index}) makes too, where no mask can be; exclude them from "
            "the coupled rule"
        )
    return tuple(place for each in behind for place in each if isinstance(place, Call))


def _takes_a_mask(flow: Flow, call: Call) -> bool:
    layer: Any = call.layer
    if layer is None or not_a_host(layer) or len(flow.of(str(call.path))) > 1 or len(call.shape) < 2:
        return False
    return getattr(layer, "output_mask", None) is None
