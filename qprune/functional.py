"""The arithmetic of pruning and quantizing, as pure tensor functions that can be checked by hand."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

GRADIENTS = ("straight", "clipped")
SMALLEST_STEP = 2.0**-40  # of exact numerics: a product of two has room in a float32


def keep_top(score: Tensor, sparsity: float, multiple_of: int = 1) -> Tensor:
    """Choose the channels to keep: all but the ``floor(sparsity * C + 1e-9)`` lowest scores, and always at least one.

    Of equal scores the lower index is kept.

    Args:
        score: one number per channel, shape ``(C,)``.
        sparsity: share of channels to drop, in [0, 1).
        multiple_of: the kept count is rounded up to a multiple of this (at most C), for kernels that want one.

    Returns:
        bool of shape ``(C,)``, true for kept channels.

    Raises:
        ValueError: for a sparsity outside [0, 1), ``multiple_of`` below 1, or scores with NaN.

    Example:
        >>> keep_top(torch.tensor([0.1, 0.4, 0.4, 0.2]), 0.75)
        tensor([False,  True, False, False])
    """
    channels = score.numel()
    kept = kept_channels(channels, sparsity, multiple_of)
    if torch.isnan(score).any():
        raise ValueError("scores hold NaN: the network's values are no longer numbers; lower the learning rate")
    order = torch.sort(score, descending=True, stable=True).indices
    keep = torch.zeros(channels, dtype=torch.bool, device=score.device)
    keep[order[:kept]] = True
    return keep


def joint_score(scores: Sequence[Tensor]) -> Tensor:
    """One score for the channels that several masks share: the sum of theirs, each as a share of its total.

    Masks measure in units of their own (values of one layer are larger than those of another), so each says only how
    its importance is spread over the channels. Scores that are 0 everywhere say nothing.

    Args:
        scores: one per mask, at least 0, each of shape ``(C,)``.

    Returns:
        float32 of shape ``(C,)``.

    Example:
        >>> joint_score([torch.tensor([1.0, 3.0]), torch.tensor([50.0, 50.0])])
        tensor([0.7500, 1.2500])
    """
    each = torch.stack([score.float() for score in scores])
    totals = each.sum(1, keepdim=True)
    return (each / torch.where(totals == 0, 1, totals)).sum(0)


def kept_channels(channels: int, sparsity: float, multiple_of: int = 1) -> int:
    """The number of channels that remain at ``sparsity``; see `keep_top`.

    Example:
        >>> kept_channels(10, 0.75), kept_channels(10, 0.75, multiple_of=8)
        (3, 8)
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1); received {sparsity!r}")
    if multiple_of < 1:
        raise ValueError(f"multiple_of must be at least 1; received {multiple_of!r}")
    # 1e-9: 0.7 * 10 is 6.999... in floating point and must drop 7
    kept = max(1, channels - int(sparsity * channels + 1e-9))
    return min(channels, -(-kept // multiple_of) * multiple_of)


def code_bounds(bits: int, symmetric: bool) -> tuple[int, int]:
    """The smallest and largest integer of a quantizer: narrow around zero if symmetric, else from 0 up.

    Raises:
        ValueError: unless ``bits`` is 2 to 8.

    Example:
        >>> code_bounds(4, symmetric=True), code_bounds(4, symmetric=False)
        ((-7, 7), (0, 15))
    """
    if bits not in range(2, 9):
        raise ValueError(f"bits must be 2 to 8; received {bits!r}")
    top = 2 ** (bits - 1) - 1
    return (-top, top) if symmetric else (0, 2**bits - 1)


def scale_and_zero_point(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """The step size and the integer that stands for 0, for values between ``low`` and ``high``.

    The range is widened to contain 0, which is therefore represented exactly; the scale is never 0. Values beyond half
    of the largest float count as that half, so that no point of the grid overflows.

    Args:
        low: smallest values, any shape (one per tensor or per channel).
        high: largest values, same shape.
        bits: 2 to 8.
        symmetric: whether the integers lie symmetrically around 0.

    Returns:
        float32 scale and int32 zero point of that shape.

    Example:
        >>> scale_and_zero_point(torch.tensor(-1.0), torch.tensor(2.0), 2, symmetric=False)
        (tensor(1.), tensor(1, dtype=torch.int32))
    """
    _, last = code_bounds(bits, symmetric)
    largest, tiny = torch.finfo(torch.float32).max / 2, torch.finfo(torch.float32).tiny
    if symmetric:
        scale = torch.maximum(-low.float(), high.float()).clamp_(0, largest).div_(last).clamp_(min=tiny)
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    low, high = low.float().clamp(-largest, 0), high.float().clamp(0, largest)
    scale = (high - low).div_(last).clamp_(min=tiny)
    return scale, (low / scale).neg_().round_().to(torch.int32)  # from 0 up


def exact_scale_and_zero_point(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """`scale_and_zero_point` with which integer kernels compute to the bit what float32 does.

    Scales are powers of two, the next ones up; so products and sums of what lies on such grids are exact as long as
    their integers are. Zero points are even: then a kernel may round before it adds the zero point, or after. A range
    of nothing but 0 gets a scale as for values of about 1.

    Example:
        >>> exact_scale_and_zero_point(torch.tensor(-1.0), torch.tensor(2.0), 4, symmetric=False)
        (tensor(0.2500), tensor(4, dtype=torch.int32))
    """
    first, last = code_bounds(bits, symmetric)
    scale, _ = scale_and_zero_point(low, high, bits, symmetric)
    empty = scale <= torch.finfo(torch.float32).tiny
    scale = power_of_two(torch.where(empty, 1 / last, scale).clamp(SMALLEST_STEP, 1 / SMALLEST_STEP))
    if symmetric:
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    zero_point = 2 * ((first - low.float().clamp(max=0) / scale) / 2).round()
    return scale, zero_point.clamp(0, last - last % 2).to(torch.int32)


def power_of_two(scale: Tensor) -> Tensor:
    """The smallest power of two that is not below each positive ``scale``.

    Example:
        >>> power_of_two(torch.tensor([0.3, 0.5, 3.0]))
        tensor([0.5000, 0.5000, 4.0000])
    """
    mantissa, exponent = torch.frexp(scale)
    return torch.ldexp(torch.ones_like(scale), exponent - (mantissa == 0.5).int())


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
    least = None if nonnegative else steps_to(low, zero_point)
    most = steps_to(high, zero_point)
    values = x.float()
    if gradient == "clipped":
        values = _passing_inside(values, scale, least, most)
    elif not inplace and x.dtype == torch.float32:  # values is x, or an alias of it within torch.func
        values = x.clone()
    # Overwritten beneath the gradient, which stays that of ``values``: x + (q - x).detach() is not q to the bit, and a
    # function of autograd's own takes longer. An alias, not no_grad: torch.func lets nothing be written there.
    clamp_steps_(values.detach().div_(scale).round_(), least, most).mul_(scale)
    return values.to(x.dtype)


def _passing_inside(x: Tensor, scale: Tensor, least: Any, most: Any) -> Tensor:
    """A copy of ``x`` through which gradients pass where it is not clamped."""
    steps = x.detach().div(scale).round_()
    inside = steps <= most if least is None else (steps >= least) & (steps <= most)
    return torch.where(inside, x, x.detach())


def clamp_steps_(steps: Tensor, least: Any, most: Any) -> Tensor:
    """Clamp steps in place to bounds that are numbers, or tensors that broadcast; ``least`` may be None."""
    if not isinstance(most, Tensor):
        return steps.clamp_(least, most)
    # One bound at a time: with two tensors clamp_ takes ten times as long.
    return (steps if least is None else steps.clamp_min_(least)).clamp_max_(most)


def steps_to(code: int, zero_point: Tensor | None) -> Tensor | int:
    """The number of steps from 0 to the value that an integer code stands for."""
    return code if zero_point is None else (code - zero_point).float()


def along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """View ``(C,)`` values so that they broadcast along ``axis`` of ``x``; a single value stays as it is.

    Example:
        >>> along(torch.ones(3), torch.zeros(2, 3, 5, 7), 1).shape
        torch.Size([3, 1, 1])
    """
    return values if values.dim() == 0 else values.view([-1] + [1] * (x.dim() - 1 - axis % x.dim()))
