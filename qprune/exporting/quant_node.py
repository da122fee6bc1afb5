"""The node `Quant` of QONNX files, explained to runtimes that know standard operators alone."""

from typing import Any

from qprune.exporting.packages import import_onnx

OPSET = 21  # the first with 4-bit integers
DOMAIN = "qonnx.custom_op.general"
# What `Quant` computes, out of standard operators; the zero point is added before rounding, as in the package qonnx.
QUANT = f"""
<domain: "{DOMAIN}", opset_import: ["": {OPSET}]>
Quant <signed, narrow, rounding_mode> (x, scale, zeropt, bitwidth) => (y) {{
    signed_integer = Constant <value_int: int = @signed> ()
    narrow_integer = Constant <value_int: int = @narrow> ()
    is_signed = CastLike (signed_integer, x)
    is_narrow = CastLike (narrow_integer, x)
    one = Constant <value_float: float = 1.0> ()
    two = Constant <value_float: float = 2.0> ()
    bits = Sub (bitwidth, is_signed)
    count = Pow (two, bits)
    least = Sub (is_narrow, count)
    low = Mul (is_signed, least)
    unsigned = Sub (one, is_signed)
    left_out = Mul (unsigned, is_narrow)
    last = Sub (count, one)
    high = Sub (last, left_out)
    steps = Div (x, scale)
    moved = Add (steps, zeropt)
    above = Max (moved, low)
    inside = Min (above, high)
    code = Round (inside)
    centred = Sub (code, zeropt)
    y = Mul (centred, scale)
}}
"""


def runnable(model: Any) -> Any:
    """An ONNX model that any ONNX runtime runs: a copy of a QONNX model that says itself what ``Quant`` computes.

    A model of another kind, or one that says it already, is given back as it is.
    """
    explained = any(each.domain == DOMAIN for each in model.functions)
    if explained or not any(each.domain == DOMAIN for each in model.opset_import):
        return model
    onnx = import_onnx()
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    copied.functions.append(onnx.parser.parse_function(QUANT))
    return copied
