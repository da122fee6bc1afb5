"""One rule per kind of operation: which of its channels are constant, which it reads, and what of it can be cut."""

from typing import Any

import torch
from torch import Tensor, nn

from qprune.flow import Call, Given
from qprune.layers import ALIGNED, CHANNELWISE, HOSTS, Align, Aligned, ChannelMask, Compressed
from qprune.shrink.constants import Mode, as_image, channels, compressed, flattened, replay, unknown, zeros_alone
from qprune.shrink.positions import has_free_tensor, pads_positions, pads_with, picks_positions, reduces_positions
from qprune.zoo import Add, Concat

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
# What is the same at every position stays so; no values are put at the borders, or minus infinity.
CONSTANT_KEEPING = (
    nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, nn.ReflectionPad2d, nn.ReplicationPad2d,
    nn.Dropout, nn.Dropout2d, nn.Identity,
)  # fmt: skip
CONSTANT_KEEPING_FUNCTIONS = (
    "max_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d", "interpolate", "dropout", "dropout2d",
)  # fmt: skip
REDUCTIONS = ("mean", "sum", "amax", "amin")
SLICES = ("__getitem__", "chunk", "split", "narrow", "tensor_split")


class Rule:
    """What is known about one call; this one knows nothing.

    Attributes:
        call: the call.
        movable: whether it is a layer that can be cut, and that can gather and scatter.
        reason: why the channels around it must all stay, if they must.
    """

    movable = False

    def __init__(self, call: Call, mode: Mode) -> None:
        self.call, self.mode = call, mode
        self.reason: str | None = f"{call.path or call.name}: what {call.name} does to channels is not known"

    def values(self, values: list[Tensor]) -> Tensor:
        """The channels of the result, given those of each argument; see `qprune.shrink.constants`."""
        return unknown(channels(self.call.shape))

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """Which channels of each argument are read, given those of the result that are."""
        return [torch.ones(channels(shape), dtype=torch.bool) for shape in self.call.shapes]

    def closed(self, present: Tensor, arguments: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What must exist of the result and of the arguments, given what must exist at least.

        Of functions alone: a layer that is `movable` adapts to anything.
        """
        return torch.ones_like(present), [torch.ones_like(argument) for argument in arguments]


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


class Layer(Rule):
    """A layer that can be cut. Where it is `Aligned` already, its own channels are others than those of its tensors.

    Attributes:
        layer: the layer.
        open: whether one of its masks may still change.
    """

    movable = True

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        self.reason = None
        self.layer: Any = call.layer
        self.entered: list[Tensor] = []
        self.open = any(self._open(side) for side in self._sides())

    def entering(self, values: list[Tensor]) -> list[Tensor]:
        """What the layer itself is given: the arguments, aligned."""
        if not isinstance(self.layer, Aligned):
            return values
        aligns = self.layer.arguments
        return [_aligned(v, a) if isinstance(a, Align) else v for v, a in zip(values, aligns, strict=True)]

    def values(self, values: list[Tensor]) -> Tensor:
        """The result of the layer itself, aligned."""
        self.entered = self.entering(values)
        self.made = self.own(self.entered)
        if self.mode.training:
            self.made = zeros_alone(self.made)
        result = self.layer.result if isinstance(self.layer, Aligned) else None
        return self.made if result is None else _aligned(self.made, result)

    def own(self, values: list[Tensor]) -> Tensor:
        """The channels that the layer itself makes."""
        raise NotImplementedError

    def kept(self, needed: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Which of the layer's own output and input channels stay, given those of its result that are read."""
        outputs = self._outputs(needed)
        return self.inputs_for(outputs) if outputs.any() else self.least()

    def idle(self, needed: Tensor) -> bool:
        """Whether nothing that the layer itself computes is read, now or when its masks have changed."""
        return not self._outputs(needed).any() and not self.open

    def _outputs(self, needed: Tensor) -> Tensor:
        outputs = self._own_needed(needed) & self.made.isnan()
        return torch.ones_like(outputs) if self._open("output") else outputs

    def least(self) -> tuple[Tensor, list[Tensor]]:
        """What stays where nothing is read: torch has no layers without channels."""
        return self.inputs_for(at_least_one(torch.zeros(len(self.made), dtype=torch.bool)))

    def inputs_for(self, outputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Which output channels stay, with those that cannot go alone, and which input channels they take."""
        return outputs, [outputs for _ in self.call.shapes]

    def _own_needed(self, needed: Tensor) -> Tensor:
        result = self.layer.result if isinstance(self.layer, Aligned) else None
        if result is None:
            return needed
        own = torch.zeros(len(self.made), dtype=torch.bool)
        index = _index(result)
        own[index[needed & (index >= 0)]] = True
        return own

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """The channels behind the inputs that stay, but for constants, which a layer can make itself."""
        if self.idle(needed):
            return [torch.zeros(channels(shape), dtype=torch.bool) for shape in self.call.shapes]
        _, inputs = self.kept(needed)
        return [self._read(slot, stay) for slot, stay in enumerate(inputs)]

    def _read(self, slot: int, stay: Tensor) -> Tensor:
        wanted = torch.zeros(channels(self.call.shapes[slot]), dtype=torch.bool)
        wanted[self.sources(slot)[stay & self.entered[slot].isnan()]] = True
        return wanted

    def sources(self, slot: int) -> Tensor:
        """For each input channel of the layer itself the argument's channel; -1 for a constant."""
        align = self.layer.arguments[slot] if isinstance(self.layer, Aligned) else None
        if isinstance(align, Align):
            return _index(align)
        return torch.arange(channels(self.call.shapes[slot]))

    def targets(self) -> Tensor:
        """For each channel of the result the output channel of the layer itself; -1 for a constant."""
        result = self.layer.result if isinstance(self.layer, Aligned) else None
        return torch.arange(channels(self.call.shape)) if result is None else _index(result)

    def slot(self, side: str, kind: str) -> Any:
        """The mask or quantizer at a side, or None."""
        return self.layer.slot(side, kind) if side in self._sides() else None

    def settled_masks(self) -> tuple[str, ...]:
        """The sides whose masks never change again: what stays is cut to what they keep."""
        return tuple(side for side in self._sides() if self.slot(side, "mask") is not None and not self._open(side))

    def _sides(self) -> tuple[str, ...]:
        return self.layer.sides if isinstance(self.layer, Compressed) else ()

    def _open(self, side: str) -> bool:
        mask: ChannelMask | None = self.slot(side, "mask")
        return mask is not None and not self.mode.settled(mask)

    def _at(self, side: str, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        return compressed(values, shape, self.slot(side, "mask"), self.slot(side, "quant"), self.mode)


def _index(align: Align) -> Tensor:
    return torch.tensor(align.index, dtype=torch.int64)  # of no channels at all, too


def _aligned(values: Tensor, align: Align) -> Tensor:
    index = _index(align)
    picked = values[index.clamp(min=0)] if len(values) else unknown(len(index))
    return torch.where(index >= 0, picked, torch.tensor(align.fill))


def at_least_one(channels: Tensor) -> Tensor:
    """The same, with the first channel if there would be none: torch has no layers without channels.

    Example:
        >>> at_least_one(torch.tensor([False, False]))
        tensor([ True, False])
    """
    if channels.any():
        return channels
    one = torch.zeros_like(channels)
    one[:1] = True
    return one


class Summed(Layer):
    """`qprune.zoo.Add`."""

    def own(self, values: list[Tensor]) -> Tensor:
        """The sums."""
        return self._at("output", torch.stack(values).sum(0), self.call.shape)


class Concatenated(Layer):
    """`qprune.zoo.Concat` along channels."""

    def own(self, values: list[Tensor]) -> Tensor:
        """One behind the other."""
        return self._at("output", torch.cat(values), self.call.shape)

    def inputs_for(self, outputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Each argument's own."""
        return outputs, list(outputs.split([len(each) for each in self.entered]))


class Channelwise(Layer):
    """Layers that treat each channel alone."""

    def own(self, values: list[Tensor]) -> Tensor:
        """Run it on the constants, where that tells what it does to them."""
        return self._at("output", self._alone(values[0]), self.call.shape)

    def _alone(self, values: Tensor) -> Tensor:
        layer = self.layer
        if isinstance(layer, nn.modules.batchnorm._NormBase):
            return self._normalized(values)
        if isinstance(layer, nn.GroupNorm):
            return self._group_normalized(values)
        if isinstance(layer, CONSTANT_KEEPING):
            return values
        if isinstance(layer, nn.AvgPool2d):
            return values if _averages_values_alone(layer) else zeros_alone(values)
        if isinstance(layer, nn.ZeroPad2d):
            return zeros_alone(values)
        result = _plain(layer).forward(layer, as_image(values.clone(), self.call.shape)).detach().flatten()
        return torch.where(values.isnan(), torch.nan, result)

    def _normalized(self, values: Tensor) -> Tensor:
        layer = self.layer
        if layer.track_running_stats and not self.mode.training:
            scale, shift = scale_and_shift(layer)
            return torch.where(scale == 0, shift, values * scale + shift)
        if layer.track_running_stats or (layer.affine and self.mode.training):
            return unknown(len(values))
        shift = torch.zeros_like(values) if layer.bias is None else layer.bias.detach().float().cpu()
        return torch.where(values == 0, shift, torch.nan)

    def _group_normalized(self, values: Tensor) -> Tensor:
        layer, shift = self.layer, torch.zeros_like(values)
        if layer.affine:
            if self.mode.training:
                return unknown(len(values))
            if layer.bias is not None:
                shift = layer.bias.detach().float().cpu()
        return torch.where(self._by_group(values == 0, all_of=True), shift, torch.nan)

    def _by_group(self, flags: Tensor, all_of: bool) -> Tensor:
        groups = flags.view(self.layer.num_groups, -1)
        found = groups.all(1) if all_of else groups.any(1)
        return found.repeat_interleave(groups.shape[1])

    def inputs_for(self, outputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same; of a group normalization whole groups, zeros included, since they take part in the statistics."""
        if isinstance(self.layer, nn.GroupNorm):
            outputs = self._by_group(outputs, all_of=False)
        return outputs, [outputs]


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """What a normalization with running statistics does in eval: ``x * scale + shift``, each ``(C,)``.

    Example:
        >>> scale_and_shift(nn.BatchNorm2d(1, eps=0))
        (tensor([1.]), tensor([0.]))
    """
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        shift = shift + norm.bias.detach().double()
    return scale.float().cpu(), shift.float().cpu()


def _averages_values_alone(pool: Any) -> bool:
    return pool.padding in (0, (0, 0)) and not pool.ceil_mode and pool.divisor_override is None


def _plain(layer: nn.Module) -> Any:
    return next(kind for kind in (*CHANNELWISE,) if isinstance(layer, kind))


class Weighted(Layer):
    """Convolutions and linear layers."""

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        layer = self.layer
        self.groups: int = getattr(layer, "groups", 1)
        weight, bias = self._effective()
        rows = _rows(layer, weight).flatten(2) if weight.dim() > 2 else weight[..., None]
        rows = rows.view(self.groups, -1, *rows.shape[1:]).cpu()
        self.reads = self._connections(rows)
        self.sums = rows.float().sum(3)
        self.bias = self._bias(bias)

    @torch.no_grad()
    def _effective(self) -> tuple[Tensor, Tensor | None]:
        layer = self.layer
        if self.mode.training or not hasattr(layer, "sides"):
            return layer.weight.detach(), layer.bias
        modes = {part: part.training for part in layer.modules()}
        try:
            layer.eval()
            weight, bias = layer._weight_and_bias()
        finally:
            for part, training in modes.items():
                part.training = training
        return weight.detach(), bias

    def _connections(self, rows: Tensor) -> Tensor:
        # (groups, outputs, inputs): which output of a group reads which of its inputs
        if self.mode.training:
            return ~self._masked_rows().view(self.groups, -1, 1).expand(rows.shape[:3])
        return (rows != 0).any(3)

    def _masked_rows(self) -> Tensor:
        mask = self.slot("weight", "mask")
        count = self.layer.weight.shape[0] if not _transposed(self.layer) else self.layer.out_channels
        settled = mask is not None and self.mode.settled(mask)
        return ~mask.keep.cpu() if settled else torch.zeros(count, dtype=torch.bool)

    def _bias(self, bias: Tensor | None) -> Tensor:
        count = self.groups * self.sums.shape[1]
        if bias is None:
            return torch.zeros(count)
        if self.mode.training:
            return torch.where(self._masked_rows(), 0.0, torch.nan)
        return bias.detach().float().cpu()

    @property
    def folds(self) -> bool:
        """Whether constants that it reads amount to a bias, and may become one."""
        return not self.mode.training and borderless(self.layer)

    def own(self, values: list[Tensor]) -> Tensor:
        """Constant where everything that is read is."""
        mask, quant = self.slot("input", "mask"), self.slot("input", "quant")
        # the mask goes, so what it drops is a constant for those who align the input
        self.entered[0] = compressed(values[0], self.call.shapes[0], mask, None, self.mode)
        self.read = compressed(values[0], self.call.shapes[0], mask, quant, self.mode)
        known = self._known()
        constant = ~(self.reads & ~known).any(2)
        sums = (self.sums * torch.where(known, self._grouped_read(), 0)).sum(2)
        made = torch.where(constant, sums, torch.nan).flatten() + self.bias
        return self._at("output", made, self.call.shape)

    def _grouped_read(self) -> Tensor:
        return self.read.view(self.groups, 1, -1)

    def _known(self) -> Tensor:
        read = self._grouped_read()
        return (read == 0) | (~read.isnan() if self.folds else torch.zeros_like(read, dtype=torch.bool))

    def folded(self, outputs: Tensor, inputs: Tensor) -> Tensor | None:
        """What constants that are read, and are no longer, add to the output channels that stay; None if nothing.

        Args:
            outputs: the layer's output channels that stay.
            inputs: the layer's input channels that stay.
        """
        gone = torch.where(self._known() & ~inputs.view(self.groups, 1, -1), self._grouped_read(), 0)
        added = (self.sums.double() * gone.double()).sum(2).flatten()[outputs].float()
        return added if added.any() else None

    def least(self) -> tuple[Tensor, list[Tensor]]:
        """One output of one input, whatever that reads; all of a layer whose masks may still change."""
        if self.open:
            return super().least()
        one = at_least_one(torch.zeros(len(self.made), dtype=torch.bool))
        return one, [at_least_one(torch.zeros(len(self.read), dtype=torch.bool))]

    def inputs_for(self, outputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The inputs that are read and not constant; as many of each group as torch's grouped convolutions want."""
        if self._open("weight"):
            outputs = torch.ones_like(outputs)
        by_group = outputs.view(self.groups, -1)
        inputs = (self.reads & by_group[..., None]).any(1) & ~self._known()[:, 0]
        if self._open("weight") or self._open("input"):
            inputs = torch.ones_like(inputs)
        if self.groups > 1:
            by_group = _evened(by_group, by_group.any(1))
            inputs = _evened(inputs, by_group.any(1))
        return by_group.flatten(), [at_least_one(inputs.flatten())]


def borderless(layer: Any) -> bool:
    """Whether a constant that the layer reads adds the same to every position: no zeros are put at the borders.

    Example:
        >>> borderless(nn.Conv2d(2, 3, 1)), borderless(nn.Conv2d(2, 3, 3, padding=1))
        (True, False)
    """
    if isinstance(layer, nn.Linear):
        return True
    if _transposed(layer):
        return False
    pointwise = layer.padding == "same" and set(layer.kernel_size) == {1}
    return pointwise or layer.padding_mode != "zeros" or layer.padding in ("valid", (0, 0))


def _evened(chosen: Tensor, groups: Tensor) -> Tensor:
    """As many channels in each of these groups as in the fullest of them, and none elsewhere."""
    most = max(int(chosen[groups].sum(1).max()), 1)
    # those that are chosen come first, then the others in their order
    order = (~chosen).int().sort(dim=1, stable=True).indices[:, :most]
    return torch.zeros_like(chosen).scatter_(1, order, True) & groups[:, None]


def _rows(layer: Any, weight: Tensor) -> Tensor:
    if not _transposed(layer):
        return weight
    return weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)


def _transposed(layer: Any) -> bool:
    return isinstance(layer, nn.ConvTranspose2d)


RULES: tuple[tuple[tuple[type[nn.Module], ...], type[Layer]], ...] = (
    ((nn.Conv2d, nn.ConvTranspose2d, nn.Linear), Weighted),
    ((Add,), Summed),
    ((Concat,), Concatenated),
    (CHANNELWISE, Channelwise),
)


def rule_for(call: Call, mode: Mode) -> Rule:
    """The rule of a call; where nothing is known about it, one that demands everything."""
    return _layer_rule(call, mode) if call.layer is not None else _function_rule(call, mode)


class Shared(Pointwise):
    """A layer without state that is called several times, each time with other channels."""

    def values(self, values: list[Tensor]) -> Tensor:
        """Those of the layer."""
        return Channelwise(self.call, self.mode).values(values)


class Rigid(Rule):
    """A layer that is understood and must stay as it is.

    Args:
        layer: its rule.
        reason: why.
    """

    def __init__(self, layer: Layer, reason: str) -> None:
        super().__init__(layer.call, layer.mode)
        self.layer, self.reason = layer, f"{layer.call.path}: {reason}"

    def values(self, values: list[Tensor]) -> Tensor:
        """Those of the layer."""
        return self.layer.values(values)


def shared_rule(call: Call, mode: Mode) -> Rule:
    """The rule of a layer that is called several times."""
    rule = rule_for(call, mode)
    stateless = (
        not list(rule.layer.children()) and not list(rule.layer.parameters()) if isinstance(rule, Layer) else False
    )
    if isinstance(rule, Channelwise) and stateless and not list(rule.layer.buffers()):
        return Shared(call, mode)
    return Rigid(rule, "it is called several times") if isinstance(rule, Layer) else rule


def _layer_rule(call: Call, mode: Mode) -> Rule:
    layer = call.layer
    if flattened(call) and isinstance(layer, nn.Flatten):
        return Flattened(call, mode)
    if not adjustable(layer) or has_free_tensor(call) or not _alignable(call):
        return Rule(call, mode)
    for kinds, rule in RULES:
        if isinstance(layer, kinds):
            return rule(call, mode) if _regular(call) else Rule(call, mode)
    return Rule(call, mode)


def _alignable(call: Call) -> bool:
    # one tensor comes out, and those that go in are positional arguments
    given = [argument for argument in call.arguments if isinstance(argument, Given)]
    return len(given) == len(call.shapes) and not getattr(call.layer, "return_indices", False)


def _regular(call: Call) -> bool:
    # a batch with channels at dimension 1, before and after
    layer, rank = call.layer, len(call.shape)
    if isinstance(layer, nn.Linear):
        return rank == 2
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        return rank == 4
    if isinstance(layer, Concat):
        return layer.dim == 1 and rank >= 2
    alike = all(shape[1] == call.shape[1] for shape in call.shapes if len(shape) == rank >= 2)
    return rank >= 2 and all(len(shape) == rank for shape in call.shapes) and (alike or isinstance(layer, Aligned))


def adjustable(layer: Any) -> bool:
    """Whether it is a layer of torch's or qprune's whose class may be exchanged: not one of the user's own.

    A subclass of a layer of torch's may override more than its forward.

    Example:
        >>> adjustable(nn.Conv2d(2, 3, 1)), adjustable(nn.LayerNorm(5))
        (True, False)
    """
    if type(layer) in ALIGNED or isinstance(layer, Aligned):
        return True
    return isinstance(layer, Compressed) and any(type(layer).forward is host.forward for host in HOSTS.values())  # type: ignore[attr-defined]


def hooked(layer: nn.Module) -> bool:
    """Whether somebody looks at what goes in or comes out, and may change it.

    Example:
        >>> hooked(nn.ReLU())
        False
    """
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _function_rule(call: Call, mode: Mode) -> Rule:
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
