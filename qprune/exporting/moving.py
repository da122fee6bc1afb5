"""Operations that move numbers about, and change none: integers stay integers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from qprune.exporting.lowering import Lowering
from qprune.exporting.no_way import NoWayError
from qprune.exporting.values import Codes, Other, Real, Size, Value

Shape = tuple[int, ...]
LAST = np.iinfo(np.int64).max


def pair(value: Any) -> list[Any]:
    """One number for both sides, or two."""
    found = list(value) if isinstance(value, (tuple, list)) else [value]
    return found if len(found) > 1 else found * 2


def same(low: Lowering, name: str, shape: Shape, value: Value, *_: Any, **__: Any) -> Value:
    """The value itself."""
    if isinstance(value, Other):
        raise NoWayError
    return value


def joined(low: Lowering, name: str, shape: Shape, values: Sequence[Value], dim: int = 0) -> Value:
    """One behind the other; in integers where all stand for the same numbers."""
    first = values[0]
    if isinstance(first, Codes) and all(isinstance(v, Codes) and v.grid.like(first.grid) for v in values):
        return Codes(low.graph.node("Concat", [v.name for v in values], name, axis=dim), first.grid)  # type: ignore[union-attr]
    return Real(low.graph.node("Concat", [low.real(value) for value in values], name, axis=dim))


def stacked(low: Lowering, name: str, shape: Shape, values: Sequence[Value], dim: int = 0) -> Value:
    """Side by side along a new dimension."""
    return joined(low, name, shape, [unsqueezed(low, f"{name}.part", shape, each, dim) for each in values], dim)


def flattened(low: Lowering, name: str, shape: Shape, value: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    """Join the last dimensions into one."""
    value, start = low.settled(value), start_dim % len(shape)
    if end_dim % len(shape) != len(shape) - 1:
        raise NoWayError("dimensions before the last one are joined")
    if start == 1:
        return low.moved("Flatten", value, name, axis=1)
    return low.moved("Reshape", value, name, [low.integers([0] * start + [-1], "shape")])


def viewed(low: Lowering, name: str, shape: Shape, value: Value, sizes: Sequence[Any]) -> Value:
    """Give it another shape."""
    return low.moved("Reshape", low.settled(value), name, [low.lengths(sizes, f"{name}.shape")])


def expanded(
    low: Lowering, name: str, shape: Shape, value: Value, sizes: Sequence[Any], implicit: bool = False
) -> Value:
    """Repeat what has one entry along a dimension."""
    sizes = [1 if isinstance(size, int) and size == -1 else size for size in sizes]
    return low.moved("Expand", low.settled(value), name, [low.lengths(sizes, f"{name}.shape")])


def permuted(low: Lowering, name: str, shape: Shape, value: Value, dims: Sequence[int]) -> Value:
    """Change the order of the dimensions."""
    return low.moved("Transpose", low.settled(value), name, perm=[each % len(shape) for each in dims])


def transposed(low: Lowering, name: str, shape: Shape, value: Value, dim0: int = 0, dim1: int = 1) -> Value:
    """Exchange two dimensions."""
    order = list(range(len(shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permuted(low, name, shape, value, order)


def unsqueezed(low: Lowering, name: str, shape: Shape, value: Value, dim: int) -> Value:
    """Add a dimension."""
    return low.moved("Unsqueeze", low.settled(value), name, [low.integers([dim], "axes")])


def squeezed(low: Lowering, name: str, shape: Shape, value: Value, dim: Any) -> Value:
    """Leave out dimensions of length 1."""
    dims = [dim] if isinstance(dim, int) else dim
    dims = [each % len(shape) for each in dims if shape[each] == 1]
    return low.moved("Squeeze", low.settled(value), name, [low.integers(dims, "axes")]) if dims else value


def split(low: Lowering, name: str, shape: Shape, value: Value, size: Any, dim: int = 0) -> list[Value]:
    """Parts along a dimension, of one size or of several."""
    sizes = list(size) if isinstance(size, (tuple, list)) else [size] * (shape[dim] // size) + [shape[dim] % size]
    sizes = [each for each in sizes if each]
    value = low.settled(value)
    names = [f"{name}.{part}" for part in range(len(sizes))]
    source = value.name if isinstance(value, Codes) else low.real(value)
    results = low.graph.nodes_of("Split", [source, low.integers(sizes, "sizes")], names, axis=dim)
    return [Codes(each, value.grid) if isinstance(value, Codes) else Real(each) for each in results]


def unbound(low: Lowering, name: str, shape: Shape, value: Value, dim: int = 0) -> list[Value]:
    """Entry by entry along a dimension, which is gone in them."""
    parts = split(low, name, shape, value, 1, dim)
    one = tuple(1 if place == dim % len(shape) else side for place, side in enumerate(shape))
    return [squeezed(low, f"{name}.entry_{place}", one, part, dim) for place, part in enumerate(parts)]


def selected(low: Lowering, name: str, shape: Shape, value: Value, dim: int, index: Any) -> Value:
    """One entry along a dimension, which is gone in it."""
    place = index.name if isinstance(index, Size) else low.integers([index], "index")
    picked = low.moved("Gather", low.settled(value), f"{name}.entry", [place], axis=dim)
    return low.moved("Squeeze", picked, name, [low.integers([dim], "axes")])


def sliced(
    low: Lowering, name: str, shape: Shape, value: Value, dim: int = 0, start: Any = None, end: Any = None,
    step: int = 1,
) -> Value:  # fmt: skip
    """Entries from one place to another along a dimension."""
    corners = [low.length(0 if start is None else start), low.length(LAST if end is None else end)]
    rest = [low.integers([dim], "axes"), low.integers([step], "steps")]
    return low.moved("Slice", low.settled(value), name, [*corners, *rest])


def put_into(
    low: Lowering, name: str, shape: Shape, value: Value, part: Value, dim: int = 0, start: Any = None, end: Any = None,
    step: int = 1,
) -> Value:  # fmt: skip
    """A tensor with a part of it exchanged."""
    if step != 1 or isinstance(start, Size) or isinstance(end, Size):
        raise NoWayError("every other entry, or entries up to a side length, are overwritten")
    first, last, _ = slice(start, end).indices(shape[dim])
    value = low.settled(value)
    parts = [sliced(low, f"{name}.before", shape, value, dim, 0, first)] if first else []
    parts.append(part)
    if last < shape[dim] or end not in (None, LAST):
        parts.append(sliced(low, f"{name}.behind", shape, value, dim, last))
    return joined(low, name, shape, parts, dim) if len(parts) > 1 else part


def put_entry(low: Lowering, name: str, shape: Shape, value: Value, part: Value, dim: int, index: int) -> Value:
    """A tensor with one entry along a dimension exchanged."""
    place = index % shape[dim]
    one = unsqueezed(low, f"{name}.entry", shape, part, dim)
    return put_into(low, name, shape, value, one, dim, place, place + 1)


def copied(low: Lowering, name: str, shape: Shape, value: Value, source: Any, non_blocking: bool = False) -> Value:
    """Another tensor, repeated until it has the shape of this one."""
    target = low.graph.node("Shape", [low.name(value)], f"{name}.shape")
    return low.moved("Expand", low.settled(source), name, [target])


def filled(low: Lowering, name: str, shape: Shape, value: Value, number: Any) -> Value:
    """One number everywhere."""
    source = number if isinstance(number, Real) else Real(low.graph.constant(np.float32(number), "number"))
    return copied(low, name, shape, value, source)


def padded(
    low: Lowering, name: str, shape: Shape, x: Value, pad: Sequence[Any], value: float = 0, *, mode: str = "constant"
) -> Value:
    """Pad the last dimensions; in integers, too, where the padding is among the numbers."""
    if value:
        raise NoWayError("padding with a number other than 0")
    others = [0] * (len(shape) - len(pad) // 2)
    x = low.settled(x)
    # torch counts from the last dimension, and has before and behind side by side
    inputs = [low.lengths([*others, *pad[-2::-2], *others, *pad[::-2]], f"{name}.pads")]
    if mode == "constant":
        inputs.append(low.zero(x))
    return low.moved("Pad", x, name, inputs, mode={"replicate": "edge", "circular": "wrap"}.get(mode, mode))


def padded_as_told(
    low: Lowering, name: str, shape: Shape, x: Value, pad: Sequence[Any], mode: str, value: float | None = None
) -> Value:
    """`F.pad`, whose arguments stand in another order than those of the operation."""
    return padded(low, name, shape, x, pad, value or 0, mode=mode)


def resized(
    low: Lowering, name: str, shape: Shape, value: Value, size: Any = None, scale_factor: Any = None,
    mode: str = "nearest", align_corners: bool | None = None, recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Value:  # fmt: skip
    """Resize by factors or to side lengths; to the nearest neighbour in integers, too."""
    if antialias or recompute_scale_factor:
        raise NoWayError("antialias and recompute_scale_factor")
    if mode not in ("nearest", "bilinear", "bicubic") or len(shape) != 4:
        raise NoWayError(f'resizing by "{mode}"' if len(shape) == 4 else "resizing other than images")
    value = low.settled(value)
    if scale_factor is not None:
        factors = [1.0, 1.0, *map(float, pair(scale_factor))]
        inputs = ["", low.graph.constant(np.asarray(factors, np.float32), "factors")]
    else:
        batch = low.graph.node("Shape", [low.name(value)], f"{name}.batch", start=0, end=2)
        inputs = ["", "", low.graph.node("Concat", [batch, *map(low.length, pair(size))], f"{name}.size", axis=0)]
    if mode == "nearest":
        rounding = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return low.moved("Resize", value, name, inputs, mode=mode, **rounding)
    options: dict[str, Any] = {
        "coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel",
        "mode": "linear" if mode == "bilinear" else "cubic",
        "cubic_coeff_a": -0.75,
    }
    return Real(low.graph.node("Resize", [low.real(value), *inputs], name, **options))


def channels_shuffled(low: Lowering, name: str, shape: Shape, value: Value, groups: int) -> Value:
    """The first channels of all groups, then the second ones, as in `torch.nn.ChannelShuffle`."""
    order = np.arange(shape[1]).reshape(groups, -1).T.reshape(-1)
    return low.moved("Gather", low.settled(value), name, [low.integers(order.tolist(), "channels")], axis=1)


def shuffled(low: Lowering, name: str, shape: Shape, value: Value, factor: int) -> Value:
    """Channels become positions, as in `torch.nn.PixelShuffle`."""
    return low.moved("DepthToSpace", low.settled(value), name, blocksize=factor, mode="CRD")
