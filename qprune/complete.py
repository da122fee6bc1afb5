"""Finds layers that do not read integers, and the quantizers that would make them."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from qprune.flow import ELEMENTWISE, Call, Flow
from qprune.layers import Compressed, FakeQuant, sites
from qprune.selection import Filling, not_a_host
from qprune.zoo import Add, Concat

BITS = 8
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
RECTIFIERS = (nn.ReLU, nn.ReLU6)
# What moves numbers about and makes no new ones: behind it they lie on the grid that they lay on before.
MOVING = (
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.ZeroPad2d,
    nn.ReflectionPad2d, nn.ReplicationPad2d,
)  # fmt: skip
# What computes with real numbers, and reads many of them for one.
SUMMARIZING = (nn.InstanceNorm2d, nn.GroupNorm, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample)
REAL = tuple(kind for kind in ELEMENTWISE if not issubclass(kind, (*RECTIFIERS, nn.LeakyReLU, *MOVING)))
MOVING_FUNCTIONS = (
    "relu", "relu_", "relu6", "dropout", "max_pool2d", "flatten", "view", "reshape", "permute", "transpose",
    "contiguous", "__getitem__", "chunk", "split", "unsqueeze", "squeeze",
)  # fmt: skip


def without_integers(flow: Flow) -> list[str]:
    """Paths of convolutions and linear layers with quantized weights that read numbers of no quantizer of one range.

    Example:
        >>> from qprune.flow import trace
        >>> net = nn.Sequential(QuantConv2d(3, 4, 1), QuantConv2d(4, 2, 1, at="output"))
        >>> without_integers(trace(net, torch.zeros(1, 3, 5, 7)))
        ['1']
    """
    return [str(call.path) for call in quantized_layers(flow) if input_quant(flow, call) is None]


def like_the_others(net: nn.Module) -> dict[str, Any]:
    """Options of quantizers that are added to a network: they start with those of activations, else with the first.

    Empty if there is no quantizer.

    Example:
        >>> like_the_others(QuantConv2d(3, 4, 1, schedule=QuantizeFrom(5)))
        {'numerics': 'default', 'schedule': QuantizeFrom(start=5, measure=100)}
    """
    quants = [(site.side, site.quant) for site in sites(net) if site.quant is not None]
    first = [quant for side, quant in quants if side != "weight"] or [quant for _, quant in quants]
    return {"numerics": first[0].numerics, "schedule": first[0].schedule} if first else {}


def missing_quantizers(flow: Flow, options: dict[str, Any]) -> list[Filling]:
    """Quantizers that give integers to every convolution and linear layer with quantized weights, to sums and joints.

    They go to the output of the layer that makes the tensor, where it can have a site, so that all of its readers share
    one; else to the input of the convolution that reads it. Sums and concatenations need them for what they read, and
    for their result, unless all that read it quantize it themselves. So does what instance and group normalizations,
    averages and bilinear resizing read: else the convolution before them would add up integers and hand on real
    numbers, which takes longer.

    Example:
        >>> from qprune.flow import trace
        >>> net = nn.Sequential(QuantConv2d(3, 4, 1), QuantConv2d(4, 2, 1, at="output"))
        >>> [filling.path for filling in missing_quantizers(trace(net, torch.zeros(1, 3, 5, 7)), {})]
        ['0']
    """
    found: dict[tuple[str, str], Filling] = {}
    for path, side, channels in _gaps(flow):
        needs = {} if channels is None else {"channels": channels}
        found.setdefault((path, side), Filling(path, side, "quant", options | {"bits": BITS} | needs))
    return list(found.values())


def _gaps(flow: Flow) -> Iterator[tuple[str, str, int | None]]:
    for call in flow.calls:
        places = [_output_site(flow, index) for index in _unquantized(flow, call)]
        yield from (place for place in places if place is not None)
    for call in quantized_layers(flow):
        if input_quant(flow, call) is None:
            place = _output_site(flow, call.inputs[0])
            yield place or (str(call.path), "input", None)


def _unquantized(flow: Flow, call: Call) -> Iterator[int]:
    """What a layer that is no convolution reads or makes, is to be integers, and is none."""
    joins = isinstance(call.layer, (Add, Concat))
    if joins or (isinstance(call.layer, SUMMARIZING) and not _moves(call)):
        yield from (index for index in call.inputs if _grid(flow, index) is None and (joins or not _real(flow, index)))
    by_readers = call.index not in flow.outputs and all(_quantizes(flow, reader) for reader in flow.readers(call))
    if joins and _grid(flow, call.index) is None and not by_readers:
        yield call.index


def _real(flow: Flow, index: int) -> bool:
    """Whether numbers come from an activation that computes with real ones, and can be summarized as such."""
    while index >= 0 and _moves(flow.calls[index]):
        index = flow.calls[index].inputs[0]
    return index >= 0 and isinstance(flow.calls[index].layer, REAL)


def quantized_layers(flow: Flow) -> Iterator[Call]:
    """The calls of convolutions and linear layers that have a quantizer at their weight.

    Example:
        >>> from qprune.flow import trace
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), QuantConv2d(4, 2, 1))
        >>> [call.path for call in quantized_layers(trace(net, torch.zeros(1, 3, 5, 7)))]
        ['1']
    """
    for call in flow.calls:
        layer = call.layer
        if isinstance(layer, WEIGHTED) and isinstance(layer, Compressed) and _quant(layer, "weight") is not None:
            yield call


def _quant(layer: Any, side: str) -> FakeQuant | None:
    return layer.slot(side, "quant") if isinstance(layer, Compressed) and side in layer.sides else None


def input_quant(flow: Flow, call: Call) -> FakeQuant | None:
    """The quantizer, of one range, of the numbers that a layer reads; None if there is none.

    Example:
        >>> from qprune.flow import trace
        >>> flow = trace(nn.Sequential(QuantConv2d(3, 4, 1, act_bits=4)), torch.zeros(1, 3, 5, 7))
        >>> input_quant(flow, flow.calls[0]).bits
        4
    """
    own = _quant(call.layer, "input")
    if own is not None:
        return own if own.channels is None else None
    return _grid(flow, call.inputs[0])


def _grid(flow: Flow, index: int) -> FakeQuant | None:
    """The quantizer on whose grid the result of a call lies."""
    if index < 0:
        return None
    call = flow.calls[index]
    own = _quant(call.layer, "output")
    if own is not None:
        return own if own.channels is None else None
    return _grid(flow, call.inputs[0]) if _moves(call) or isinstance(call.layer, RECTIFIERS) else None


def _moves(call: Call) -> bool:
    if len(call.inputs) != 1 or call.layer is None:
        return len(call.inputs) == 1 and call.name in MOVING_FUNCTIONS
    return isinstance(call.layer, MOVING) or (isinstance(call.layer, nn.Upsample) and call.layer.mode == "nearest")


def _quantizes(flow: Flow, call: Call) -> bool:
    """Whether a layer rounds what it reads before anything else."""
    if isinstance(call.layer, RECTIFIERS):
        return _grid(flow, call.index) is not None
    return _quant(call.layer, "input") is not None


def _output_site(flow: Flow, index: int) -> tuple[str, str, int | None] | None:
    """The site at the output of the layer that made these numbers, if it can have one."""
    while index >= 0 and flow.calls[index].layer is not None and _moves(flow.calls[index]):
        index = flow.calls[index].inputs[0]
    if index < 0 or flow.calls[index].layer is None or _quant(flow.calls[index].layer, "output") is not None:
        return None
    call = flow.calls[index]
    if not_a_host(call.layer) or len(flow.of(str(call.path))) != 1:  # type: ignore[arg-type]
        return None
    channels = None if isinstance(call.layer, WEIGHTED) else call.count
    return str(call.path), "output", channels
