"""How each operation in the graph of a forward is written."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch.utils._pytree import tree_leaves

from qprune.errors import ExportError
from qprune.exporting import arithmetic as a
from qprune.exporting import moving as m
from qprune.exporting.lowering import Lowering
from qprune.exporting.moving import Shape
from qprune.exporting.no_way import NeverError, NoWayError
from qprune.exporting.values import Size


def lower_function(low: Lowering, name: str, target: Any, args: Any, kwargs: Any, shape: Shape) -> Any:
    """Write one call in the way that it has of its own; a NoWayError if it has none, or none for these arguments."""
    if not any(isinstance(each, (*a.VALUES, Size)) for each in tree_leaves((args, kwargs))):
        return target(*args, **kwargs)  # of numbers that are known
    word = str(getattr(target, "_opname", None) or target.__name__)
    write = FUNCTIONS.get(word)
    if write is None:
        raise NoWayError
    try:
        return write(low, name, shape, *args, **kwargs)
    except (ExportError, NoWayError):
        raise
    except Exception as error:  # arguments that the way does not know, or cannot compute with
        raise NoWayError from error


def call_in_words(target: Any, args: Any, kwargs: Any) -> str:
    """The call as it can be read: ``mean(tensor, [2, 3], True)``."""
    word = str(getattr(target, "_opname", None) or target.__name__).strip("_")

    def told(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(told, value))}]"
        return "tensor" if isinstance(value, a.VALUES) else "side" if isinstance(value, Size) else repr(value)

    return f"{word}({', '.join([*map(told, args), *(f'{name}={told(value)}' for name, value in kwargs.items())])})"


def _getitem(low: Lowering, name: str, shape: Shape, values: Any, index: int) -> Any:
    if not isinstance(values, (list, tuple)) or index >= len(values):
        raise NoWayError("a result that a file does not have, as the places of maxima")
    return values[index]


def _dropped(
    low: Lowering, name: str, shape: Shape, value: Any, p: float = 0.5, training: bool = True, **_: Any
) -> Any:
    if training and p > 0:
        raise NeverError("it drops in eval mode, too; pass training=self.training")
    return value


def _of_the_batch(*_: Any, **__: Any) -> Any:
    raise NeverError("it normalizes by the statistics of the images that come together, in eval mode, too")


_FLOOR = partial(a.divided, rounding_mode="floor")
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": a.binary("Add", of_sizes="Add"), "sub": a.binary("Sub", of_sizes="Sub"),
    "rsub": a.binary("Sub", swapped=True),
    "mul": a.binary("Mul", of_sizes="Mul"), "mod": a.binary("Mod", of_sizes="Mod"), "pow": a.binary("Pow"),
    "div": a.divided, "truediv": a.divided, "floordiv": _FLOOR, "floor_divide": _FLOOR,
    "maximum": a.binary("Max"), "minimum": a.binary("Min"), "sym_max": a.binary("Max", of_sizes="Max"),
    "sym_min": a.binary("Min", of_sizes="Min"),
    "abs": a.unary("Abs"), "neg": a.negative, "exp": a.unary("Exp"), "sqrt": a.unary("Sqrt"),
    "log": a.unary("Log"), "reciprocal": a.unary("Reciprocal"), "sigmoid": a.unary("Sigmoid"), "tanh": a.unary("Tanh"),
    "mish": a.unary("Mish"), "hardswish": a.unary("HardSwish"),
    "hardsigmoid": a.unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    "relu": partial(a.bounded, min=0), "hardtanh": a.hardtanh, "clamp": a.bounded, "clamp_min": a.bounded,
    "clamp_max": a.bounded_above, "leaky_relu": a.unary("LeakyRelu", alpha=0.01), "silu": a.gated,
    "gelu": a.unary("Gelu", approximate="none"), "_prelu_kernel": a.prelu,
    "_softmax": a.softmax("Softmax"), "_log_softmax": a.softmax("LogSoftmax"),
    "mean": a.reduced("ReduceMean"), "sum": a.reduced("ReduceSum"), "amax": a.reduced("ReduceMax"),
    "amin": a.reduced("ReduceMin"),
    "mm": a.multiplied, "bmm": a.multiplied, "addmm": a.multiplied_and_added, "baddbmm": a.multiplied_and_added,
    "convolution": a.convolved, "native_layer_norm": a.layer_normalized,
    "max_pool2d_with_indices": a.max_pooled, "avg_pool2d": a.average_pooled,
    "_adaptive_avg_pool2d": a.adaptive("Average"), "adaptive_max_pool2d": a.adaptive_max,
    "clone": m.same, "_to_copy": m.same, "getitem": _getitem, "cat": m.joined, "stack": m.stacked,
    "split": m.split, "split_with_sizes": m.split, "unbind": m.unbound, "select": m.selected, "slice": m.sliced,
    "slice_scatter": m.put_into, "select_scatter": m.put_entry, "copy": m.copied, "fill": m.filled,
    "full_like": m.filled, "flatten": m.flattened, "view": m.viewed, "_unsafe_view": m.viewed, "expand": m.expanded,
    "permute": m.permuted, "transpose": m.transposed, "t": m.transposed, "unsqueeze": m.unsqueezed,
    "squeeze": m.squeezed, "constant_pad_nd": m.padded, "interpolate": m.resized,
    "pad": m.padded_as_told,
    "pixel_shuffle": m.shuffled, "native_channel_shuffle": m.channels_shuffled,
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"), _dropped),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional",
         "_batch_norm_with_update_functional"), _of_the_batch,
    ),
}  # fmt: skip
