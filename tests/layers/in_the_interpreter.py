"""The kernels beside the functions that they stand for, in Triton's interpreter on the CPU.

Prints for each kind of comparison how many were made, and those that do not hold; to be run with TRITON_INTERPRET=1,
which Triton reads when it is imported.
"""

import itertools
import json
import math
import random
import sys

import torch

from qprune.layers import gpu_kernels
from qprune.layers.fused import _compress_plainly, _compress_rows_plainly, _pass_plainly

SHAPES = [(2, 3, 5, 7), (3, 70, 2, 3), (2, 5), (1, 4, 1, 1), (2, 1, 3, 5), (7,), (2, 3, 33, 17), (5, 3, 9)]
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "with gaps": lambda x: torch.stack([x, x], -1)[..., 0],
}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SPECIAL = [
    0.0,
    -0.0,
    0.25,
    0.75,
    1.25,
    -0.25,
    -0.75,
    6.0,
    -1e4,
    1e4,
]  # halves of steps of 0.5, the ceiling, far outside
OPTIONS = {
    "ceiling": (None, math.inf, 6.0),
    "masked": (False, True),
    "scored": (False, True),
    "range": (None, "tensor", "channel"),
    "grid": (None, "tensor", "channel"),
    "symmetric": (False, True),
    "active": (None, True, False),
    "clips": (False, True),
    "store": (True, False),
}


def values(shape, layout, dtype):
    x = torch.randn(shape) * 3
    x.view(-1)[: len(SPECIAL)] = torch.tensor(SPECIAL)[: x.numel()]
    return LAYOUTS[layout](x.to(dtype))


def state(channels, o, seed):
    """Accumulators that some forward has written to, and a grid; made anew for who is to write there."""
    torch.manual_seed(seed)
    ends, grid = ((channels,) if o[name] == "channel" else () for name in ("range", "grid"))
    began = seed % 3 == 0
    score, count = torch.rand(channels), torch.tensor(7 * began)
    low, high = torch.full(ends, -0.1 if began else math.inf), torch.full(ends, 0.2 if began else -math.inf)
    scale, zero = torch.full(grid, 0.5) if seed % 2 else torch.rand(grid) + 0.1, torch.randint(0, 16, grid).int()
    if seed % 5 == 0:
        scale = torch.stack([scale, scale], -1)[..., 0]  # as a state may hold it that was assigned
    measured = (score, count) if o["scored"] else (None, None)
    measured += (low, high) if o["range"] else (None, None)
    if o["grid"] is None:
        return measured, (None, None, None)
    return measured, (
        scale,
        None if o["symmetric"] else zero,
        None if o["active"] is None else torch.tensor(o["active"]),
    )


def both(x, axis, o, seed, nonsense=None):
    """What functions and kernels make of the same: result, what passes, accumulators."""
    channels = x.shape[axis]
    keep = torch.arange(channels) % 2 == 0 if o["masked"] else None
    if nonsense is not None:
        x = x.clone()
        x.select(axis, 1).fill_(nonsense)
    bounds = (-7, 7) if o["symmetric"] else (0, 15)
    per_channel = "channel" in (o["range"], o["grid"])
    flags = seed % 2 == 0 or not per_channel, o["ceiling"] is not None and seed % 4 < 2
    for compute in (_compress_plainly, gpu_kernels.compress):
        measured, grid = state(channels, o, seed)
        # the interpreter cuts bits off where bfloat16 is to be rounded
        exact = compute is _compress_plainly or x.dtype != torch.bfloat16
        y = torch.empty_like(x, dtype=x.dtype if exact else torch.float32) if o["store"] else None
        passed = torch.empty_like(x, dtype=torch.bool) if o["store"] else None
        compute(x, y, passed, axis, o["ceiling"], keep, *measured, *flags, *grid, *bounds, o["clips"])
        yield None if y is None else y.to(x.dtype), passed, *measured


def same(plain, kernel):
    y, passed, score, count, *ends = plain
    other, other_passed, other_score, other_count, *other_ends = kernel
    if y is not None and not (
        torch.equal(y.nan_to_num(77), other.nan_to_num(77)) and torch.equal(passed, other_passed)
    ):
        return False
    for a, b in zip(ends, other_ends, strict=True):
        if a is not None:  # what is not finite is not taken, whether it is NaN or infinity
            finite = a.isfinite()
            if not torch.equal(finite, b.isfinite()) or not torch.equal(a[finite], b[finite]):
                return False
    if score is None:
        return True
    return torch.equal(count, other_count) and torch.allclose(score, other_score, rtol=1e-5, atol=1e-6, equal_nan=True)


def cases(each):
    """Each shape, layout and dtype with some of the products of the options, drawn by chance."""
    choice = random.Random(0)
    for shape, layout, dtype in list(itertools.product(SHAPES, LAYOUTS, DTYPES)) * each:
        o = {name: choice.choice(options) for name, options in OPTIONS.items()}
        if o["range"] and o["grid"]:
            o["range"] = o["grid"]  # a quantizer has one granularity
        yield choice.randrange(1000), shape, layout, dtype, o


def compare_sites():
    for number, shape, layout, dtype, o in cases(each=2):
        torch.manual_seed(number)
        x, axis = values(shape, layout, dtype), 1 if len(shape) > 1 else 0
        nonsense = (math.nan, math.inf, -math.inf, None)[number % 4] if shape[axis] > 1 else None
        if nonsense is math.nan and o["ceiling"] == 6.0 and not o["masked"]:
            nonsense = None  # torch's own hardtanh passes the gradient of NaN or not by where in memory it lies
        yield (shape, layout, dtype, o, nonsense), same(*both(x, axis, o, number, nonsense))


def compare_weights():
    """Channels along the first dimension, as many as in a depthwise convolution or few with many values each."""
    plain = dict.fromkeys(OPTIONS) | {"symmetric": True, "store": True}
    for shape in [(70, 1, 3, 3), (3, 40, 5, 5), (4, 6), (2, 1100)]:
        for layout, per, began in itertools.product(LAYOUTS, ("tensor", "channel"), (0, 1)):
            x = values(shape, layout, torch.float32)
            yield (shape, layout, per), same(*both(x, 0, plain | {"range": per, "grid": per}, began))


ROWS = [(70, 1, 3, 3), (3, 40, 5, 5), (4, 6), (2, 1100), (5,), (1, 2, 3, 3)]


def compare_rows():
    """Several tensors at once, of every shape, each with what the options say of it."""
    choice = random.Random(0)
    for number in range(40):
        torch.manual_seed(number)
        weights, states = [], []
        for shape in choice.sample(ROWS, 3):
            x = values(shape, choice.choice(("contiguous", "channels_last")), torch.float32)
            x[(-1,) * x.dim()] = choice.choice((math.nan, math.inf, -math.inf, 2.0))
            o = {name: choice.choice(OPTIONS[name]) for name in ("masked", "symmetric", "active")}
            o |= {"scored": False, "range": choice.choice((None, "channel")), "grid": choice.choice((None, "channel"))}
            weights.append(x)
            states.append((o, choice.randrange(100)))
        results = [
            list(rows(compute, weights, states)) for compute in (_compress_rows_plainly, gpu_kernels.compress_rows)
        ]
        for (o, _), x, plain, kernel in zip(states, weights, *results, strict=True):
            yield (tuple(x.shape), o), same(plain, kernel)


def rows(compute, weights, states):
    columns = [[] for _ in range(10)]
    for x, (o, seed) in zip(weights, states, strict=True):
        measured, grid = state(len(x), o, seed)
        keep = torch.arange(len(x)) % 2 == 0 if o["masked"] else None
        y = torch.empty_like(x) if o["masked"] or o["grid"] else x.new_empty(0)
        ends = x.new_empty(2, len(x) if measured[3] is not None else 0).unbind()
        entry = (x, y, *ends, keep, *grid, *((-7, 7) if o["symmetric"] else (0, 15)))
        for column, each in zip(columns, entry, strict=True):
            column.append(each)
    compute(*columns)
    for y, low, high in zip(*columns[1:4], strict=True):
        yield y, torch.empty(0), None, None, low, high


def compare_large():
    """So many values that programs take several tiles each, and sums come from many programs."""
    gpu_kernels.PROGRAMS = 6
    o = dict.fromkeys(OPTIONS, True) | {"range": "tensor", "grid": "tensor", "ceiling": 6.0, "symmetric": False}
    for shape, layout in itertools.product([(2, 70, 31, 17), (3, 2, 64, 50)], ("contiguous", "channels_last")):
        yield (shape, layout), same(*both(values(shape, layout, torch.float32), 1, o, 3))


def compare_gradients():
    kinds = itertools.product((None, "values", "passed"), (False, True), (math.inf, 6.0))
    every = itertools.product(SHAPES, LAYOUTS, DTYPES, kinds)
    for shape, layout, dtype, (kind, masked, ceiling) in itertools.islice(every, 0, None, 5):
        axis = 1 if len(shape) > 1 else 0
        y = values(shape, layout, dtype)
        y = y.new_empty(y.shape).copy_(y) if layout == "with gaps" else y  # results have none
        gradient = torch.randn(shape).to(dtype)
        gradient.view(-1)[:2] = torch.tensor([math.nan, math.inf])
        keep = torch.arange(shape[axis]) % 2 == 0 if masked else None
        told = (y if kind == "values" else None, y > 1 if kind == "passed" else None, keep)
        results = []
        for compute in (_pass_plainly, gpu_kernels.pass_gradient):
            out = torch.full_like(y, 5)
            compute(gradient, out, axis, ceiling if kind == "values" else None, *told)
            results.append(out.nan_to_num(77))
        yield (shape, layout, dtype, kind, masked, ceiling), torch.equal(*results)


if __name__ == "__main__":
    found = {}
    for compare in (compare_sites, compare_weights, compare_rows, compare_gradients, compare_large):
        results = list(compare())
        found[compare.__name__] = len(results), [str(case) for case, equal in results if not equal]
    json.dump(found, sys.stdout)
