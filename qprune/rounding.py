"""Rounding to the grid of a quantizer, whose step size is given or learned, with its gradients."""

from typing import Any

import torch
from torch import Tensor

from qprune.functional import along

GRADIENTS = ("straight", "clipped")


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """The integer codes ``clamp(round(x / scale) + zero_point, low, high)`` as float32, halves rounded to even.

    Shapes must broadcast.

    Example:
        >>> quantize(torch.tensor([-1.0, 0.1, 9.0]), torch.tensor(0.5), torch.tensor(2), 0, 15)
        tensor([ 0.,  2., 15.])
    """
    # Division, not a product with 1 / scale: it is what QuantizeLinear of ONNX computes.
    return x.float().div(scale).round_().add_(zero_point).clamp_(low, high)


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    low: int,
    high: int,
    *,
    axis: int | None = None,
    gradient: str = "straight",
    inplace: bool = False,
    nonnegative: bool = False,
) -> Tensor:
    """Round to the grid of a quantizer: ``(quantize(x) - zero_point) * scale``, at most ``high - low + 1`` values.

    Args:
        x: values of any shape; arithmetic is in float32, the result in the dtype of ``x``.
        scale: positive step size, shape ``()`` or ``(C,)``.
        zero_point: the integer that stands for 0, same shape; None if it is 0 throughout, which is faster.
        low: smallest integer.
        high: largest integer.
        axis: the axis of ``x`` that ``(C,)`` arguments run along.
        gradient: ``"straight"`` passes the gradient through unchanged, ``"clipped"`` only where nothing was clamped.
        inplace: ``x`` is nobody else's and may be overwritten; a pass in place takes a quarter of the time of a copy.
        nonnegative: neither ``x`` nor ``zero_point`` is negative, so that no value lies below the smallest code.

    Raises:
        ValueError: for another gradient, or per-channel arguments without ``axis``.

    Source: the straight-through estimator of Bengio, Leonard, Courville (2013), arXiv:1308.3432.

    Example:
        >>> fake_quantize(torch.tensor([-1.0, 0.1, 0.3, 9.0]), torch.tensor(0.5), torch.tensor(0), -7, 7)
        tensor([-1.0000,  0.0000,  0.5000,  3.5000])
    """
    if gradient not in GRADIENTS:
        raise ValueError(f'gradient must be "straight" or "clipped"; received {gradient!r}')
    if axis is None and scale.dim() > 0:
        raise ValueError("a per-channel scale needs axis, the channel axis of x")
    if axis is not None:
        scale, zero_point = along(scale, x, axis), zero_point if zero_point is None else along(zero_point, x, axis)
    values = x.float()
    if gradient == "clipped":
        result: Tensor = _Grid.apply(values, scale, zero_point, low, high)
        return result.to(x.dtype)
    if x.is_meta:  # where there are no values, torch takes long to round none
        return x if inplace and x.dtype == torch.float32 else x.clone()
    least = None if nonnegative else steps_to(low, zero_point)
    most = steps_to(high, zero_point)
    if not inplace and x.dtype == torch.float32:  # values is x, or an alias of it within torch.func
        values = x.clone()
    # Overwritten beneath the gradient, which stays that of ``values``: x + (q - x).detach() is not q to the bit, and a
    # function of autograd's own takes longer. An alias, not no_grad: torch.func lets nothing be written there.
    clamp_steps_(values.detach().div_(scale).round_(), least, most).mul_(scale)
    return values.to(x.dtype)


def _between(x: Tensor, scale: Tensor, least: Any, most: Any) -> Tensor:
    steps = x.div(scale).round_()
    return steps <= most if least is None else (steps >= least) & (steps <= most)


def is_inside(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int, *, axis: int | None = None
) -> Tensor:
    """Which values `fake_quantize` does not clamp, as bools; arguments as there.

    Example:
        >>> is_inside(torch.tensor([-9.0, 0.1, 9.0]), torch.tensor(0.5), None, -7, 7)
        tensor([False,  True, False])
    """
    if axis is not None:
        scale, zero_point = along(scale, x, axis), zero_point if zero_point is None else along(zero_point, x, axis)
    return _between(x.float(), scale, steps_to(low, zero_point), steps_to(high, zero_point))


def clamp_steps_(steps: Tensor, least: Any, most: Any) -> Tensor:
    """Clamp steps in place to bounds that are numbers, or tensors that broadcast; ``least`` may be None."""
    if not isinstance(most, Tensor):
        return steps.clamp_(least, most)
    # One bound at a time: with two tensors clamp_ takes ten times as long.
    return (steps if least is None else steps.clamp_min_(least)).clamp_max_(most)


def steps_to(code: int, zero_point: Tensor | None) -> Tensor | int:
    """The number of steps from 0 to the value that an integer code stands for."""
    return code if zero_point is None else (code - zero_point).float()


def fake_quantize_learned(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int, *, axis: int | None = None
) -> Tensor:
    """`fake_quantize` with gradients by ``scale`` and ``zero_point`` too, for quantizers that learn them.

    With ``steps = round(x / scale)``, the gradient by ``scale`` is ``steps - x / scale``, and the clamped steps where
    they were clamped; by ``zero_point`` it is 0, and ``-scale`` where they were clamped; by ``x`` it is 1, and 0 where
    they were clamped.

    Args:
        x: values of any shape; arithmetic is in float32, the result in the dtype of ``x``.
        scale: positive step size, shape ``()`` or ``(C,)``.
        zero_point: float32 of whole numbers, same shape; None if it is 0 throughout.
        low: smallest integer.
        high: largest integer.
        axis: the axis of ``x`` that ``(C,)`` arguments run along.

    Source: Esser et al. (2020), arXiv:1902.08153, equation 3.

    Example:
        >>> scale = torch.tensor(0.5, requires_grad=True)
        >>> fake_quantize_learned(torch.tensor([0.3, 9.0]), scale, None, -7, 7).sum().backward()
        >>> scale.grad  # (1 - 0.6) + 7
        tensor(7.4000)
    """
    if axis is not None:
        scale, zero_point = along(scale, x, axis), zero_point if zero_point is None else along(zero_point, x, axis)
    result: Tensor = _Grid.apply(x.float(), scale, zero_point, low, high)
    return result.to(x.dtype)


class _Grid(torch.autograd.Function):
    # Of plain operations the gradient by x would be (grad * scale) / scale, which is not grad to the bit.
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int) -> Tensor:
        return clamp_steps_(x.div(scale).round_(), steps_to(low, zero_point), steps_to(high, zero_point)).mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, scale, zero_point, *ctx.bounds = inputs
        ctx.save_for_backward(x, scale, zero_point)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x, scale, zero_point = ctx.saved_tensors
        low, high = ctx.bounds
        quotient = x / scale
        codes = quotient.round() if zero_point is None else quotient.round().add_(zero_point)
        passed = _inside_or_0(grad, codes, low, high)
        by_scale = by_zero_point = None
        if ctx.needs_input_grad[1]:
            inside = _inside_or_0(quotient, codes, low, high)
            slope = codes.clamp(low, high) if zero_point is None else codes.clamp(low, high).sub_(zero_point)
            by_scale = slope.sub_(inside).mul_(grad).sum_to_size(scale.shape)
        if zero_point is not None and ctx.needs_input_grad[2]:
            by_zero_point = (passed.sum_to_size(scale.shape) - grad.sum_to_size(scale.shape)) * scale
        return passed, by_scale, by_zero_point, None, None


def _inside_or_0(x: Tensor, codes: Tensor, low: int, high: int) -> Tensor:
    """``x`` where codes, which are whole numbers, are not to be clamped, else 0: a tenth of the time of torch.where."""
    return torch.ops.aten.hardtanh_backward(x, codes, low - 0.5, high + 0.5)


def through(x: Tensor, value: Tensor, share: float = 1.0) -> Tensor:
    """``value`` to the bit, with ``share`` times the gradient of ``x``: the straight-through estimator.

    Args:
        x: what gradients go to.
        value: same shape; no gradient goes there.
        share: a factor of the gradient.

    Example:
        >>> x = torch.tensor(0.3, requires_grad=True)
        >>> through(x, x.detach().round(), share=0.5).backward()
        >>> x.grad
        tensor(0.5000)
    """
    y = x * share
    y.detach().copy_(value.detach())
    return y
