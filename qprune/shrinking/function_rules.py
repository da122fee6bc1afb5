"""Rules of functions in a network's own code: their channels are fixed, or those of their arguments."""

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qprune.flow import Call, Given, reduced_dims
from qprune.flow.layouts import FIRST, REDUCING, ZERO
from qprune.shrinking.constants import Mode, flattened, replay, unknown, zeros_alone
from qprune.shrinking.positions import (
    free_tensors,
    has_free_tensor,
    pads_channels,
    pads_positions,
    pads_with,
    picks_positions,
)
from qprune.shrinking.rule import Rule

# Functions of one pixel: what they make of a constant channel is found by running them.
POINTWISE = (
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "silu", "gelu", "elu", "hardswish", "hardsigmoid",
    "hardtanh", "sigmoid", "tanh", "softplus", "selu", "celu", "mish", "logsigmoid", "softsign", "exp", "sqrt", "abs",
    "neg", "square", "pow", "__pow__", "clamp", "clamp_", "clamp_min", "clamp_max", "float", "half", "bfloat16",
    "double", "to", "clone", "contiguous", "detach", "add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_",
    "rsub", "__sub__", "__rsub__", "__isub__", "mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_",
    "__truediv__", "__itruediv__", "maximum", "minimum", "prelu", "sigmoid_", "tanh_", "rsqrt", "reciprocal", "log",
    "sin", "cos", "erf", "sign", "floor", "ceil", "round", "addcmul", "addcdiv", "lerp", "where", "hardshrink",
    "softshrink", "tanhshrink", "threshold", "type", "type_as", "float_power", "nan_to_num", "masked_fill",
)  # fmt: skip
PRODUCTS = ("mul", "mul_", "__mul__", "__rmul__", "__imul__")
CONSTANT_KEEPING_FUNCTIONS = (
    "max_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d", "interpolate", "dropout", "dropout2d",
)  # fmt: skip
# Reductions of one number at several positions that give the same number.
MEANS = ("mean", "amax", "amin")
# Functions that do not count what they move.
TURNING = ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis")
SLICES = ("__getitem__", "chunk", "split", "narrow", "tensor_split")


class Pointwise(Rule):
    """Functions that treat each channel alone, of one tensor or of several of the same channels.

    A parameter or a buffer among these has a number for each channel, and keeps it: nothing here cuts that. Then the
    channels are fixed, and only who makes them and who reads them can do without some.
    """

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        self.fixed = not _for_all_channels(call)
        self.reason = f"{call.name}: a parameter or a buffer has a number for each channel" if self.fixed else None

    def values(self, values: list[Tensor]) -> Tensor:
        """Run it on the constants."""
        result = replay(self.call, values)
        result = unknown(self.call.count) if result is None else result
        for each in values:
            result = torch.where(each.isnan(), torch.nan, result)
        if self.call.name in PRODUCTS:
            for each in values:
                result = torch.where(each == 0, 0, result)
        return result

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """The same channels; all of an argument that is the same for all channels."""
        whole = super().wanted(needed)
        return [needed if len(needed) == len(each) else each for each in whole]

    def closed(self, present: Tensor, arguments: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All have the same channels."""
        if self.fixed:
            return super().closed(present, arguments)
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
        return list(needed.split(self.call.counts))

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
        return self.call.count // count

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """Channels of which any position is read."""
        return [needed.view(self.call.counts[0], -1).any(1)]

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


class Moved(Rule):
    """Functions that move channels by numbers in the network's own code, wherever to: what is cut must be put back."""

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        verb = "picks" if call.name in SLICES else "moves"
        self.reason = f"{call.path or call.name}: the network's own code {verb} channels by number"
        assert call.moves is not None
        self.moves = call.moves
        self.turns = call.name in TURNING and self._is_one_to_one()
        if self.turns:
            self.reason = None

    def _is_one_to_one(self) -> bool:
        origin = self.moves.origin
        if origin is None or len(self.call.counts) != 1:
            return False
        return torch.equal(origin.sort().values, torch.arange(FIRST, self.moves.count))

    def values(self, values: list[Tensor]) -> Tensor:
        """Those that are moved there: one constant, if all of a channel is that one."""
        _, put_in = pads_with(self.call) if self.call.name == "pad" else ("", 0.0)
        numbers = torch.full((FIRST,), torch.nan)
        numbers[ZERO] = put_in
        numbers = torch.cat([numbers, *values])
        if self.moves.origin is not None:
            return numbers[self.moves.origin]
        assert self.moves.table is not None
        held, known = self.moves.table, numbers.nan_to_num()
        least = torch.where(held, known, torch.inf).amin(1)
        most = torch.where(held, known, -torch.inf).amax(1)
        anything = (held & numbers.isnan()).any(1)
        return torch.where(anything | (least != most), torch.nan, most)

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """Those of which something is moved to where it is read."""
        wanted = torch.zeros(self.moves.count, dtype=torch.bool)
        if self.moves.origin is not None:
            wanted[self.moves.origin[needed]] = True
        else:
            assert self.moves.table is not None
            wanted = self.moves.table[needed].any(0)
        return list(wanted[FIRST:].split(self.call.counts))

    def closed(self, present: Tensor, arguments: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All of them; what only turns dimensions counts none."""
        if not self.turns or self.moves.origin is None:
            return super().closed(present, arguments)
        origin, both = self.moves.origin - FIRST, arguments[0].clone()
        both[origin[present]] = True
        return both[origin], [both]


class Gated(Rule):
    """`torch.nn.functional.glu` along channels: the first half, each times a function of its channel in the second."""

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        self.reason = f"{call.path or call.name}: the network's own code picks channels by number"

    def values(self, values: list[Tensor]) -> Tensor:
        """Zeros of the first half."""
        return zeros_alone(values[0][: self.call.count])

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """Both halves."""
        return [torch.cat([needed, needed])]


class Reduced(Rule):
    """Reductions of some of the dimensions of channels that lie along several."""

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        self.reason = f"{call.name}: the network's own code splits channels by number"
        self.sides = [call.shapes[0][dim] for dim in call.layouts[0]]
        gone = reduced_dims(call)
        self.gone = tuple(place for place, dim in enumerate(call.layouts[0]) if dim in gone)

    def values(self, values: list[Tensor]) -> Tensor:
        """Zeros, of zeros alone."""
        zeros = (values[0] == 0).view(self.sides)
        for place in reversed(self.gone):
            zeros = zeros.all(place)
        return torch.where(zeros.flatten(), 0.0, torch.nan)

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """All that a channel which is read is made of."""
        left = [1 if place in self.gone else side for place, side in enumerate(self.sides)]
        return [needed.view(left).expand(self.sides).flatten()]


def function_rule(call: Call, mode: Mode) -> Rule:
    """The rule of a function; where nothing is known about it, one that demands everything."""
    usual = call.layout == (1,) and all(layout == (1,) for layout in call.layouts)
    if usual and call.concatenates():
        return Joined(call, mode)
    if usual and flattened(call):
        return Flattened(call, mode)
    if call.name in POINTWISE and _fits(call):
        return Pointwise(call, mode)
    if has_free_tensor(call):
        return Moved(call, mode) if call.moves is not None else Rule(call, mode)
    kind = _channelwise_function(call, usual)
    if kind is not None and len(call.shapes) == 1 and len(call.shape) >= 2 and call.counts[0] == call.count:
        return kind(call, mode)
    if call.name in REDUCING and len(call.shapes) == 1 and _keeps_some(call):
        return Reduced(call, mode)
    around = pads_channels(call) if usual and call.name == "pad" and len(call.shapes) == 1 else None
    if around is not None:
        return Widened(call, mode, *around)
    if call.moves is not None:
        return Moved(call, mode)
    if (
        call.name == "glu"
        and call.layouts[0] == call.layout
        and call.counts[0] == 2 * call.count
        and len(call.layout) == 1
    ):
        return Gated(call, mode)
    return Rule(call, mode)


def _channelwise_function(call: Call, usual: bool) -> type[Rule] | None:
    if call.name in ("dropout",) or (usual and (call.name in CONSTANT_KEEPING_FUNCTIONS or picks_positions(call))):
        return ConstantKeeping
    if call.name in REDUCING and not _mixed(call):
        return ConstantKeeping if call.name in MEANS else ZeroKeeping if call.name in ("sum", "norm") else None
    if usual and call.name == "pad" and pads_positions(call):
        mode, value = pads_with(call)
        return ConstantKeeping if mode != "constant" else ZeroKeeping if value == 0 else None
    return ZeroKeeping if usual and call.name == "avg_pool2d" else None


def _mixed(call: Call) -> bool:
    """Whether a reduction makes one number of several channels or images."""
    dims = reduced_dims(call)
    return not dims or bool({0, *call.layouts[0]} & set(dims))


def _keeps_some(call: Call) -> bool:
    """Whether a reduction leaves one of the dimensions of its channels, and the images."""
    dims = set(reduced_dims(call))
    left = [call.shapes[0][dim] for dim in call.layouts[0] if dim not in dims]
    return call.name in ("sum", *MEANS) and bool(dims) and 0 not in dims and bool(left) and prod(left) == call.count


def _for_all_channels(call: Call) -> bool:
    """Whether the parameters and buffers among its arguments hold no number for a channel of its own."""
    if call.name == "prelu":  # whose numbers lie along dimension 1, as those of no broadcast
        return all(given.shape == (1,) for given in free_tensors(call))
    return all(_side(given, dim - len(call.shape)) == 1 for given in free_tensors(call) for dim in call.layout)


def _side(given: Given, dim: int) -> int:
    return given.shape[dim] if len(given.shape) >= -dim else 1


def _fits(call: Call) -> bool:
    rank = len(call.shape)
    whole = [slot for slot, shape in enumerate(call.shapes) if len(shape) == rank]
    counts = {call.counts[slot] for slot in whole}
    known = all(len(shape) in (0, rank) for shape in call.shapes)
    alike = all(call.layouts[slot] == call.layout for slot in whole)
    small = all(len(given.shape) <= rank for given in free_tensors(call))
    return known and alike and small and rank >= 2 and counts <= {1, call.count} and call.count in counts
