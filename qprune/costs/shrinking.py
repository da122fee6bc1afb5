"""`ShrinkReport`: the channels that shrinking removed beside those that the masks drop, and why others stayed."""

import copy
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from attrs import frozen
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from qprune.costs.layer_cost import LayerCost, layer_costs, summed
from qprune.escaping import visible
from qprune.flow import Shape, trace
from qprune.layers import Align, ChannelMask, sites, take_apart
from qprune.shrinking import Shrunk, record
from qprune.shrinking.unused import LeftOut
from qprune.tables import as_plain, html_table, kept, short, table
from qprune.zoo import deployed

HEADER = ("layer", "type", "in", "out", "parameters", "MACs", "left", "packed", "left")
RIGHT = "llrrrrrrr"


@frozen
class LayerChange:
    """One layer before and after; ``left`` is after."""

    path: str  # empty if the network is the layer
    type: str  # class name after; ``Identity`` for a normalization that became part of a convolution
    channels_in: int | None  # input channels; None for layers other than convolution, linear and normalization
    channels_in_left: int | None  # of these, the ones that are left; None where it is no such layer any more
    channels_out: int | None  # output channels, likewise
    channels_out_left: int | None  # of these, the ones that are left
    parameters: int
    parameters_left: int
    macs: int  # multiply-accumulates of one image
    macs_left: int
    packed_bytes: int  # weights at their bits, other parameters and scales in float32
    packed_bytes_left: int


@frozen
class ShrinkTotal:
    """The sums over a network: before, by the masks (``kept``, as `summarize` counts them), and after (``left``)."""

    parameters: int
    parameters_kept: int
    parameters_left: int
    macs: int
    macs_kept: int
    macs_left: int
    packed_bytes: int
    packed_bytes_kept: int
    packed_bytes_left: int


@frozen
class ShrinkReport:
    """The changes that shrinking made to a network; prints as a table.

    Attributes:
        input_size: shape of one image, without the batch.
        layers: one `LayerChange` per layer with parameters, in registration order.
        total: the sums.
        gathers: places where a layer picks channels out of a tensor by fixed indices.
        gathered_channels: how many channels these make.
        scatters: places where a layer puts channels among constants.
        scattered_channels: how many channels these make.
        held: what keeps channels around it from going, and why, in sentences.
        masks_left: sites whose masks stay, since their channels could not be cut.
        folded: normalizations that became part of a convolution.
        unfolded: normalizations that did not, and why; empty where folding was not asked for.
        left_out: modules that are gone because they never run in eval mode, by their paths.
        notes: why the network is smaller or larger than its masks tell, in sentences.
    """

    input_size: Shape
    layers: tuple[LayerChange, ...]
    total: ShrinkTotal
    gathers: int
    gathered_channels: int
    scatters: int
    scattered_channels: int
    held: tuple[str, ...] = ()
    masks_left: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    unfolded: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists and numbers, ready for JSON."""
        return as_plain(self)

    def facts(self) -> list[str]:
        """What went, in sentences: parameters, MACs and bytes, gathers and scatters, and the notes."""
        return list(_facts(self))

    def unremoved(self) -> list[tuple[str, Sequence[str]]]:
        """What stays, as titles with lines under each; empty if everything went that could."""
        titled = (
            ("Held, so that channels around it stay", self.held),
            ("Masks that stay", self.masks_left),
            ("Normalizations that stay", self.unfolded),
            ("Left out, since they never run in eval mode", self.left_out),
        )
        return [(title, lines) for title, lines in titled if lines]

    def __repr__(self) -> str:
        total = self.total
        left = f"{total.parameters_left:,} of {total.parameters:,} parameters left"
        return f"ShrinkReport({left}, {len(self.held)} held, {len(self.masks_left)} masks left)"

    def _repr_html_(self) -> str:
        rows = [*map(_cells, self.layers), _total_cells(self.total)]
        facts = "".join(f"<p>{escape(line)}</p>" for line in self.facts())
        stays = "".join(
            f"<p>{escape(title)}</p><ul>{''.join(f'<li>{escape(visible(line))}</li>' for line in lines)}</ul>"
            for title, lines in self.unremoved()
        )
        return html_table(HEADER, rows, right=RIGHT) + facts + stays

    def __str__(self) -> str:
        rows = [*map(_cells, self.layers), _total_cells(self.total)]
        stays = [
            line for title, lines in self.unremoved() for line in ("", f"{title}:", *(f"  {each}" for each in lines))
        ]
        return "\n".join([table(HEADER, rows, right=RIGHT, footer=1), "", *self.facts(), *stays])


def report_shrunk(net: nn.Module, shrunk: Shrunk, example: Any) -> ShrinkReport:
    """Compare a network with what `qprune.shrinking.shrink_with_facts` made of it.

    Counted is as in `summarize`: one image, without indices and running statistics. "Before" is the network with every
    channel that its masks drop; "by the masks" is what is left in theory once they are taken out.

    Args:
        net: the network with its masks.
        shrunk: what became of it.
        example: an input, as for `shrink`: a tensor or a tuple of arguments with the batch first.

    Raises:
        PlanError: if the network does not accept the example.

    Example:
        >>> print(report_shrunk(net, shrink_with_facts(net, example), example))
    """
    net = copy.deepcopy(deployed(net))
    take_apart(net)
    one = tree_map_only(Tensor, lambda x: x[:1], example)
    nets = (_unmasked(net), net, _unmasked(shrunk.net))
    before, by_masks, after = (layer_costs(each, trace(each, one)) for each in nets)
    total = ShrinkTotal(*(summed(rows, name) for name in ("parameters", "macs", "packed_bytes")
                          for rows, name in ((before, name), (by_masks, _KEPT[name]), (after, name))))  # fmt: skip
    aligns = [module.index for module in shrunk.net.modules() if isinstance(module, Align)]
    gathers, scatters = ([len(index) for index in aligns if (-1 in index) is fills] for fills in (False, True))
    return ShrinkReport(
        input_size=tuple(tree_leaves(one)[0].shape[1:]),
        layers=tuple(_changes(before, {row.path: row for row in after}, shrunk.net)),
        total=total,
        gathers=len(gathers),
        gathered_channels=sum(gathers),
        scatters=len(scatters),
        scattered_channels=sum(scatters),
        held=shrunk.analysis.held,
        left_out=shrunk.analysis.unused,
        masks_left=tuple(site.name for site in sites(shrunk.net) if site.mask is not None),
        folded=tuple(fold.norm for fold in shrunk.folds),
        unfolded=shrunk.unfolded,
        notes=tuple(_notes(net, shrunk, total)),
    )


_KEPT = {"parameters": "parameters_kept", "macs": "macs_kept", "packed_bytes": "packed_bytes"}


def _unmasked(net: nn.Module) -> nn.Module:
    """A copy whose masks drop nothing, so that its ledger counts what is there."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, ChannelMask):
            module.keep.fill_(True)
    return net


def _changes(before: Sequence[LayerCost], after: dict[str, LayerCost], small: nn.Module) -> Iterator[LayerChange]:
    modules = dict(small.named_modules())
    for row in before:
        kind = type(modules[row.path]).__name__ if row.path in modules else LeftOut.__name__
        left = after.get(row.path, LayerCost(row.path, kind))  # without parameters it has no line any more
        pairs = ((getattr(row, name), getattr(left, name)) for name in
                 ("channels_in", "channels_out", "parameters", "macs", "packed_bytes"))  # fmt: skip
        yield LayerChange(row.path, kind, *(value for pair in pairs for value in pair))


def _notes(net: nn.Module, shrunk: Shrunk, total: ShrinkTotal) -> Iterator[str]:
    if record(net)["cuts"]:
        yield "The network was shrunk before; what is listed as before is what that left."
    less = total.parameters_kept - total.parameters_left
    if less > 0:
        reasons = [
            *(["channels that hold one constant became biases"] if _has_constants(shrunk) else []),
            *(["normalizations became part of convolutions"] if shrunk.folds else []),
        ]
        why = " and ".join(reasons) or "of others nobody reads or writes anything but zeros"
        yield f"That is {less:,} parameters fewer than by the masks alone: {why}."
    elif less < 0:
        yield (
            f"That is {-less:,} parameters more than by the masks alone: biases that constants became, groups that "
            "must be of one size, or what is named below."
        )


def _has_constants(shrunk: Shrunk) -> bool:
    """Whether any channel went that holds a constant other than zero."""
    for cut in shrunk.analysis.cuts.values():
        joints = [joint for joint in (*cut.arguments, cut.result) if joint is not None]
        if cut.added_bias is not None or any(fill for joint in joints for _, fill in joint):
            return True
    return False


def _cells(row: LayerChange) -> list[str]:
    weighted = row.macs > 0
    return [
        row.path or "(network)",
        row.type,
        kept(row.channels_in_left, row.channels_in),
        kept(row.channels_out_left, row.channels_out),
        kept(row.parameters_left, row.parameters),
        *((short(row.macs), short(row.macs_left)) if weighted else ("", "")),
        short(row.packed_bytes, "B"),
        short(row.packed_bytes_left, "B"),
    ]


def _total_cells(total: ShrinkTotal) -> list[str]:
    counts = [short(total.macs), short(total.macs_left)]
    sizes = [short(total.packed_bytes, "B"), short(total.packed_bytes_left, "B")]
    return ["total", "", "", "", kept(total.parameters_left, total.parameters), *counts, *sizes]


def _facts(report: ShrinkReport) -> Iterator[str]:
    total, size = report.total, "x".join(map(str, report.input_size))
    yield f"Parameters: {_three(total.parameters, total.parameters_kept, total.parameters_left)}."
    yield f"MACs for one image of {size}: {_three(total.macs, total.macs_kept, total.macs_left, scaled=True)}."
    packed = (total.packed_bytes, total.packed_bytes_kept, total.packed_bytes_left)
    yield f"Packed weights: {_three(*packed, unit='B', scaled=True)}."
    if report.folded:
        yield f"Normalizations that are part of a convolution now: {len(report.folded)}."
    aligned = (
        ("gather", report.gathers, report.gathered_channels),
        ("scatter", report.scatters, report.scattered_channels),
    )
    if any(count for _, count, _ in aligned):
        told = [
            f"{count} {what}{'s' * (count > 1)} ({channels:,} channels)" for what, count, channels in aligned if count
        ]
        yield f"Where neighbours kept other channels: {', '.join(told)}."
    yield from report.notes


def _three(before: int, by_masks: int, left: int, unit: str = "", scaled: bool = False) -> str:
    told = [short(number, unit) if scaled else f"{number:,}" for number in (before, by_masks, left)]
    return f"{told[0]} before, {told[1]} by the masks, {told[2]} left ({100 * left / max(1, before):.1f} %)"
