"""Follows the bit widths of tensors through a network, from quantizers to the layers that read them."""

from math import prod
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from qprune.flow import NORMS, Call, Flow
from qprune.layers import FakeQuant

FLOAT = 32
WEIGHTED = (_ConvNd, nn.Linear)
RESHAPES = ("Flatten", "flatten", "view", "reshape", "squeeze")

# What leaves these is on the grid of what entered them.
ON_GRID = (nn.ReLU, nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.ZeroPad2d, nn.ReflectionPad2d)
ON_GRID_FUNCTIONS = ("relu", "relu_", "dropout", "max_pool2d", "contiguous")
ACTIVATIONS = (nn.ReLU6, nn.LeakyReLU)
ACTIVATION_FUNCTIONS = ("relu6", "leaky_relu")


def slot_bits(layer: Any, side: str) -> int | None:
    """Bits of the active quantizer at ``side`` of ``layer``; None where there is none, or it does not quantize yet."""
    quant = getattr(layer, f"{side}_quant", None)
    return quant.bits if isinstance(quant, FakeQuant) and bool(quant.active) else None


def arriving_bits(flow: Flow) -> list[int]:
    """The bits of each call's first argument as its arithmetic sees it, the quantizer at its own input included.

    A quantized tensor stays so through what is on its grid, and through concatenation at the most bits among its parts.
    """
    made: list[int] = []
    arriving = []
    for call in flow.calls:
        sources = [made[maker] if maker >= 0 else FLOAT for maker in call.inputs]
        arriving.append(slot_bits(call.layer, "input") or sources[0])
        through = max(sources) if call.concatenates() else sources[0] if _on_grid(call) else FLOAT
        made.append(slot_bits(call.layer, "output") or through)
    return arriving


def stored_bits(flow: Flow) -> list[int]:
    """The bits at which each call's result is kept: those of the quantizer that every reader meets first, else float.

    Normalization, activation, max pooling and concatenation run before a tensor is written, so these are looked past.
    """
    demands: list[list[int]] = [[] for _ in flow.calls]
    for index in flow.outputs:
        if index >= 0:
            demands[index].append(FLOAT)
    stored = [FLOAT] * len(flow.calls)
    for call in reversed(flow.calls):
        stored[call.index] = slot_bits(call.layer, "output") or max(demands[call.index], default=FLOAT)
        for maker in call.inputs:
            if maker >= 0:
                demands[maker].append(_demand(call, stored[call.index]))
    return stored


def _demand(call: Call, stored: int) -> int:
    if isinstance(call.layer, WEIGHTED):
        return slot_bits(call.layer, "input") or FLOAT
    rectifies = isinstance(call.layer, ACTIVATIONS) or (call.layer is None and call.name in ACTIVATION_FUNCTIONS)
    fused = isinstance(call.layer, NORMS) or rectifies or call.concatenates() or _on_grid(call)
    return stored if fused else FLOAT


def _on_grid(call: Call) -> bool:
    if call.layer is None:
        return call.name in ON_GRID_FUNCTIONS or _flattens(call)
    return isinstance(call.layer, ON_GRID) or _flattens(call)


def _flattens(call: Call) -> bool:
    # (N, C, ...) to (N, C * ...)
    if call.name not in RESHAPES or len(call.shapes[0]) < 2 or len(call.shape) != 2:
        return False
    return call.shape == (call.shapes[0][0], prod(call.shapes[0][1:]))
