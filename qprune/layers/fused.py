"""What a site does as one operation, where values lie on a GPU: rectify, measure, mask, quantize.

There a step takes as long as its launches, and each piece of arithmetic is one. On the CPU, and wherever this
operation does not reach, sites compute by the functions of `qprune.masking` and `qprune.rounding`, to the same values;
`fuses` alone decides.
"""

import functools
import importlib.util
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from qprune.importances import ActivationL1
from qprune.layers.mask import ChannelMask, add_scores
from qprune.layers.quantizer import FakeQuant, widen_range
from qprune.masking import in_torch_func, mask_channels, rectified_gradient, rectify_channels
from qprune.numerics import channel_extremes
from qprune.rounding import fake_quantize, is_inside

if TYPE_CHECKING:
    from qprune.layers.ready import ReadyWeight

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def fuses(x: Tensor, mask: ChannelMask | None, quant: FakeQuant | None) -> bool:
    """Whether one operation does all that this site does to ``x``.

    Not within torch.func, whose transforms know no such operation; not in code that is compiled, where it would stand
    in the way of the compiler, which fuses more than one site, and not in exported code, which is to run without
    qprune. Not where a compressor has hooks or a forward of its own, learns its steps, or measures otherwise.

    Args:
        x: values of shape ``(N, C, ...)``.
        mask: the mask of the site, if there is one.
        quant: its quantizer, if there is one.

    Example:
        >>> fuses(torch.ones(2, 3), ChannelMask(3), None)  # on the CPU
        False
    """
    return (
        on_gpu(x)
        and not torch.jit.is_tracing()  # first: within it sizes are tensors
        and x.dtype in DTYPES
        and x.dim() > 0
        and 0 < x.numel() < 2**31
        and not torch.compiler.is_compiling()
        and not in_torch_func()
        and (mask is None or _fuses_mask(x, mask))
        and (quant is None or _fuses_quant(x, quant))
        and _one_axis(x, mask, quant)
    )


def on_gpu(x: Any) -> bool:
    """Whether ``x`` is a tensor on a GPU that Triton has kernels for.

    Example:
        >>> on_gpu(torch.ones(2))
        False
    """
    return isinstance(x, Tensor) and x.is_cuda and _has_triton(x.device)


@functools.cache
def _has_triton(device: torch.device) -> bool:
    if os.environ.get("QPRUNE_TRITON") == "0" or importlib.util.find_spec("triton") is None:
        return False
    # without a GPU there are fake tensors alone, for which no kernel runs
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= (7, 0)


def _fuses_mask(x: Tensor, mask: ChannelMask) -> bool:
    return (
        as_made(mask, ChannelMask)
        and _device_of(mask, "keep") == x.device
        and mask.channels == x.shape[mask.axis % x.dim()]
        and (not mask.watching or mask.ranking.by_magnitude)
    )


def _fuses_quant(x: Tensor, quant: FakeQuant) -> bool:
    return (
        as_made(quant, FakeQuant)  # and no subclass, as where steps are learned
        and _device_of(quant, "scale") == x.device
        and quant.channels in (None, x.shape[quant.axis % x.dim()])
        and quant.arithmetic.from_zero
    )


def as_made(part: ChannelMask | FakeQuant, *kinds: type) -> bool:
    """Whether a compressor is of one of these classes itself, and does what that does: without hooks, by its forward.

    Example:
        >>> as_made(FakeQuant(4), ChannelMask, FakeQuant)
        True
    """
    return type(part) in kinds and not part.hooked and "forward" not in vars(part)


def is_dense(x: Tensor) -> bool:
    """Whether a tensor's memory has no gaps.

    Example:
        >>> is_dense(torch.ones(3)[::2])
        False
    """
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


def _device_of(part: ChannelMask | FakeQuant, name: str) -> torch.device:
    buffer = part._buffers[name]
    assert buffer is not None
    return buffer.device


def _one_axis(x: Tensor, mask: ChannelMask | None, quant: FakeQuant | None) -> bool:
    if mask is None or quant is None or quant.channels is None:
        return True
    return mask.axis % x.dim() == quant.axis % x.dim()


def fused(
    x: Tensor,
    mask: ChannelMask | None,
    quant: FakeQuant | None,
    ceiling: float | None = None,
    *,
    measuring: bool = True,
    ready: "ReadyWeight | None" = None,
) -> Tensor:
    """Rectify, mask and quantize ``x`` by one operation, which measures too; only where `fuses` says so.

    For the gradient it remembers one bool per value at most: whether it passes.

    Args:
        x: values of shape ``(N, C, ...)``.
        mask: the mask of the site, if there is one.
        quant: its quantizer, if there is one.
        ceiling: the largest value of a rectifier in front, infinity for ReLU; None if there is none.
        measuring: whether to measure, where the compressors do.
        ready: what may have been done already.

    Example:
        >>> fused(torch.tensor([[-1.0, 2.0, 9.0]]), None, None, ceiling=6.0)
        tensor([[0., 2., 6.]])
    """
    work = work_of(x, mask, quant, ceiling)
    if not measuring:
        work = work._replace(score=None, counted=None, low=None, high=None)
    if ready is not None:
        work = ready.remaining(x, work)
    if torch.is_grad_enabled() and x.requires_grad and work.makes_values:
        result: Tensor = _Fused.apply(x, work)
        return result
    with torch.no_grad():
        return work.do(x)[0]


def work_of(
    x: Tensor, mask: ChannelMask | None, quant: FakeQuant | None, ceiling: float | None = None
) -> "Work":  # fmt: skip
    """What a site has to do to ``x``, where it `fuses`; arguments as for `fused`."""
    # buffers not by attribute: that takes half a microsecond each, for which a GPU waits
    axis, watching = 0, mask is not None and mask.watching
    keep = score = count = low = high = scale = zero_point = active = None
    per_channel, clips, first, last = False, False, 0, 0
    if mask is not None:
        axis, keep = mask.axis, mask._buffers["keep"]
    if mask is not None and watching:
        score, count = mask._buffers["pending_score"], mask._buffers["pending_count"]
    if quant is not None:
        buffers, per_channel = quant._buffers, quant.channels is not None
        axis = quant.axis if per_channel else axis
        if quant.training and quant.measuring:
            low, high = buffers["pending_low"], buffers["pending_high"]
        known = quant.known_active
        if known is not False:
            scale, zero_point = buffers["scale"], None if quant.symmetric else buffers["zero_point"]
            active, clips = None if known else buffers["active"], quant.gradient == "clipped"
            first, last = quant.code_bounds
    # what a rectifier hands over is masked already, unless its mask watches
    handed_over = ceiling is not None and not watching
    return Work(
        axis % x.dim(), ceiling, keep, score, count, low, high, handed_over or not per_channel, handed_over,
        scale, zero_point, active, first, last, clips,
    )  # fmt: skip


class Work(NamedTuple):
    """What is to be done to values, with the tensors that it takes; fields as of the operation.

    And what is ``made`` already, if it is.
    """

    axis: int
    ceiling: float | None
    keep: Tensor | None
    score: Tensor | None
    counted: Tensor | None
    low: Tensor | None
    high: Tensor | None
    range_masked: bool
    nonnegative: bool
    scale: Tensor | None
    zero_point: Tensor | None
    active: Tensor | None
    first: int
    last: int
    clips: bool
    made: Tensor | None = None

    @property
    def makes_values(self) -> bool:
        """Whether there is anything to do but to measure."""
        return self.ceiling is not None or self.keep is not None or self.scale is not None

    def do(self, x: Tensor, remember: bool = False) -> tuple[Tensor, Tensor | None]:
        """The result; and, to ``remember``, which values pass gradients, if the result does not tell."""
        if self.made is not None:
            return self.made, None
        y = torch.empty_like(x) if self.makes_values else None
        passed = torch.empty_like(x, dtype=torch.bool) if remember and self.tells_what_passes else None
        if y is not None or self.score is not None or self.high is not None:
            torch.ops.qprune.compress_site.default(x, y, passed, *self[:-1])
        return x if y is None else y, passed

    @property
    def tells_what_passes(self) -> bool:
        """Whether the result does not tell which values pass gradients."""
        return self.scale is not None and (self.ceiling is not None or self.clips)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, work: Work) -> Tensor:
        y, passed = work.do(x, remember=True)
        # a rectifier's own result says what passes, and is kept by the layer behind it anyway
        values = y if work.ceiling is not None and passed is None else None
        keep = work.keep if passed is None and values is None else None
        ctx.save_for_backward(values, passed, keep)  # type: ignore[arg-type]  # None is allowed
        ctx.axis, ctx.ceiling = work.axis, work.ceiling  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        saved = ctx.saved_tensors  # type: ignore[attr-defined]
        if all(each is None for each in saved):
            return grad, None
        return _Passed.apply(grad, ctx.axis, ctx.ceiling, *saved), None  # type: ignore[attr-defined]


class _Passed(torch.autograd.Function):
    # Linear in the gradient and piecewise constant in the values: its own gradient is the same again, or 0.

    @staticmethod
    def forward(
        ctx: FunctionCtx, grad: Tensor, axis: int, ceiling: float | None,
        values: Tensor | None, passed: Tensor | None, keep: Tensor | None,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(values, passed, keep)  # type: ignore[arg-type]  # None is allowed
        ctx.axis, ctx.ceiling = axis, ceiling  # type: ignore[attr-defined]
        like = next((each for each in (values, passed) if each is not None), grad)
        out = torch.empty_like(like, dtype=grad.dtype)
        torch.ops.qprune.pass_gradient.default(grad, out, axis, ceiling, values, passed, keep)
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # type: ignore[attr-defined]
        return _Passed.apply(grad, ctx.axis, ctx.ceiling, *saved), None, None, None, None, None  # type: ignore[attr-defined]


# Defined by schema, not by torch.library.custom_op: that one adds 15 microseconds of Python to every call. Results are
# written into tensors that the caller makes, so that whoever traces has nothing to know about shapes.
_library = torch.library.Library("qprune", "FRAGMENT")  # other rooms have operations there, too
_library.define(
    "compress_site(Tensor x, Tensor(a!)? y, Tensor(b!)? passed, int axis, float? ceiling, Tensor? keep, "
    "Tensor(c!)? score, Tensor(d!)? count, Tensor(e!)? low, Tensor(f!)? high, bool range_masked, bool nonnegative, "
    "Tensor? scale, Tensor? zero_point, Tensor? active, int first, int last, bool clips) -> ()"
)
_library.define(
    "compress_rows(Tensor[] x, Tensor(a!)[] y, Tensor(b!)[] low, Tensor(c!)[] high, Tensor?[] keep, Tensor?[] scale, "
    "Tensor?[] zero_point, Tensor?[] active, int[] first, int[] last) -> ()"
)
_library.define(
    "pass_gradient(Tensor grad, Tensor(a!) out, int axis, float? ceiling, Tensor? values, Tensor? passed, "
    "Tensor? keep) -> ()"
)


def _compress_plainly(
    x: Tensor, y: Tensor | None, passed: Tensor | None, axis: int, ceiling: float | None, keep: Tensor | None,
    score: Tensor | None, count: Tensor | None, low: Tensor | None, high: Tensor | None, range_masked: bool,
    nonnegative: bool, scale: Tensor | None, zero_point: Tensor | None, active: Tensor | None, first: int, last: int,
    clips: bool,
) -> None:  # fmt: skip
    """What the operation does, by the functions that sites compute with elsewhere.

    Args:
        x: values of shape ``(N, C, ...)``.
        y: where the result goes; None if there is nothing to do but to measure.
        passed: bool, where it goes which values pass gradients; None if nobody asks.
        axis: the channel axis.
        ceiling: the largest value of a rectifier, infinity for ReLU; None if there is none.
        keep: bool ``(C,)``, the channels that are not dropped; None keeps all.
        score: float32 ``(C,)``, the accumulator of scores, if they are measured.
        count: int64, that of the values per channel.
        low: float32 ``()`` or ``(C,)``, the accumulator of smallest values, if a range is measured.
        high: that of the largest ones.
        range_masked: whether the range is that of the masked values.
        nonnegative: whether the smallest value of one range is known to be 0.
        scale: float32 ``()`` or ``(C,)``, the step size; None if nothing is quantized.
        zero_point: int32, same shape; None if it is 0 throughout.
        active: bool, whether it quantizes; None if it is known to.
        first: the smallest code.
        last: the largest one.
        clips: whether gradients pass only where nothing was clamped.
    """
    rectified = x if ceiling is None else rectify_channels(x, None, ceiling=ceiling)
    if score is not None and count is not None:
        add_scores(score, count, ActivationL1().measure(rectified, axis), x.numel() // score.numel())
    masked = rectified if keep is None else mask_channels(rectified, keep, axis)
    if low is not None and high is not None:
        seen = (masked if range_masked else rectified).float()
        if low.dim():
            widen_range(low, high, *channel_extremes(seen, axis))
        else:
            widen_range(low, high, 0.0 if nonnegative else seen.amin(), seen.amax())
    if y is None:
        return
    result, inside = masked, None
    if scale is not None:
        grid = (scale, zero_point, first, last)
        result, inside = fake_quantize(masked, *grid, axis=axis), is_inside(masked, *grid, axis=axis)
        if active is not None:
            result, inside = torch.where(active, result, masked), inside | ~active
    y.copy_(result)
    if passed is not None:
        ones = torch.ones_like(x)
        slope = ones if ceiling is None else rectified_gradient(ones, x, ceiling)
        slope = slope if keep is None else mask_channels(slope, keep, axis)
        passed.copy_(slope != 0 if inside is None or not clips else inside & (slope != 0))


def _compress_rows_plainly(
    x: list[Tensor], y: list[Tensor], low: list[Tensor], high: list[Tensor], keep: list[Tensor | None],
    scale: list[Tensor | None], zero_point: list[Tensor | None], active: list[Tensor | None], first: list[int],
    last: list[int],
) -> None:  # fmt: skip
    """What `_compress_plainly` does to many tensors with channels along the first axis, one range for each channel.

    Args:
        x: float32 values, without gaps in memory.
        y: where the results go; empty where nothing is to be done but to measure.
        low: float32 ``(C,)``, where the smallest values go; empty where no range is measured.
        high: the same for the largest ones.
        keep: as there, as all that follows.
        scale: the step sizes.
        zero_point: the integers that stand for 0.
        active: whether they quantize.
        first: the smallest codes.
        last: the largest ones.
    """
    columns: tuple[list[Any], ...] = (x, y, low, high, keep, scale, zero_point, active, first, last)
    for values, result, least, most, kept, *grid in zip(*columns, strict=True):
        out = result if len(result) else None
        ends = (least.fill_(torch.inf), most.fill_(-torch.inf)) if len(most) else (None, None)
        _compress_plainly(values, out, None, 0, None, kept, None, None, *ends, False, False, *grid, False)  # type: ignore[call-arg]  # their number is right


def _pass_plainly(
    grad: Tensor, out: Tensor, axis: int, ceiling: float | None, values: Tensor | None, passed: Tensor | None,
    keep: Tensor | None,
) -> None:  # fmt: skip
    """The gradient by the values that `_compress_plainly` was given.

    Args:
        grad: the gradient by the result.
        out: where it goes.
        axis: the channel axis.
        ceiling: the largest value of a rectifier.
        values: that rectifier's result, if it tells which values pass.
        passed: bool, which values pass, if the operation said so.
        keep: bool ``(C,)``, which channels do, if it is no matter of single values.
    """
    if values is not None and ceiling is not None:
        grad = rectified_gradient(grad, values, ceiling)
    if passed is not None:
        grad = torch.where(passed, grad, 0)
    out.copy_(grad if keep is None else mask_channels(grad, keep, axis))


def _compress_on_gpu(*arguments: Any) -> None:
    from qprune.layers import gpu_kernels  # which imports Triton: on GPUs alone

    gpu_kernels.compress(*arguments)


def _compress_rows_on_gpu(*arguments: Any) -> None:
    from qprune.layers import gpu_kernels

    gpu_kernels.compress_rows(*arguments)


def _pass_on_gpu(*arguments: Any) -> None:
    from qprune.layers import gpu_kernels

    gpu_kernels.pass_gradient(*arguments)


for _name, _plain, _kernels in (
    ("compress_site", _compress_plainly, _compress_on_gpu),
    ("compress_rows", _compress_rows_plainly, _compress_rows_on_gpu),
    ("pass_gradient", _pass_plainly, _pass_on_gpu),
):
    _library.impl(_name, _plain, "CPU")
    _library.impl(_name, _kernels, "CUDA")
    _library.impl(_name, lambda *arguments: None, "Meta")
