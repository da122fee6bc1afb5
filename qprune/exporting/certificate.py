"""The certificate of an exported file: how equal it is to the network that was trained, and what runs."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from attrs import field, frozen

from qprune.escaping import visible
from qprune.exporting.running import Operators
from qprune.tables import as_plain, html_table, short, table

STEPS = 255  # an output's range is divided into so many steps
HEADER = ("output", "equal", f"within 1/{STEPS}", "largest difference", "of")
RIGHT = "lrrrr"


@frozen
class Agreement:
    """How far one tensor agrees in network and file, over all inputs that were tried."""

    name: str  # of the output, or the quantizer's site
    values: int  # how many numbers were compared
    equal: float  # share of them that is equal: to the bit for outputs, the same integer for quantizers
    within_one: float  # share that differs by at most one step of a quantizer, or 1/255 of an output's largest value
    largest: float  # the largest difference, in the output's unit; in steps for a quantizer
    scale: float = 1.0  # the largest magnitude among the values of an output


@frozen
class Environment:
    """The environment in which the file ran."""

    runtime: str  # name and version
    processor: str  # its name
    optimization: str  # level of the runtime's graph optimizations
    saturates: bool  # whether integer sums can saturate here, see `qprune.exporting.probe.saturates`
    torch: str  # version of torch, which ran the network


@frozen
class Elsewhere:
    """How equal the network and the file are where another runtime runs it."""

    runtime: str  # name and version
    outputs: tuple[Agreement, ...] = ()  # one for each; empty if the runtime refuses the file
    predictions: float | None = None  # as of `Certificate`
    refusal: str = ""  # why the runtime cannot run the file; empty if it can

    def __str__(self) -> str:
        if self.refusal:
            return f"{self.runtime}: {self.refusal}"
        values = sum(each.values for each in self.outputs)
        equal, near = (sum(getattr(each, name) * each.values for each in self.outputs) / values
                       for name in ("equal", "within_one"))  # fmt: skip
        worst = max(self.outputs, key=lambda each: each.largest / (each.scale or 1))
        classes = "" if self.predictions is None else f"; same class: {_percent(self.predictions)}"
        return (
            f"{self.runtime}: outputs {_percent(equal)} equal, {_percent(near)} within 1/{STEPS}, "
            f"largest difference {worst.largest:.3g} of {worst.scale:.3g}{classes}"
        )


@frozen(kw_only=True)
class Certificate:
    """The result of comparing a file with its network; prints as a page.

    Attributes:
        file: the file.
        bytes: its size.
        packed_bytes: of the weights at their bits, with biases and scales, see `qprune.summary`; None if not counted.
        environment: where it ran.
        inputs: what was tried: name -> number of images.
        outputs: one entry for each output.
        quantizers: one for each quantizer of activations, in execution order.
        predictions: share of samples or pixels of which the largest channel is the same, of the first output with
            classes; None if there are none.
        iou: mean intersection over union between both segmentations; None for other tasks.
        scores: metric -> that of the network and that of the file, on test images; empty without a task and data.
        standard_errors: metric -> that of the difference of both scores, see `qprune.exporting.score_errors`; empty if
            no score differs.
        operators: what the runtime executed.
        real_layers: path -> reason, for each convolution and linear layer that computes with real numbers.
        milliseconds: of one image: name -> median; empty if not measured.
        elsewhere: the same file in other runtimes, by what they are called in `qprune.exporting.RUNTIMES`.
    """

    file: str
    bytes: int
    packed_bytes: int | None = None
    environment: Environment
    inputs: Mapping[str, int]
    outputs: tuple[Agreement, ...]
    quantizers: tuple[Agreement, ...]
    predictions: float | None = None
    iou: float | None = None
    scores: Mapping[str, tuple[float, float]] = field(factory=dict)
    standard_errors: Mapping[str, float] = field(factory=dict)
    operators: Operators
    real_layers: Mapping[str, str] = field(factory=dict)
    milliseconds: Mapping[str, float] = field(factory=dict)
    elsewhere: Mapping[str, Elsewhere] = field(factory=dict)

    @property
    def exact(self) -> bool:
        """Whether every output and every integer was equal on every input."""
        return all(each.equal == 1.0 for each in (*self.outputs, *self.quantizers))

    def loss(self, metric: str) -> float:
        """By how much a score of the file differs from the network's, as an absolute number.

        Raises:
            KeyError: if it was not computed.
        """
        trained, exported = self.scores[metric]
        return abs(trained - exported)

    def noise(self, metric: str) -> float:
        """By how much a score may differ by chance on so many images: two standard errors, as an absolute number."""
        return 2 * self.standard_errors.get(metric, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """The certificate as plain dicts, lists and numbers."""
        return as_plain(self)

    def to_json(self) -> str:
        """The certificate as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from self._heading()
        yield ""
        yield table(HEADER, list(map(_row, self.outputs)), right=RIGHT)
        yield ""
        yield from self._quantizer_lines()
        yield from self._agreement_lines()
        yield from map(self._score_line, self.scores)
        yield from self._operator_lines()
        if self.milliseconds:
            yield "one image: " + ", ".join(f"{name} {value:.3f} ms" for name, value in self.milliseconds.items())

    def _heading(self) -> Iterator[str]:
        place = self.environment
        size = "" if self.packed_bytes is None else f"; weights packed to their bits {short(self.packed_bytes, 'B')}"
        yield f"{self.file}: {short(self.bytes, 'B')}{size}"
        sums = "can saturate here" if place.saturates else "do not saturate"
        yield f"{place.runtime}, {place.optimization}; {place.processor}, integer sums {sums}; torch {place.torch}"
        yield f"compared on {', '.join(f'{count} {name}' for name, count in self.inputs.items())}"

    def _agreement_lines(self) -> Iterator[str]:
        if self.predictions is not None:
            yield f"same class: {_percent(self.predictions)}"
        if self.iou is not None:
            yield f"mean IoU between the two: {_percent(self.iou)}"

    def _operator_lines(self) -> Iterator[str]:
        yield f"operators that ran: {self.operators}"
        yield from (f"in real numbers: {path}, because {reason}" for path, reason in self.real_layers.items())
        yield from map(str, self.elsewhere.values())

    def __repr__(self) -> str:
        equal = "equal to the bit" if self.exact else "not equal to the bit"
        return f"Certificate({self.file}, {short(self.bytes, 'B')}, {equal})"

    def _repr_html_(self) -> str:
        scores = [
            [name, f"{trained:.4f}", f"{exported:.4f}", f"{self.noise(name):.4f}" if self.noise(name) else ""]
            for name, (trained, exported) in self.scores.items()
        ]
        times = [[name, f"{value:.3f} ms"] for name, value in self.milliseconds.items()]
        tables = [html_table(HEADER, list(map(_row, self.outputs)), right=RIGHT)]
        tables += [html_table(("score", "trained", "exported", "by chance"), scores, right="lrrr")] if scores else []
        tables += [html_table(("one image", "time"), times, right="lr")] if times else []
        rest = [*self._quantizer_lines(), *self._agreement_lines(), *self._operator_lines()]
        return "".join([*map(_paragraph, self._heading()), *tables, *map(_paragraph, rest)])

    def _score_line(self, name: str) -> str:
        trained, exported = self.scores[name]
        chance = f"; chance explains {self.noise(name):.4f}" if self.noise(name) else ""
        return f"{name}: {trained:.4f} trained, {exported:.4f} exported{chance}"

    def _quantizer_lines(self) -> Iterator[str]:
        if not self.quantizers:
            yield "no integers were compared"
            return
        values = sum(each.values for each in self.quantizers)
        equal = sum(each.equal * each.values for each in self.quantizers) / values
        unequal = sum(each.equal < 1 for each in self.quantizers)
        count = len(self.quantizers)
        yield f"integers of {count} quantizers: {_percent(equal)} equal; {unequal} of them differ somewhere"
        worst = sorted(self.quantizers, key=lambda each: each.equal)[:3]
        for each in worst if unequal else ():
            yield f"  {each.name}: {_percent(each.equal)} equal, at most {each.largest:.0f} steps apart"


def _paragraph(line: str) -> str:
    return f"<p>{escape(visible(line))}</p>"


def _row(each: Agreement) -> tuple[str, ...]:
    return each.name, _percent(each.equal), _percent(each.within_one), f"{each.largest:.3g}", f"{each.scale:.3g}"


def _percent(share: float) -> str:
    text = f"{100 * share:.4g}"
    return "100 %" if share == 1 else f"{'99.99+' if text == '100' else text} %"
