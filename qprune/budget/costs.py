"""`CostModel`: what a shrunk network costs, as a function of how many channels and bits each of its groups keeps."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor, nn

from qprune.budget.groups import Group
from qprune.costs import LayerCost, summarize
from qprune.costs.bits import FLOAT, WEIGHTED
from qprune.costs.layer_cost import layer_costs, scale_bytes
from qprune.flow import trace
from qprune.layers import ChannelMask, follow_sources, sites

Array = np.ndarray[Any, np.dtype[Any]]


@frozen
class Choice:
    """What is kept of a group."""

    dropped: int = 0  # channels dropped
    bits: int | None = None  # of the weights that make them and of their values; None leaves them in float


Point = Mapping[Group, Choice]
# what a summary calls the costs that can be counted
COUNTED = {"macs": "macs_kept", "params": "parameters_kept", "bytes": "packed_bytes", "bops": "bit_operations"}


@frozen(eq=False)
class CostModel:
    """The cost ledger of a network, with each layer's channels as a function of those that groups keep.

    Which groups a layer reads and makes channels of is found by asking the ledger: one group at a time loses channels,
    or its quantizers. Then a layer's weights are a product of both counts (one count where it is depthwise), and all
    costs follow. `counted` asks the ledger itself: where each reader of a channel has a mask of its own, as in
    DenseNet, the channel stays until all have dropped it, and more is left than the model says.
    """

    groups: tuple[Group, ...]
    _reads: Array = field(repr=False)  # (layers, groups): input channels that go with one channel of the group
    _makes: Array = field(repr=False)  # likewise, output channels
    _hears: Array = field(repr=False)  # bool, whether the bits of its input are those of the group
    _owner: Array = field(repr=False)  # (layers,): index of the group whose bits its weights have, or -1
    _dense: "_Dense" = field(repr=False)

    def counts(self, point: Point) -> tuple[Array, Array]:
        """For each row the kept input and output channels; 0 where it has none."""
        dropped = np.array([point[group].dropped for group in self.groups], dtype=float)
        return self._dense.inputs - self._reads @ dropped, self._dense.outputs - self._makes @ dropped

    def layers(self, point: Point) -> dict[str, tuple[float, float]]:
        """The same by the module paths of the rows."""
        return dict(zip(self._dense.paths, zip(*map(np.ndarray.tolist, self.counts(point)), strict=True), strict=True))

    def bits(self, point: Point) -> tuple[Array, Array]:
        """For each row the bits of its weights and of what it reads."""
        own = np.array([point[group].bits or FLOAT for group in self.groups] + [FLOAT])
        heard = np.where(self._hears, own[:-1], 0).max(1, initial=0)
        return own[self._owner], np.where(heard > 0, heard, FLOAT)

    def costs(self, point: Point) -> dict[str, float]:
        """MACs, parameters, packed bytes and bit operations of the network that is left, by the words of budgets."""
        dense, (inputs, outputs), (weight_bits, value_bits) = self._dense, self.counts(point), self.bits(point)
        left_out = np.divide(outputs, dense.outputs, out=np.ones_like(outputs), where=dense.outputs > 0)
        left_in = np.divide(inputs, dense.inputs, out=np.ones_like(inputs), where=dense.inputs > 0)
        weights = dense.weights * left_out * np.where(dense.depthwise, 1.0, left_in)
        others = dense.others * left_out
        macs = weights * dense.uses
        scales = np.where(weight_bits < FLOAT, dense.scales * outputs, 0)
        return {
            "macs": float(macs.sum()),
            "params": float((weights + others).sum()),
            "bytes": float((weights * weight_bits / 8 + 4 * others + scales).sum()),
            "bops": float((macs * weight_bits * value_bits).sum()),
        }


@frozen(eq=False)
class _Dense:
    paths: tuple[str, ...]
    inputs: Array
    outputs: Array
    weights: Array
    others: Array  # biases, normalizations
    uses: Array  # of each weight, for one image
    depthwise: Array
    scales: Array  # bytes of a quantizer, for each output channel


def counted(net: nn.Module, example: Tensor) -> dict[str, float]:
    """What the ledger says of a network with masks and quantizers, by the words of budgets."""
    total = summarize(net, tuple(example.shape[1:])).total
    return {word: float(getattr(total, name)) for word, name in COUNTED.items()}


def carried_out(fitted: nn.Module, point: Point) -> nn.Module:
    """A copy with as many channels dropped and as many bits as a point says.

    Which channels they will be is not known before training, so the first ones are taken to stay.
    """
    net = copy.deepcopy(fitted)
    found = {site.name: site for site in sites(net)}
    for group, choice in point.items():
        for name in _names(group.members, "output"):
            mask = found[name].mask
            if mask is not None:
                _drop_last(mask, choice.dropped)
        for name in [*_names(group.members, "output"), *_names(group.weights, "weight")]:
            quant: Any = found[name].quant
            quant.active.fill_(choice.bits is not None)
            quant.bits = choice.bits or quant.bits
    follow_sources({name: site.mask for name, site in found.items() if site.mask is not None})
    return net


def _drop_last(mask: ChannelMask, count: int) -> None:
    mask.refresh(count / mask.channels, -torch.arange(float(mask.channels)))


def _names(paths: Sequence[str], side: str) -> list[str]:
    return [f"{path}.{side}".lstrip(".") for path in paths]


@torch.no_grad()
def model_costs(fitted: nn.Module, example: Tensor, groups: Sequence[Group]) -> CostModel:
    """Find how the costs of a network depend on its groups, from what `qprune.budget.changing.fitted` makes of it."""
    probe = _Probe(fitted, example)
    dense = probe.rows()
    lost = [probe.lost(group, dense) for group in groups]
    rounded = probe.rows(quantized=groups)
    sizes = _dense_of(probe.net, dense)
    heard = [
        _differing(rounded, probe.rows(quantized=[other for other in groups if other != group])) for group in groups
    ]
    owner = {path: index for index, group in enumerate(groups) for path in group.weights}
    shape = (len(groups), len(dense))
    return CostModel(
        tuple(groups),
        reads=np.array([inputs for inputs, _ in lost]).reshape(shape).T,
        makes=np.array([outputs for _, outputs in lost]).reshape(shape).T,
        hears=np.array(heard, dtype=bool).reshape(shape).T,
        owner=np.array([owner.get(row.path, -1) for row in dense]),
        dense=sizes,
    )


def _differing(one: Sequence[LayerCost], other: Sequence[LayerCost]) -> list[bool]:
    return [a.activation_bits != b.activation_bits for a, b in zip(one, other, strict=True)]


class _Probe:
    """A network whose masks and quantizers are set as wanted, and its ledger."""

    def __init__(self, fitted: nn.Module, example: Tensor) -> None:
        self.net = copy.deepcopy(fitted)
        self.flow = trace(self.net, example[:1].to("meta"))
        self.sites = {site.name: site for site in sites(self.net)}

    def rows(self, quantized: Sequence[Group] = ()) -> tuple[LayerCost, ...]:
        """The ledger with the quantizers of these groups at work, and no others."""
        active = {name for group in quantized for name in _names(group.weights, "weight")}
        active |= {name for group in quantized for name in _names(group.members, "output")}
        for name, site in self.sites.items():
            if site.quant is not None:
                site.quant.active.fill_(name in active)
        return layer_costs(self.net, self.flow)

    def lost(self, group: Group, dense: Sequence[LayerCost]) -> tuple[list[float], list[float]]:
        """Of each row how many input and output channels go with one of the group."""
        masks = {name: site.mask for name, site in self.sites.items() if site.mask is not None}
        own = [masks[name] for name in _names(group.members, "output") if name in masks]
        count = group.whole_steps(group.channels // 2)
        if not own or count == 0:
            return [0.0] * len(dense), [0.0] * len(dense)
        for mask in own:
            _drop_last(mask, count)
        follow_sources(masks)
        rows = self.rows()
        for mask in masks.values():
            mask.keep.fill_(True)
        pairs = list(zip(dense, rows, strict=True))
        inputs = [((a.channels_in_kept or 0) - (b.channels_in_kept or 0)) / count for a, b in pairs]
        outputs = [((a.channels_out_kept or 0) - (b.channels_out_kept or 0)) / count for a, b in pairs]
        return inputs, outputs


def _dense_of(net: nn.Module, rows: Sequence[LayerCost]) -> _Dense:
    modules: list[Any] = [net.get_submodule(row.path) for row in rows]
    weighted = [isinstance(module, WEIGHTED) for module in modules]
    weights = np.array([m.weight.numel() if w else 0 for m, w in zip(modules, weighted, strict=True)], dtype=float)
    macs = np.array([row.macs for row in rows], dtype=float)
    return _Dense(
        paths=tuple(row.path for row in rows),
        inputs=np.array([row.channels_in or 0 for row in rows], dtype=float),
        outputs=np.array([row.channels_out or 0 for row in rows], dtype=float),
        weights=weights,
        others=np.array([row.parameters for row in rows], dtype=float) - weights,
        uses=np.divide(macs, weights, out=np.zeros_like(macs), where=weights > 0),
        depthwise=np.array([1 < getattr(module, "groups", 1) == module.in_channels for module in modules]),
        scales=np.array([scale_bytes(module, 1) if w else 0 for module, w in zip(modules, weighted, strict=True)]),
    )
