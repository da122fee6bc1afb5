"""Rounding to a grid whose step size and zero point are learned, with their gradients."""

from typing import Any

import torch
from torch import Tensor

from qprune.functional import along, clamp_steps_, steps_to


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
    result: Tensor = _LearnedGrid.apply(x.float(), scale, zero_point, low, high)
    return result.to(x.dtype)


class _LearnedGrid(torch.autograd.Function):
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        x, scale, zero_point = ctx.saved_tensors
        quotient = x / scale
        steps = quotient.round()
        clamped = clamp_steps_(steps.clone(), *(steps_to(bound, zero_point) for bound in ctx.bounds))
        inside = steps == clamped
        passed = torch.where(inside, grad, 0)
        slope = torch.where(inside, steps.sub_(quotient), clamped)
        by_scale = slope.mul_(grad).sum_to_size(scale.shape)
        by_zero_point = None
        if zero_point is not None:
            by_zero_point = (passed.sum_to_size(scale.shape) - grad.sum_to_size(scale.shape)) * scale
        return passed, by_scale, by_zero_point, None, None


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
