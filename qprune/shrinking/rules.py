"""Chooses the rule that a call follows: one per kind of operation."""

from typing import Any

from torch import Tensor, nn

from qprune.flow import ELEMENTWISE, Call, Given
from qprune.flow.layouts import MOVING_LAYERS
from qprune.layers import ALIGNED, CHANNELWISE, HOSTS, Aligned, Compressed
from qprune.shrinking.constants import Mode, flattened
from qprune.shrinking.function_rules import Flattened, Gated, Moved, Pointwise, function_rule
from qprune.shrinking.layer_rules import Channelwise, Concatenated, Layer, Summed
from qprune.shrinking.positions import has_free_tensor
from qprune.shrinking.rule import Rule
from qprune.shrinking.weighted_rule import Weighted
from qprune.shrinking.weights import WEIGHTED
from qprune.zoo import Add, Concat

RULES: tuple[tuple[tuple[type[nn.Module], ...], type[Layer]], ...] = (
    (WEIGHTED, Weighted),
    ((Add,), Summed),
    ((Concat,), Concatenated),
    (CHANNELWISE, Channelwise),
)


def rule_for(call: Call, mode: Mode) -> Rule:
    """The rule of a call; where nothing is known about it, one that demands everything."""
    return _layer_rule(call, mode) if call.layer is not None else function_rule(call, mode)


class Shared(Pointwise):
    """A layer without state that is called several times, each time with other channels."""

    def values(self, values: list[Tensor]) -> Tensor:
        """Those of the layer."""
        return Channelwise(self.call, self.mode).values(values)


class Rigid(Rule):
    """A layer that is understood and must stay as it is."""

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
    if isinstance(layer, nn.Flatten) and flattened(call) and call.layouts == ((1,),):
        return Flattened(call, mode)
    if isinstance(layer, MOVING_LAYERS) and call.moves is not None:
        return Moved(call, mode)
    if type(layer) is nn.GLU and len(call.shapes) == 1 and call.counts[0] == 2 * call.count:
        return Gated(call, mode)
    if len(call.layout) != 1:
        return Shared(call, mode) if type(layer) in ELEMENTWISE and _regular(call) else Rule(call, mode)
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
        return rank >= 2
    if isinstance(layer, WEIGHTED):
        return rank == layer.weight.dim()
    if isinstance(layer, Concat):
        return layer.dim == 1 and rank >= 2
    if isinstance(layer, nn.LayerNorm):
        return rank >= 2 and len(layer.normalized_shape) == 1
    alike = all(count == call.count for count in call.counts) and all(each == call.layout for each in call.layouts)
    return rank >= 2 and all(len(shape) == rank for shape in call.shapes) and (alike or isinstance(layer, Aligned))


def adjustable(layer: Any) -> bool:
    """Whether its class may be exchanged: a layer of torch's or qprune's; subclasses of these may override anything."""
    if type(layer) in ALIGNED or isinstance(layer, Aligned):
        return True
    return isinstance(layer, Compressed) and any(type(layer).forward is host.forward for host in HOSTS.values())  # type: ignore[attr-defined]


def hooked(layer: nn.Module) -> bool:
    """Whether somebody looks at what goes into it or into a part of it, or comes out, and may change it."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in layer.modules())
