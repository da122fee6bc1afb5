"""What a layer computes again in its backward pass, instead of keeping it: less memory for more time.

The backward of a convolution needs its input and its weight as they were computed with: masked and rounded copies,
while what they were made from is kept by the layer before, or is a parameter, anyway.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from qprune.errors import TrainingError
from qprune.layers.fused import as_made, fused, fuses
from qprune.layers.learned import LearnedQuant
from qprune.layers.mask import ChannelMask
from qprune.layers.quantizer import FakeQuant
from qprune.layers.slots import Compressed, WeightSlots
from qprune.masking import in_torch_func, mask_channels


def recompute_in_backward(net: nn.Module, on: bool = True) -> nn.Module:
    """Let layers compute masked and rounded inputs and weights again in the backward, instead of keeping them.

    Results and gradients are the same, to the bit. A rectifier in front of a quantizer keeps a byte per value. Not in
    code that is compiled, within torch.func or where saved tensors have hooks already, as within
    `torch.utils.checkpoint`; there layers keep what they always do.

    Args:
        net: changed in place: every layer with slots for masks and quantizers has an attribute ``recompute``.
        on: False lets them keep everything again.

    Returns:
        ``net``.

    Raises:
        TrainingError: by a backward pass, if what a layer computed with was changed since the forward.

    Example:
        >>> recompute_in_backward(nn.Sequential(QuantConv2d(2, 3, 1)))[0].recompute
        True
    """
    for module in net.modules():
        if isinstance(module, Compressed):
            module.recompute = on
    return net


def recomputes(layer: Any, x: Tensor) -> bool:
    """Whether this forward of a layer is one whose backward computes again."""
    return (
        layer.recompute
        and layer.training
        and torch.is_grad_enabled()
        and isinstance(x, Tensor)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not in_torch_func()
        and not x.is_inference()
        and _hooks_are_free()
    )


def _hooks_are_free() -> bool:
    # private, but what torch's own checkpointing and compiler ask
    autograd: Any = torch._C._autograd
    enabled: bool = autograd._saved_tensors_hooks_is_enabled()
    return enabled and autograd._top_saved_tensors_default_hooks(False) is None


def recomputed(layer: WeightSlots, compute: Callable[..., Tensor], x: Tensor, *operands: Tensor | None) -> Tensor:
    """The product of a layer whose backward makes its input and its weight again.

    The operands are the input that was made of ``x``, the weight made of its own, and the bias.
    """
    given, recipes = list(operands), {}
    for place, origin in enumerate(_origins(layer, x)):
        operand = given[place]
        if operand is not None and origin is not None and not _is_same(operand, origin.source.tensor):
            # the cast is what autocast does within the product, where what it makes could not be told apart
            given[place] = made = operand.to(_dtype_within_autocast(operand))
            recipes[made.untyped_storage()._cdata] = _Recipe(origin, made.dtype, made.shape, made.stride())
    name = type(layer).__name__

    def pack(tensor: Tensor) -> "_Kept | _View":  # holds no operand, or it would be kept after all
        recipe = recipes.get(tensor.untyped_storage()._cdata)
        if recipe is None:
            return _kept(name, tensor)
        return _View(recipe, tensor.shape, tensor.stride(), tensor.storage_offset())

    with saved_tensors_hooks(pack, lambda kept: kept.tensor_again()) if recipes else nullcontext():
        return compute(*given)


def _is_same(tensor: Tensor, other: Tensor) -> bool:
    return tensor.untyped_storage()._cdata == other.untyped_storage()._cdata


def _dtype_within_autocast(x: Tensor) -> torch.dtype:
    kind = x.device.type
    if x.dtype == torch.float64 or not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return x.dtype
    return torch.get_autocast_dtype(kind)


@frozen(eq=False)
class _Kept:
    """A tensor that is kept, with its version, for which torch does not look where saved tensors have hooks."""

    layer: str
    tensor: Tensor
    version: int

    def tensor_again(self) -> Tensor:
        if self.tensor._version != self.version:
            raise _changed(self.layer)
        return self.tensor


def _kept(layer: str, tensor: Tensor) -> _Kept:
    return _Kept(layer, tensor.detach(), tensor._version)


def _changed(layer: str) -> TrainingError:
    return TrainingError(
        f"A {layer} was to compute its input and weight again in a backward pass (recompute), and the input, the "
        "weight, a mask or a quantizer has been changed since the forward. Let the backward come first, or keep "
        "what was computed: recompute = false, recompute_in_backward(net, False)."
    )


@frozen(eq=False)
class _Origin:
    """What an operand is made of: a tensor, its compressors, and in which state these are."""

    layer: str
    source: _Kept
    mask: ChannelMask | None
    quant: FakeQuant | None
    rows: Callable[[Tensor], Tensor]
    state: tuple[tuple[Tensor, int], ...]
    training: bool
    active: bool | None

    @torch.no_grad()
    def made(self) -> Tensor:
        now = _read(self.mask, self.quant)
        if any(old is not new or version != new._version for (old, version), new in zip(self.state, now, strict=True)):
            raise _changed(self.layer)
        x, mask, quant = self.rows(self.source.tensor_again()), self.mask, self.quant
        if quant is None:
            return self.rows(_compressed(x, mask, None, None))
        before, quant.training = quant.training, self.training
        try:
            return self.rows(_compressed(x, mask, quant, self.active))
        finally:
            quant.training = before


def _compressed(x: Tensor, mask: ChannelMask | None, quant: FakeQuant | None, active: bool | None) -> Tensor:
    """`qprune.layers.hosts.compress` without measuring."""
    if fuses(x, mask, quant):
        return fused(x, mask, quant, measuring=False)
    masked = x if mask is None else mask_channels(x, mask.keep, mask.axis)
    if quant is None or active is False:
        return masked
    rounded = quant.rounded(masked, mask, owned=mask is not None and active is True)
    return rounded if active else torch.where(quant.active, rounded, masked)


def _read(mask: ChannelMask | None, quant: FakeQuant | None) -> list[Tensor]:
    """Whatever a result depends on, beside the values."""
    found = [] if mask is None else [mask.keep]
    return found if quant is None else [*found, *(getattr(quant, name) for name in (*quant.stored, "range", "active"))]


def _origins(layer: WeightSlots, x: Tensor) -> Iterator[_Origin | None]:
    yield _origin(layer, x, layer.input_mask, layer.input_quant)
    # a weight that is no parameter is computed anew whenever somebody asks for it
    is_parameter = "weight" in layer._parameters  # type: ignore[attr-defined]
    yield _origin(layer, layer.weight, layer.weight_mask, layer.weight_quant, layer.rows) if is_parameter else None


def _origin(
    layer: WeightSlots, source: Tensor, mask: ChannelMask | None, quant: FakeQuant | None,
    rows: Callable[[Tensor], Tensor] = lambda x: x,
) -> _Origin | None:  # fmt: skip
    """None where what is made depends on more than is known here."""
    if not (mask is None or as_made(mask, ChannelMask)) or not (
        quant is None or as_made(quant, FakeQuant, LearnedQuant)
    ):
        return None
    state = tuple((tensor, tensor._version) for tensor in _read(mask, quant))
    training, active = (False, None) if quant is None else (quant.training, quant.known_active)
    return _Origin(
        type(layer).__name__, _kept(type(layer).__name__, source), mask, quant, rows, state, training, active
    )


@frozen(eq=False)
class _Recipe:
    """How an operand is made again, as it was: in its dtype and memory layout."""

    origin: _Origin
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]

    def made(self) -> Tensor:
        made = self.origin.made().to(self.dtype)
        if made.stride() == self.stride:
            return made
        return made.new_empty_strided(self.shape, self.stride).copy_(made)


@frozen(eq=False)
class _View:
    """An operand that is made again, or a view of it: what a product saved."""

    recipe: _Recipe
    shape: torch.Size
    stride: tuple[int, ...]
    offset: Any  # torch declares that it may be symbolic

    def tensor_again(self) -> Tensor:
        return self.recipe.made().as_strided(self.shape, self.stride, self.offset)
