"""What a site does, as Triton kernels; imported where values lie on a GPU, and nowhere else.

A tensor is taken as its memory, from which a value's channel follows: ``(outer, channels, inner)`` with ``inner`` the
stride of the channels, whatever the shape; for channels_last that is 1. A program takes a tile of rows, which are the
values of one channel, by channels. Nothing that is added up depends on the order in which programs run: the largest
and smallest values are the same in any order, and sums are written down and added by a second kernel.
"""

import contextlib
import functools
import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from qprune.layers.fused import is_dense

TILE = 1024
PROGRAMS = 4096  # where something is measured: enough to fill a GPU; more would wait for each other at one maximum
# not compiled for anew: what is read and written fast depends on how channels lie alone
COUNTS = ("rows", "repeats", "programs", "first", "last")


@triton.jit
def _rounded(value, step, least, most):  # type: ignore[no-untyped-def]  # for the compiler these would be types
    steps = tl.div_rn(value, step)  # the division of QuantizeLinear, not a product with 1 / step
    # halves to even without a function that is each device's own: from 2**23 on there is nothing to round
    size = tl.abs(steps)
    rounded = (size + 8388608.0) - 8388608.0
    steps = tl.where(size < 8388608.0, tl.where(steps < 0, -rounded, rounded), steps)
    inside = ~(steps < least) & ~(steps > most) & (steps == steps)
    steps = tl.where(steps < least, least, steps)
    steps = tl.where(steps > most, most, steps)
    return steps * step, inside


@triton.jit(do_not_specialize=COUNTS)
def _compress(  # type: ignore[no-untyped-def]  # for the compiler these would be types of its own
    x, y, passed, keep, sums, count, low, high, scale, zero_point, active,
    rows, channels, inner, repeats, ceiling, first, last,
    RECTIFIES: tl.constexpr, CEILED: tl.constexpr, PER_CHANNEL: tl.constexpr, RANGE_MASKED: tl.constexpr,
    NONNEGATIVE: tl.constexpr, CLIPS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    known = channel < channels
    own = channel if PER_CHANNEL else channel * 0  # where the numbers of its range and grid lie
    if keep is not None:
        kept = tl.load(keep + channel, mask=known, other=0) != 0
    if scale is not None:
        step = tl.load(scale + own, mask=known, other=1.0)
        zero = tl.load(zero_point + own, mask=known, other=0) if zero_point is not None else own * 0
        least, most = (first - zero).to(tl.float32), (last - zero).to(tl.float32)
    total = tl.zeros((1, CHANNELS), tl.float32)
    largest = tl.full((1, CHANNELS), float("-inf"), tl.float32)
    smallest = tl.full((1, CHANNELS), float("inf"), tl.float32)

    for repeat in range(repeats):
        row = (tl.program_id(0) * repeats + repeat) * ROWS + tl.arange(0, ROWS)[:, None]
        there = known & (row < rows)
        at = ((row // inner) * channels + channel) * inner + row % inner
        value = tl.load(x + at, mask=there, other=0).to(tl.float32)
        passes = there
        if RECTIFIES:
            passes = passes & ~(value <= 0)
            value = tl.where(value <= 0, 0.0, value)  # NaN stays, as everywhere below
            if CEILED:
                passes = passes & ~(value >= ceiling)
                value = tl.where(value >= ceiling, ceiling, value)
        if sums is not None:
            total += tl.sum(tl.where(there, tl.abs(value), 0.0), 0, keep_dims=True)
        masked = value
        if keep is not None:
            masked = tl.where(kept, value, 0.0)
            passes = passes & kept
        if high is not None:
            seen = masked if RANGE_MASKED else value
            # maxima of numbers know no NaN; infinity says the same to who asks whether all was finite
            above = tl.where(seen == seen, seen, float("inf"))
            largest = tl.maximum(largest, tl.max(tl.where(there, above, float("-inf")), 0, keep_dims=True))
            below = tl.where(seen == seen, seen, float("-inf"))
            smallest = tl.minimum(smallest, tl.min(tl.where(there, below, float("inf")), 0, keep_dims=True))
        result = masked
        if scale is not None:
            result, inside = _rounded(masked, step, least, most)
            if active is not None:
                on = tl.load(active) != 0
                result = tl.where(on, result, masked)
                inside = inside | ~on
            if CLIPS:
                passes = passes & inside
        if y is not None:
            tl.store(y + at, result.to(y.dtype.element_ty), mask=there)
        if passed is not None:
            tl.store(passed + at, passes, mask=there)

    if sums is not None:
        tl.store(sums + tl.program_id(0) * channels + channel, total, mask=known)
        if (tl.program_id(0) == 0) & (tl.program_id(1) == 0):
            tl.store(count, tl.load(count) + rows)
    if high is not None:
        if PER_CHANNEL:
            tl.atomic_max(high + channel, largest, mask=known, sem="relaxed")
            tl.atomic_min(low + channel, smallest, mask=known, sem="relaxed")
        else:
            tl.atomic_max(high, tl.max(largest), sem="relaxed")
            tl.atomic_min(low, 0.0 if NONNEGATIVE else tl.min(smallest), sem="relaxed")


@triton.jit
def _compress_rows(table, FIELDS: tl.constexpr, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    # a program has one channel of one tensor; what is absent has address 0
    row, entry = tl.program_id(0), table + tl.program_id(1) * FIELDS
    rows, length = tl.load(entry), tl.load(entry + 1)
    there = row < rows
    first, last = tl.load(entry + 2), tl.load(entry + 3)
    x = tl.load(entry + 4).to(tl.pointer_type(tl.float32)) + row * length
    y = tl.load(entry + 5).to(tl.pointer_type(tl.float32)) + row * length
    low, high = tl.load(entry + 6).to(tl.pointer_type(tl.float32)), tl.load(entry + 7).to(tl.pointer_type(tl.float32))
    keep, scale = tl.load(entry + 8).to(tl.pointer_type(tl.int8)), tl.load(entry + 9).to(tl.pointer_type(tl.float32))
    zero_point, active = (
        tl.load(entry + 10).to(tl.pointer_type(tl.int32)),
        tl.load(entry + 11).to(tl.pointer_type(tl.int8)),
    )
    writes, measures = there & (tl.load(entry + 5) != 0), there & (tl.load(entry + 7) != 0)
    rounds = there & (tl.load(entry + 9) != 0)
    kept = tl.load(keep + row, mask=there & (tl.load(entry + 8) != 0), other=1) != 0
    step = tl.load(scale + row, mask=rounds, other=1.0)
    zero = tl.load(zero_point + row, mask=there & (tl.load(entry + 10) != 0), other=0)
    rounds = rounds & (tl.load(active, mask=tl.load(entry + 11) != 0, other=1) != 0)
    least, most = (first - zero).to(tl.float32), (last - zero).to(tl.float32)
    largest, smallest = tl.full((TILE,), float("-inf"), tl.float32), tl.full((TILE,), float("inf"), tl.float32)
    for start in range(0, tl.where(there, length, 0), TILE):
        at = start + tl.arange(0, TILE)
        inside = at < length
        value = tl.load(x + at, mask=inside, other=0)
        known = value == value
        largest = tl.maximum(largest, tl.where(inside, tl.where(known, value, float("inf")), float("-inf")))
        smallest = tl.minimum(smallest, tl.where(inside, tl.where(known, value, float("-inf")), float("inf")))
        masked = tl.where(kept, value, 0.0)
        result, _ = _rounded(masked, step, least, most)
        tl.store(y + at, tl.where(rounds, result, masked), mask=inside & writes)
    tl.store(high + row, tl.max(largest), mask=measures)
    tl.store(low + row, tl.min(smallest), mask=measures)


@triton.jit(do_not_specialize=COUNTS)
def _add_scores(  # type: ignore[no-untyped-def]
    sums, score, count, rows, channels, programs, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    known = channel < channels
    total = tl.zeros((1, CHANNELS), tl.float32)
    for start in range(0, programs, ROWS):
        program = start + tl.arange(0, ROWS)[:, None]
        there = known & (program < programs)
        total += tl.sum(tl.load(sums + program * channels + channel, mask=there, other=0.0), 0, keep_dims=True)
    before = tl.load(score + channel, mask=known, other=0.0)
    seen = tl.zeros((1, CHANNELS), tl.float32) + rows
    mean, weight = tl.div_rn(total, seen), tl.div_rn(seen, tl.load(count).to(tl.float32))
    # as torch.lerp, which is exact at either end
    near_first, near_last = before + weight * (mean - before), mean - (mean - before) * (1 - weight)
    tl.store(score + channel, tl.where(weight < 0.5, near_first, near_last), mask=known)


@triton.jit(do_not_specialize=COUNTS)
def _pass(  # type: ignore[no-untyped-def]
    gradient, out, values, passed, keep, rows, channels, inner, ceiling,
    CEILED: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    there = (channel < channels) & (row < rows)
    at = ((row // inner) * channels + channel) * inner + row % inner
    slope = tl.load(gradient + at, mask=there, other=0)
    passes = there
    if values is not None:
        value = tl.load(values + at, mask=there, other=0).to(tl.float32)
        passes = passes & ~(value <= 0)
        if CEILED:
            passes = passes & ~(value >= ceiling)
    if passed is not None:
        passes = passes & (tl.load(passed + at, mask=there, other=0) != 0)
    if keep is not None:
        passes = passes & (tl.load(keep + channel, mask=there, other=0) != 0)
    tl.store(out + at, tl.where(passes, slope, 0.0).to(out.dtype.element_ty), mask=there)


def compress(
    x: Tensor,
    y: Tensor | None,
    passed: Tensor | None,
    axis: int,
    ceiling: float | None,
    keep: Tensor | None,
    score: Tensor | None,
    count: Tensor | None,
    low: Tensor | None,
    high: Tensor | None,
    range_masked: bool,
    nonnegative: bool,
    scale: Tensor | None,
    zero_point: Tensor | None,
    active: Tensor | None,
    first: int,
    last: int,
    clips: bool,
) -> None:
    """The operation ``qprune::compress_site``; see `qprune.layers.fused`."""
    x = _laid_out_like(x, y if y is not None else x if is_dense(x) else torch.empty_like(x))
    # what a state was loaded from need not be dense; accumulators are the layers' own
    keep, scale, zero_point = (each if each is None else each.contiguous() for each in (keep, scale, zero_point))
    grid = scale if scale is not None else low
    per_channel = grid is not None and grid.dim() > 0
    by_channel = per_channel or keep is not None or score is not None
    tiles = _tiles(x, axis, by_channel, measured=score is not None or high is not None)
    sums = None if score is None else torch.empty(tiles.programs, tiles.channels, device=x.device)
    with _on_device_of(x):
        _compress[tiles.grid](
            x, y, passed, keep, sums, count, low, high, scale, zero_point, active,
            tiles.rows, tiles.channels, tiles.inner, tiles.repeats, ceiling or math.inf, first, last,
            ceiling is not None, ceiling is not None and ceiling < math.inf, per_channel, range_masked,
            nonnegative, clips, tiles.tile_rows, tiles.tile_channels,
        )  # fmt: skip
        if score is not None:
            _add_scores[(triton.cdiv(tiles.channels, 32),)](
                sums, score, count, tiles.rows, tiles.channels, tiles.programs, TILE // 32, 32
            )


def compress_rows(x: list[Tensor], *others: list[Any]) -> None:
    """The operation ``qprune::compress_rows``; see `qprune.layers.fused`."""
    # what a state was loaded from need not be dense; kept here until the kernel is under way
    tensors = [[each if each is None else each.contiguous() for each in column] for column in others[3:-2]]
    table = [
        [len(row[0]), row[0].numel() // len(row[0]), a, b, *(0 if each is None else each.data_ptr() for each in row)]
        for a, b, *row in zip(*others[-2:], x, *others[:3], *tensors, strict=True)
    ]
    most = max(len(each) for each in x)
    with _on_device_of(x[0]):
        _compress_rows[(most, len(x))](torch.tensor(table).to(x[0].device, non_blocking=True), len(table[0]), TILE)


def pass_gradient(
    gradient: Tensor,
    out: Tensor,
    axis: int,
    ceiling: float | None,
    values: Tensor | None,
    passed: Tensor | None,
    keep: Tensor | None,
) -> None:
    """The operation ``qprune::pass_gradient``; see `qprune.layers.fused`."""
    gradient = _laid_out_like(gradient, out)
    tiles = _tiles(out, axis, by_channel=keep is not None)
    with _on_device_of(out):
        _pass[tiles.grid](
            gradient, out, values, passed, keep, tiles.rows, tiles.channels, tiles.inner, ceiling or math.inf,
            ceiling is not None and ceiling < math.inf, tiles.tile_rows, tiles.tile_channels,
        )  # fmt: skip


class _Tiles(NamedTuple):
    """How a tensor's memory is cut: ``programs`` share the rows of a channel, each in so many ``repeats``."""

    rows: int
    channels: int
    inner: int
    tile_rows: int
    tile_channels: int
    repeats: int
    programs: int
    grid: tuple[int, int]


def _tiles(x: Tensor, axis: int, by_channel: bool, measured: bool = False) -> _Tiles:
    """The tiles of ``x``; with one channel for all where nothing is asked of single ones."""
    channels = x.shape[axis] if by_channel else 1
    # a dimension of one entry may have any stride
    return _cut(x.numel() // channels, channels, x.stride(axis) if channels > 1 else 1, PROGRAMS if measured else None)


@functools.lru_cache(maxsize=4096)  # a network has its shapes again at every step
def _cut(rows: int, channels: int, inner: int, most: int | None) -> _Tiles:
    # neighbours in memory are neighbours in a tile: along the channels where those are closer
    tile_channels = min(_power_of_two(channels), 64 if inner < 64 else 1)
    tile_rows = min(_power_of_two(rows), TILE // tile_channels)
    if tile_rows * tile_channels < TILE:  # as for the weight of a depthwise convolution
        tile_channels = min(_power_of_two(channels), TILE // tile_rows)
    tiles, beside = triton.cdiv(rows, tile_rows), triton.cdiv(channels, tile_channels)
    repeats = 1 if most is None else triton.cdiv(tiles, max(1, most // beside))
    programs = triton.cdiv(tiles, repeats)
    return _Tiles(rows, channels, inner, tile_rows, tile_channels, repeats, programs, (programs, beside))


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not below ``number``."""
    return 1 << (number - 1).bit_length()


def _laid_out_like(x: Tensor, like: Tensor) -> Tensor:
    if x.stride() == like.stride() or all(
        a == b for a, b, size in zip(x.stride(), like.stride(), x.shape, strict=True) if size > 1
    ):
        return x
    return torch.empty_like(like, dtype=x.dtype).copy_(x)


def _on_device_of(x: Tensor) -> Any:
    # kernels are launched on the current device, which need not be that of the values
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
