"""Masks, and rectifiers that mask: channels are cleared bit by bit, with gradients of their own."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from qprune.functional import along


def mask_channels(x: Tensor, keep: Tensor, axis: int = 1) -> Tensor:
    """Set the channels that are not kept to exactly 0, whatever they hold, and their gradients too.

    Args:
        x: values of shape ``(N, C, ...)``, channels at ``axis``.
        keep: bool ``(C,)``.
        axis: the channel axis.

    Example:
        >>> mask_channels(torch.tensor([[1.0, torch.nan]]), torch.tensor([True, False]))
        tensor([[1., 0.]])
    """
    kept = along(keep, x, axis)
    if in_torch_func():
        return torch.where(kept, x, 0)
    result: Tensor = _MaskChannels.apply(x, kept)
    return result


def rectify_channels(
    x: Tensor,
    keep: Tensor | None,
    axis: int = 1,
    ceiling: float = math.inf,
    *,
    reusable: bool = False,
    as_bools: bool = False,
) -> Tensor:
    """ReLU, or ReLU6 with a ceiling of 6, of the kept channels and 0 elsewhere: `mask_channels` after it, to the bit.

    The result alone is remembered for the gradient, which is 0 where the result is; masking costs no pass of its own
    there.

    Args:
        x: values of shape ``(N, C, ...)``, channels at ``axis``.
        keep: bool ``(C,)``; None keeps all.
        axis: the channel axis.
        ceiling: largest result.
        reusable: whether the result may be overwritten; ``x`` is remembered in its place.
        as_bools: then remember which values pass gradients instead, a byte each, which takes longer.

    Example:
        >>> rectify_channels(torch.tensor([[-1.0, 2.0, 9.0]]), torch.tensor([True, False, True]), ceiling=6.0)
        tensor([[0., 0., 6.]])
    """
    kept = None if keep is None else along(keep, x, axis)
    if in_torch_func():
        y = torch.relu(x) if ceiling == math.inf else F.hardtanh(x, 0.0, ceiling)
        return y if kept is None else torch.where(kept, y, 0)
    result: Tensor = _RectifyChannels.apply(x, kept, ceiling, reusable, as_bools)
    return result


def rectified_gradient(grad: Tensor, values: Tensor, ceiling: float = math.inf) -> Tensor:
    """The gradient of ReLU, or of ReLU6 with a ceiling of 6, by what goes in; ``values`` are that or what comes out.

    Example:
        >>> rectified_gradient(torch.ones(3), torch.tensor([-1.0, 2.0, 9.0]), ceiling=6.0)
        tensor([0., 1., 0.])
    """
    if ceiling == math.inf:
        return torch.ops.aten.threshold_backward(grad, values, 0.0)
    return torch.ops.aten.hardtanh_backward(grad, values, 0.0, ceiling)


def in_torch_func() -> bool:
    """Whether this runs within one of the transforms of `torch.func`.

    Example:
        >>> in_torch_func()
        False
    """
    # private, but what torch's own functions ask
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


# Functions in the form that torch.func cannot read: the other form takes 20 microseconds longer, at every call.


class _MaskChannels(torch.autograd.Function):
    # Keeping or clearing the bits takes a quarter of the time of torch.where with one value per channel, and unlike a
    # product it also turns infinity and NaN into 0. Its gradient is the same again, so that it has one as well.

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, keep: Tensor) -> Tensor:
        ctx.save_for_backward(keep)
        return _keep_bits(x, keep)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return _MaskChannels.apply(grad, keep), None


class _RectifyChannels(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, keep: Tensor | None, ceiling: float, reusable: bool, as_bools: bool
    ) -> Tensor:
        if keep is None:
            y = torch.relu(x) if ceiling == math.inf else F.hardtanh(x, 0.0, ceiling)
        else:
            y = _keep_bits(x, keep)  # first, because it makes the copy in which to rectify
            y = torch.relu_(y) if ceiling == math.inf else F.hardtanh_(y, 0.0, ceiling)
        values = y if not reusable else _passing(y, ceiling) if as_bools else x
        ctx.save_for_backward(values, keep if values is x else None)  # type: ignore[arg-type]  # None is allowed
        ctx.ceiling = ceiling  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, keep = ctx.saved_tensors  # type: ignore[attr-defined]
        passed = _RectifiedGradient.apply(grad, values, keep, ctx.ceiling)  # type: ignore[attr-defined]
        return passed, None, None, None, None


def _passing(y: Tensor, ceiling: float) -> Tensor:
    """Which results of a rectifier pass gradients; NaN does. As numbers, 0 and 1, these lie where such results do."""
    stopped = y <= 0
    if ceiling != math.inf:
        stopped |= y >= ceiling
    return stopped.logical_not_()


class _RectifiedGradient(torch.autograd.Function):
    # Linear in the gradient and piecewise constant in the values: its own gradient is the same again, or 0.

    @staticmethod
    def forward(ctx: FunctionCtx, grad: Tensor, values: Tensor, keep: Tensor | None, ceiling: float) -> Tensor:
        ctx.save_for_backward(values, keep)  # type: ignore[arg-type]  # None is allowed
        ctx.ceiling = ceiling  # type: ignore[attr-defined]
        passed = rectified_gradient(grad, values, ceiling)
        return passed if keep is None else _keep_bits(passed, keep, out=passed)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        values, keep = ctx.saved_tensors  # type: ignore[attr-defined]
        return _RectifiedGradient.apply(grad, values, keep, ctx.ceiling), None, None, None  # type: ignore[attr-defined]


_AS_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _keep_bits(x: Tensor, keep: Tensor, out: Tensor | None = None) -> Tensor:
    kind = _AS_INTEGERS[x.element_size()]
    kept = torch.empty_like(x) if out is None else out
    if x.is_meta and _fits(keep, x):  # where there are no values, torch takes long to clear none
        return kept
    torch.bitwise_and(x.view(kind), -keep.to(kind), out=kept.view(kind))
    return kept


def _fits(keep: Tensor, x: Tensor) -> bool:
    return all(own in (1, side) for own, side in zip(keep.shape, x.shape[x.dim() - keep.dim() :], strict=True))
