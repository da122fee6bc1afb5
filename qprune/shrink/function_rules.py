"""Rules of functions in a network's own code: their channels are fixed, or those of their arguments."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qprune.flow import Call
from qprune.shrink.constants import Mode, channels, flattened, replay, unknown, zeros_alone
from qprune.shrink.positions import (
    has_free_tensor,
    pads_channels,
    pads_positions,
    pads_with,
    picks_positions,
    reduces_positions,
)
from qprune.shrink.rule import Rule

# Functions of one pixel: what they make of a constant channel is found by running them.
POINTWISE = (
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "silu", "gelu", "elu", "hardswish", "hardsigmoid",
    "hardtanh", "sigmoid", "tanh", "softplus", "selu", "celu", "mish", "logsigmoid", "softsign", "exp", "sqrt", "abs",
    "neg", "square", "pow", "__pow__", "clamp", "clamp_", "clamp_min", "clamp_max", "float", "half", "bfloat16",
    "double", "to", "clone", "contiguous", "detach", "add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_",
    "rsub", "__sub__", "__rsub__", "__isub__", "mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_",
    "__truediv__", "__itruediv__", "maximum", "minimum",
)  # fmt: skip
PRODUCTS = ("mul", "mul_", "__mul__", "__rmul__", "__imul__")
CONSTANT_KEEPING_FUNCTIONS = (
    "max_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d", "interpolate", "dropout", "dropout2d",
)  # fmt: skip
REDUCTIONS = ("mean", "sum", "amax", "amin")
SLICES = ("__getitem__", "chunk", "split", "narrow", "tensor_split")


class Pointwise(Rule):
    """Functions that treat each channel alone, of one tensor or of several of the same channels."""

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        self.reason = None

    def values(self, values: list[Tensor]) -> Tensor:
        """Run it on the constants."""
        result = replay(self.call, values)
        result = unknown(channels(self.call.shape)) if result is None else result
        for each in values:
            result = torch.where(each.isnan(), torch.nan, result)
        if self.call.name in PRODUCTS:
            for each in values:
                result = torch.where(each == 0, 0, result)
        return result

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """The same channels; all of an argument that is the same for all channels."""
        return [needed if len(needed) == channels(s) else super(Pointwise, self).wanted(needed)[i]
                for i, s in enumerate(self.call.shapes)]  # fmt: skip

    def closed(self, present: Tensor, arguments: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All have the same channels."""
        alike = [argument for argument in arguments if len(argument) == len(present)]
        both = torch.stack([present, *alike]).any(0)
        return both, [both if len(a) == len(present) else torch.ones_like(a) for a in arguments]


class ZeroKeeping(Pointwise):
    """Functions that treat each channel alone, and of which it is only known that zeros stay zero."""

    def values(self, values: list[Tensor]) -> Tensor:
        """Zeros."""
        return zeros_alone(values[0])


class ConstantKeeping(Pointwise):
    """Functions that treat each channel alone, and that make of one number at all positions the same number."""

    def values(self, values: list[Tensor]) -> Tensor:
        """The same."""
        return values[0]


class Joined(Rule):
    """`torch.cat` along channels."""

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        self.reason = None

    def values(self, values: list[Tensor]) -> Tensor:
        """One behind the other."""
        return torch.cat(values)

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """Each argument's own."""
        return list(needed.split([channels(shape) for shape in self.call.shapes]))

    def closed(self, present: Tensor, arguments: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The result is made of the arguments."""
        both = present | torch.cat(arguments)
        return both, self.wanted(both)


class Flattened(Rule):
    """Each channel becomes as many as it has positions."""

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        self.reason = None

    def values(self, values: list[Tensor]) -> Tensor:
        """Each value several times."""
        return values[0].repeat_interleave(self._positions(len(values[0])))

    def _positions(self, count: int) -> int:
        return channels(self.call.shape) // count

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """Channels of which any position is read."""
        return [needed.view(channels(self.call.shapes[0]), -1).any(1)]

    def closed(self, present: Tensor, arguments: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """A channel exists with all of its positions."""
        whole = arguments[0] | self.wanted(present)[0]
        return whole.repeat_interleave(self._positions(len(whole))), [whole]


class Widened(Rule):
    """`torch.nn.functional.pad` along channels: so many of one value around those that there are.

    The network's own code says how many, so they come whatever is cut before it; layers behind it pick what they want.
    """

    def __init__(self, call: Call, mode: Mode, before: int, behind: int) -> None:
        super().__init__(call, mode)
        self.reason = None
        self.before, self.behind = before, behind

    def _around(self, inner: Tensor, value: Any) -> Tensor:
        return F.pad(inner, (self.before, self.behind), value=value)

    def _inner(self, channels: Tensor) -> Tensor:
        return channels[self.before : len(channels) - self.behind]

    def values(self, values: list[Tensor]) -> Tensor:
        """The value, the channels, the value; of the channels zeros alone, which any value at the borders may end."""
        _, value = pads_with(self.call)
        return self._around(zeros_alone(values[0]) if value == 0 else unknown(len(values[0])), value)

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """Those between."""
        return [self._inner(needed)]

    def closed(self, present: Tensor, arguments: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All that it adds, around what there is."""
        both = self._inner(present) | arguments[0]
        return self._around(both, True), [both]


class Sliced(Rule):
    """Slices of tensors by numbers in the network's own code: what is cut before them must be put back."""

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        self.origin = replay(call, [torch.arange(channels(shape)).float() for shape in call.shapes])
        self.reason = f"{call.name}: the network's own code picks channels by number"

    def values(self, values: list[Tensor]) -> Tensor:
        """Those that are picked."""
        return super().values(values) if self.origin is None else values[0][self.origin.long()]

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """Those that are picked and read."""
        if self.origin is None:
            return super().wanted(needed)
        wanted = torch.zeros(channels(self.call.shapes[0]), dtype=torch.bool)
        wanted[self.origin.long()[needed]] = True
        return [wanted]


def function_rule(call: Call, mode: Mode) -> Rule:
    """The rule of a function; where nothing is known about it, one that demands everything."""
    first = call.shapes[0]
    alike = len(first) >= 2 and len(call.shape) == len(first)
    if call.concatenates():
        return Joined(call, mode)
    if flattened(call):
        return Flattened(call, mode)
    if has_free_tensor(call):
        return Rule(call, mode)
    if call.name in POINTWISE and _fits(call):
        return Pointwise(call, mode)
    kind = _channelwise_function(call)
    if kind is not None and len(call.shapes) == 1 and len(call.shape) >= 2 and first[1] == call.shape[1]:
        return kind(call, mode)
    around = pads_channels(call) if call.name == "pad" and len(call.shapes) == 1 else None
    if around is not None:
        return Widened(call, mode, *around)
    if call.name in SLICES and alike and len(call.shapes) == 1:
        return Sliced(call, mode)
    return Rule(call, mode)


def _channelwise_function(call: Call) -> type[Rule] | None:
    if call.name in CONSTANT_KEEPING_FUNCTIONS or picks_positions(call):
        return ConstantKeeping
    if call.name in REDUCTIONS and reduces_positions(call):
        return ZeroKeeping if call.name == "sum" else ConstantKeeping
    if call.name == "pad" and pads_positions(call):
        mode, value = pads_with(call)
        return ConstantKeeping if mode != "constant" else ZeroKeeping if value == 0 else None
    return ZeroKeeping if call.name == "avg_pool2d" else None


def _fits(call: Call) -> bool:
    counts = {channels(shape) for shape in call.shapes if len(shape) == len(call.shape)}
    whole = all(len(shape) in (0, len(call.shape)) for shape in call.shapes)
    return whole and len(call.shape) >= 2 and counts <= {1, call.shape[1]} and call.shape[1] in counts
