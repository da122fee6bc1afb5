"""`summarize`: counts the costs of a network, layer by layer and in total."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import torch
from attrs import evolve, frozen
from torch import nn

from qprune.costs.bits import FLOAT
from qprune.costs.density import performance_density, performance_density_legacy
from qprune.costs.layer_cost import LayerCost, layer_costs, summed, uncounted
from qprune.flow import Shape, host_picture, trace
from qprune.layers import sites
from qprune.tables import as_plain, bits_list, html_table, kept, short, table
from qprune.zoo import deployed

HEADER = ("layer", "type", "output", "in", "out", "parameters", "W bits", "A bits", "MACs", "bit ops", "packed")
RIGHT = "lllrrrrrrrr"


@frozen
class TotalCost:
    """The sums over a network's layers. ``kept`` counts are by the masks; the others are those of the dense network."""

    parameters: int  # elements of all parameters, shared ones once
    parameters_kept: int  # of these, the ones that kept channels use
    macs: int  # multiply-accumulates of one image
    macs_kept: int  # multiply-accumulates between kept channels
    bit_operations: int  # kept multiply-accumulates times weight bits times activation bits
    packed_bytes: int  # kept weights at their bits; biases, normalization and scales in float32
    features: int  # output elements of convolutions and linear layers, each counted once
    features_kept: int  # of these, the ones in kept channels
    features_with_norms: int  # as ``features``, outputs of normalizations included
    feature_bytes: int  # kept features at the bits at which they are stored
    megabytes: float  # ``(packed_bytes + feature_bytes) / 1e6``
    weight_bits: tuple[int, ...]  # the different bit widths of convolution and linear weights, rising; 32 is float
    activation_bits: tuple[int, ...]  # likewise, of what these layers read, the image apart
    sparsity: float  # share of channels that masks drop, over the masks of all sites (tied ones apart)
    metric: float | None = None  # the score handed to `summarize`
    performance_density: float | None = None  # see `qprune.costs.performance_density`
    # from ``parameters``, ``features_with_norms``, the fewest bits and ``sparsity``
    performance_density_legacy: float | None = None


@frozen
class Summary:
    """The costs of a network, layer by layer and in total; prints as a table.

    Attributes:
        input_size: shape of the image, without the batch.
        layers: one `LayerCost` per layer, in registration order.
        total: the sums.
        notes: what the numbers leave out, in sentences; usually empty.
    """

    input_size: Shape
    layers: tuple[LayerCost, ...]
    total: TotalCost
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain dicts, lists and numbers, ready for JSON."""
        return as_plain(self)

    def __str__(self) -> str:
        lines = [table(HEADER, self._rows(), right=RIGHT, footer=1), ""]
        return "\n".join([*lines, *_facts(self.total, self.input_size), *self.notes])

    def _rows(self) -> list[list[str]]:
        return [*map(_cells, self.layers), _total_cells(self.total)]

    def __repr__(self) -> str:
        total = self.total
        counted = f"{len(self.layers)} layers, {total.parameters_kept:,} of {total.parameters:,} parameters"
        return f"Summary({counted}, {short(total.macs_kept)} MACs, {short(total.packed_bytes, 'B')})"

    def _repr_html_(self) -> str:
        facts = "".join(f"<p>{escape(line)}</p>" for line in (*_facts(self.total, self.input_size), *self.notes))
        return html_table(HEADER, self._rows(), right=RIGHT) + facts


def summarize(net: nn.Module, input_size: Shape = (3, 32, 32), metric: float | None = None) -> Summary:
    """Count what ``net`` costs for one image, as it is now: by its masks, and at the bits of its active quantizers.

    A copy of the network runs once on the meta device; it is not changed in any way. Of a network that trains more
    than is used afterwards (a generator and its discriminator) only the used part counts, see `qprune.zoo.deployed`.

    - MACs are the multiply-accumulates of convolutions and linear layers at batch 1, products with padding included; no
      bias, no normalization, no activation, no pooling, no matrix products outside of layers. One MAC is two of the
      operations that `torch.utils.flop_counter` counts.
    - A channel is kept unless masks make it a zero that no further training changes, or nobody reads it. So a mask on a
      tensor also relieves the layers on both of its sides, through activations, pooling, normalization, sums and
      concatenation, wherever all readers agree. What shrinking could not cut (around functions that it does not know,
      hooks, layers that are called several times) is kept. Indices are not counted.
    - Bit operations are kept MACs times weight bits times the bits of the tensor that the layer reads; float counts as
      32 bits, whatever its dtype. A quantizer that is not active yet counts as float, and a note says so.
    - Packed bytes are kept weights at their bits, rounded up to whole bytes per layer, plus biases, normalization
      parameters and scales in float32. Running statistics are not counted.
    - Performance density is ``metric / megabytes`` with ``megabytes = (packed bytes + kept output activations of
      convolutions and linear layers, each counted once, at the bits at which they are stored) / 1e6``. The legacy
      figure beside it is per Mbit, with one global sparsity and double-counted features; see
      `performance_density_legacy`.

    Args:
        net: any network of one input, dense or compressed, on any device.
        input_size: shape of one image, ``(C, H, W)``, without the batch.
        metric: a score of the network, for the performance density.

    Raises:
        PlanError: if the network does not accept an image of this size, or cannot run without data.

    Example:
        >>> summarize(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), input_size=(3, 5, 7)).total.macs
        3240
    """
    net = host_picture(deployed(net))
    dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
    flow = trace(net, torch.zeros(1, *input_size, dtype=dtype, device="meta"))
    rows = layer_costs(net, flow)
    notes = (*_inactive(net), *uncounted(flow, rows))
    return Summary(tuple(input_size), rows, _total(rows, _sparsity(net), metric), notes)


def _inactive(net: nn.Module) -> Iterator[str]:
    names = [site.name for site in sites(net) if site.quant is not None and not bool(site.quant.active)]
    if names:
        yield f"{len(names)} quantizers do not quantize yet and count as float ({names[0]} is the first)."


def _sparsity(net: nn.Module) -> float:
    masks = [site.mask for site in sites(net) if site.mask is not None and not site.mask.ranking.follows]
    channels = sum(mask.channels for mask in masks)
    dropped = sum(mask.channels - int(mask.keep.sum()) for mask in masks)
    return dropped / channels if channels else 0.0


def _total(rows: Sequence[LayerCost], sparsity: float, metric: float | None) -> TotalCost:
    weighted = [row for row in rows if row.weight_bits is not None]
    packed, stored = summed(rows, "packed_bytes"), summed(rows, "feature_bytes")
    total = TotalCost(
        **{
            name: summed(rows, name)
            for name in ("parameters", "parameters_kept", "macs", "macs_kept", "bit_operations")
        },
        packed_bytes=packed,
        features=summed(weighted, "features"),
        features_kept=summed(weighted, "features_kept"),
        features_with_norms=summed(rows, "features"),
        feature_bytes=stored,
        megabytes=(packed + stored) / 1e6,
        weight_bits=_different(weighted, "weight_bits"),
        activation_bits=_different([row for row in weighted if not row.reads_image], "activation_bits"),
        sparsity=sparsity,
    )
    return total if metric is None else _with_densities(total, float(metric))


def _different(rows: Sequence[LayerCost], name: str) -> tuple[int, ...]:
    return tuple(sorted({getattr(row, name) for row in rows if row.output_shape is not None}))


def _with_densities(total: TotalCost, metric: float) -> TotalCost:
    if not total.megabytes:
        return evolve(total, metric=metric)
    legacy = performance_density_legacy(
        metric,
        weights=total.parameters,
        features=total.features_with_norms,
        weight_bits=min(total.weight_bits, default=FLOAT),
        feature_bits=min(total.activation_bits, default=FLOAT),
        weight_sparsity=total.sparsity,
        feature_sparsity=total.sparsity,
    )
    density = performance_density(metric, total.megabytes)
    return evolve(total, metric=metric, performance_density=density, performance_density_legacy=legacy)


def _cells(row: LayerCost) -> list[str]:
    return [
        row.path or "(network)",
        row.type,
        "-" if row.output_shape is None else "x".join(map(str, row.output_shape[1:])) or "1",
        kept(row.channels_in_kept, row.channels_in),
        kept(row.channels_out_kept, row.channels_out),
        kept(row.parameters_kept, row.parameters),
        "" if row.weight_bits is None else str(row.weight_bits),
        "" if row.activation_bits is None else str(row.activation_bits),
        "" if row.weight_bits is None else short(row.macs_kept),
        "" if row.weight_bits is None else short(row.bit_operations),
        short(row.packed_bytes, "B"),
    ]


def _total_cells(total: TotalCost) -> list[str]:
    bits = [bits_list(total.weight_bits), bits_list(total.activation_bits)]
    costs = [short(total.macs_kept), short(total.bit_operations), short(total.packed_bytes, "B")]
    return ["total", "", "", "", "", kept(total.parameters_kept, total.parameters), *bits, *costs]


def _facts(total: TotalCost, input_size: Shape) -> Iterator[str]:
    share = 100 * total.parameters_kept / max(1, total.parameters)
    size = "x".join(map(str, input_size))
    yield f"Parameters kept: {total.parameters_kept:,} of {total.parameters:,} ({share:.1f} %)."
    yield f"MACs for one image of {size}: {short(total.macs_kept)} by the masks, {short(total.macs)} dense."
    yield f"Memory: {short(total.packed_bytes, 'B')} of weights and {short(total.feature_bytes, 'B')} of activations."
    if total.performance_density is not None:
        yield f"Performance density: {total.performance_density:.4g} per MB (metric {total.metric:.4g})."
        yield f"Legacy performance density: {total.performance_density_legacy:.4g} per Mbit, features counted twice."
