"""Compiles the kernels for a GPU of today, which takes none, and prints what of it a test wants to know.

For each kernel, with all that it can do and with as little as possible: the instructions that divide, multiply and add
at once, or write to memory that others write to as well.
"""

import json
import re
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from qprune.layers import gpu_kernels

POINTERS = {
    "x": "*bf16", "y": "*bf16", "passed": "*i1", "keep": "*i1", "sums": "*fp32", "score": "*fp32", "count": "*i64",
    "low": "*fp32", "high": "*fp32", "scale": "*fp32", "zero_point": "*i32", "active": "*i1", "gradient": "*fp16",
    "out": "*fp16", "values": "*fp16", "table": "*i64",
}  # fmt: skip
NUMBERS = dict.fromkeys(("rows", "channels", "inner", "repeats", "programs", "first", "last"), "i32") | {
    "ceiling": "fp32"
}
NEEDED = ("x", "y", "gradient", "out", "score", "table")  # others may be None
SHAPES = {"ROWS": 32, "CHANNELS": 32, "FIELDS": 12, "TILE": 1024}


def compiled(kernel, full, flags):
    absent = [] if full else [name for name in kernel.arg_names if name in POINTERS and name not in NEEDED]
    constants = dict.fromkeys(absent) | {name: flags for name in kernel.arg_names if name.isupper()}
    constants |= {name: size for name, size in SHAPES.items() if name in kernel.arg_names}
    types = POINTERS | NUMBERS | dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        fn=kernel,
        signature={name: types[name] for name in kernel.arg_names},
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
    )
    assembly = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm
    assert assembly["cubin"]
    return sorted(
        set(re.findall(r"(?:div|fma|atom|red)\.[a-z0-9_.]*f32|(?:atom|red)\.global[a-z0-9_.]*", assembly["ptx"]))
    )


if __name__ == "__main__":
    found = {
        "everything, per tensor": compiled(gpu_kernels._compress, True, False),
        "everything": compiled(gpu_kernels._compress, True, True),
        "nothing": compiled(gpu_kernels._compress, False, False),
        "rows": compiled(gpu_kernels._compress_rows, True, True),
        "scores": compiled(gpu_kernels._add_scores, True, True),
        "gradient": compiled(gpu_kernels._pass, True, True),
        "bare gradient": compiled(gpu_kernels._pass, False, False),
    }
    json.dump(found, sys.stdout)
