"""`LayerShape`: all of a layer that its time depends on, but for its channels."""

from typing import Any, Literal

from attrs import evolve, frozen
from torch import nn

from qprune.flow import Call, Shape
from qprune.layers import QuantConv2d, QuantConvTranspose2d, QuantLinear
from qprune.shrinking.weights import input_count, output_count

Numbers = Literal["real", "integer", "sums"]
Counts = tuple[int, int]  # input and output channels

# the grid: close where few channels are, since runtimes compute 8 or 16 at once, and 17 take as long as 24 or 32
COUNTS = (1, 8, 16, 24, 32, 48, 64, 96, *(2**power for power in range(7, 16)))


@frozen
class LayerShape:
    """A layer with weights, without its numbers of channels."""

    type: str  # ``"Conv2d"``, ``"ConvTranspose2d"`` or ``"Linear"``
    size: Shape  # of its input: height and width; for a linear layer what stands between batch and features
    # what else the constructor is given, sorted: kernel_size, stride, padding
    options: tuple[tuple[str, Any], ...] = ()
    groups: int = 1  # 1, or those of a grouped convolution; 0 for a depthwise one, which has as many as inputs
    outputs_per_input: int = 0  # of a depthwise one
    image: int = 0  # the input channels where they are the network's own, and stay
    numbers: Numbers = "real"  # that it computes with; ``"sums"``: it reads integers and writes reals

    def __str__(self) -> str:
        """The name in a table."""
        size = " x ".join(map(str, ([self.image] if self.image else []) + list(self.size)))
        told = [f"{self.type}{f' of {size}' if size else ''}", *self._told()]
        return ", ".join(told)

    def _told(self) -> list[str]:
        options = [f"{name} {_words(value)}" for name, value in self.options if value != USUAL.get(name)]
        groups = [f"groups {self.groups or 'of one'}"] if self.groups != 1 else []
        times = [f"{self.outputs_per_input} outputs each"] if self.outputs_per_input > 1 else []
        numbers = {"real": "in real numbers", "integer": "in integers", "sums": "in integers to real sums"}
        return [*options, *groups, *times, numbers[self.numbers]]

    def of(self, numbers: Numbers) -> "LayerShape":
        """The same with other numbers; real ones where there is no way to compute it in integers."""
        return evolve(self, numbers=numbers if self._has_integers() else "real")

    def _has_integers(self) -> bool:
        options = dict(self.options)
        if self.type == "Linear":
            return not self.size
        return self.type == "Conv2d" or (
            self.groups == 1 and set(options["dilation"]) == {1} and len(set(options["stride"])) == 1
        )

    def layer(self, counts: Counts) -> nn.Module:
        """Such a layer with so many channels, and weights by chance; quantizers in it are yet to get their ranges."""
        inputs, outputs = counts
        kind = TYPES[self.type][self.numbers != "real"]
        options = {} if self.type == "Linear" else {"groups": self.groups or inputs, **dict(self.options)}
        return kind(inputs, outputs, **options).eval()

    def input(self, inputs: int) -> Shape:
        """The shape of one input of it with so many channels."""
        return (1, *self.size, inputs) if self.type == "Linear" else (1, inputs, *self.size)

    def grid(self, dense: Counts, least: float) -> list[Counts]:
        """The points of the grid that layers need which keep a share of at least ``least`` of the channels."""
        spans = [range(max(1, int(least * count)), count + 1) for count in dense]
        found = {
            self.complete(i, o)
            for inputs in spans[0]
            for i in self.corners(inputs, dense[1])[0]
            for outputs in spans[1]
            for o in self.corners(dense[0], outputs)[1]
        }
        return sorted(found)

    def corners(self, inputs: float, outputs: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The counts on the grid around these: of inputs and of outputs, one or two each."""
        groups = max(self.groups, 1)
        around = (self.image,) if self.image else tuple(groups * count for count in _around(inputs / groups))
        if self.groups == 0:
            return around, (0,)  # as many as follow from the inputs
        return around, tuple(groups * count for count in _around(outputs / groups))

    def complete(self, inputs: int, outputs: int) -> Counts:
        """Both counts of a point of the grid, where a depthwise layer has one."""
        return inputs, outputs or inputs * self.outputs_per_input


# of real numbers, and of integers
TYPES: dict[str, tuple[Any, Any]] = {
    "Conv2d": (nn.Conv2d, QuantConv2d),
    "ConvTranspose2d": (nn.ConvTranspose2d, QuantConvTranspose2d),
    "Linear": (nn.Linear, QuantLinear),
}
# of torch: what need not be told
USUAL = {"stride": (1, 1), "padding": (0, 0), "output_padding": (0, 0), "dilation": (1, 1), "padding_mode": "zeros"}


def shape_of(layer: nn.Module, call: Call) -> LayerShape:
    """That of a convolution or linear layer, with masks and quantizers or without, in one of its calls."""
    inputs, outputs = input_count(layer), output_count(layer)
    image = inputs if call.inputs[0] < 0 else 0
    if isinstance(layer, nn.Linear):
        return LayerShape("Linear", tuple(call.shapes[0][1:-1]), image=image)
    host: Any = layer
    kind = "ConvTranspose2d" if isinstance(layer, nn.ConvTranspose2d) else "Conv2d"
    names = ["kernel_size", "stride", "padding", "dilation"]
    names += ["output_padding"] if kind == "ConvTranspose2d" else ["padding_mode"]
    options = tuple((name, getattr(host, name)) for name in names)
    depthwise = host.groups == inputs > 1
    return LayerShape(
        kind,
        tuple(call.shapes[0][2:]),
        options,
        groups=0 if depthwise else host.groups,
        outputs_per_input=outputs // inputs if depthwise else 0,
        image=image,
    )


def _around(count: float) -> tuple[int, ...]:
    below = max((each for each in COUNTS if each <= count), default=COUNTS[0])
    above = min((each for each in COUNTS if each >= count), default=COUNTS[-1])
    return (below,) if below == above else (below, above)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
