"""Runs a network and the file that was made of it on the same inputs, and counts what is equal."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from qprune.errors import ExportError
from qprune.exporting.certificate import STEPS, Agreement, Environment
from qprune.exporting.locating import where_it_begins
from qprune.exporting.packages import import_runtime
from qprune.exporting.probe import saturates
from qprune.exporting.running import OnnxModel
from qprune.exporting.writing import Written
from qprune.flow import shapes
from qprune.layers import sites
from qprune.processor import processor_name

RANDOM = 8
TOLERANCE = 1e-4  # of the largest number of an output: rounding stays far below, another computation far above
LAST_BITS = 1e-6  # of an input's range
Inputs = tuple[Tensor, ...]


def inputs_like(example: Inputs, seed: int = 0) -> dict[str, Inputs]:
    """The example, random images of its range, and extremes: all least, all largest, zeros, both side by side."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "example": example,
        "random": tuple(_random(x, generator) for x in example),
        "extreme": tuple(_extremes(x) for x in example),
    }


def _range(x: Tensor) -> tuple[float, float]:
    low, high = float(x.min()), float(x.max())
    return (low, high) if high > low else (-2.0, 2.0)


def _random(x: Tensor, generator: torch.Generator) -> Tensor:
    low, high = _range(x)
    return (torch.rand(RANDOM, *x.shape[1:], generator=generator) * (high - low) + low).to(x.dtype)


def _extremes(x: Tensor) -> Tensor:
    low, high = _range(x)
    board = torch.arange(x[0].numel()).view(x.shape[1:]) % 2
    return torch.stack([torch.full_like(x[0], low), torch.full_like(x[0], high), torch.zeros_like(x[0]),
                        (low + board * (high - low)).to(x.dtype)])  # fmt: skip


class Comparison:
    """Adds up over many batches how equal the network that was trained and the ``model`` that runs its file are.

    Of a network without active quantizers nothing but rounding may differ: more is an error. Where ``written`` is
    given, what was made of the network, its integers are compared, too. Without ``judging`` nothing is an error.
    """

    def __init__(
        self, net: nn.Module, model: Any, written: Written | None = None, batch: int = 32, *, judging: bool = True
    ) -> None:
        self.net, self.model, self.written, self.batch = net, model, written, batch
        quants = [site.quant for site in sites(net) if site.quant is not None]
        self.rounds_alone = judging and not any(bool(quant.active) for quant in quants)
        integers = {} if written is None else {site: codes.name for site, codes in written.quantized.items()}
        self.sites = list(integers)
        self.inside: OnnxModel | None = None
        if written is not None and integers:
            self.inside = OnnxModel(written.with_outputs(integers.values()), outputs=list(integers.values()))
        self.outputs: dict[str, _Count] = {name: _Count() for name in self.model.outputs}
        self.quantizers = {name: _Count() for name in self.sites}
        self.classes = _Classes()

    @torch.no_grad()
    def add(self, inputs: Inputs) -> None:
        """Compare on these images.

        An ExportError says that the network does not take so many, the file gives results of other shapes, or a network
        without quantizers and its file differ by more than rounding; where that begins is named.
        """
        for part in zip(*(x.split(self.batch) for x in inputs), strict=True):
            trained, exported = self._run(part), _tuple(self.model(*part))
            self._check_shapes(trained, exported)
            if self.rounds_alone:
                self._check_rounding(part, trained, exported)
            for name, one, other in zip(self.model.outputs, trained, exported, strict=True):
                step = float(one.abs().max()) / STEPS
                self.outputs[name].add(one, other, step)
            self._add_classes(trained, exported)
            if self.written is not None and self.inside is not None:
                self._add_integers(self.written.net, self.inside, part)

    def _add_classes(self, trained: tuple[Tensor, ...], exported: tuple[Tensor, ...]) -> None:
        for one, other in zip(trained, exported, strict=True):
            if one.dim() == 2 or (one.dim() == 4 and one.shape[1] > 3):  # classes, not an image
                self.classes.add(one.argmax(1), other.argmax(1), one.shape[1])
                break

    @torch.no_grad()
    def check_other_sizes(self, inputs: Inputs) -> None:
        """Compare on images of twice the height and width, if the network takes them."""
        larger = tuple(x.repeat(1, 1, 2, 2) if x.dim() == 4 else x for x in inputs)
        try:
            trained = _tuple(self.net(*_copies(larger)))
        except Exception:  # the network's own code: no other size is allowed
            return
        try:
            exported = _tuple(self.model(*larger))
            self._check_shapes(trained, exported)
            self._check_rounding(larger, trained, exported)
        except ExportError as error:
            raise ExportError(
                f"{type(self.net).__name__} does something else with images of twice the size, and the file does what "
                f"it does for {shapes(inputs)}: its forward decides by sizes. Export it with dynamic_size=False."
            ) from error

    def _run(self, part: Inputs) -> tuple[Tensor, ...]:
        try:
            return _tuple(self.net(*_copies(part)))
        except Exception as error:  # the network's own code
            raise ExportError(
                f"{type(self.net).__name__} fails on inputs of shape {shapes(part)}, and a file takes any number of "
                "images: write its forward so that it does, too."
            ) from error

    def _check_shapes(self, trained: tuple[Tensor, ...], exported: tuple[Tensor, ...]) -> None:
        one, other = shapes(trained), shapes(exported)
        if one != other:
            raise ExportError(
                f"{type(self.net).__name__} gives outputs of shape {one}, and the file made of it gives {other}: its "
                "forward depends on the number of images, or on values."
            )

    def _check_rounding(self, part: Inputs, trained: tuple[Tensor, ...], exported: tuple[Tensor, ...]) -> None:
        for place, (one, other) in enumerate(zip(trained, exported, strict=True)):
            apart, size = float(_apart(one, other).max()), _size(one)
            if apart <= TOLERANCE * size:
                continue
            # some networks make much of little: a normalization of what is next to constant
            allowed = TOLERANCE * size + 10 * float(_apart(one, self._run(_moved(part))[place]).max())
            if not apart <= allowed:
                raise ExportError(
                    f"The file differs from {type(self.net).__name__} by {apart:.3g} where the largest number is "
                    f"{size:.3g}, and rounding explains {allowed:.3g}{self._begins(part)}. Its forward depends on "
                    "values or on the number of images, or this is an error in qprune: please report the network."
                )

    def _begins(self, part: Inputs) -> str:
        try:
            path = "" if self.written is None else where_it_begins(self.written, part, TOLERANCE)
        except ExportError:  # that it differs is to be told in any case
            path = ""
        return f"; {path} is the first layer whose result differs" if path else ""

    def _add_integers(self, net: nn.Module, inside: OnnxModel, part: Inputs) -> None:
        with _watched(net, self.sites) as seen:
            net(*_copies(part))
        for name, codes in zip(self.sites, _tuple(inside(*part)), strict=True):
            self.quantizers[name].add(seen[name], codes.float(), 1)

    def agreements(self) -> tuple[tuple[Agreement, ...], tuple[Agreement, ...]]:
        """Of the outputs, and of the quantizers."""
        outputs = tuple(count.agreement(name) for name, count in self.outputs.items())
        return outputs, tuple(count.agreement(name, scale=1.0) for name, count in self.quantizers.items())


class _Count:
    def __init__(self) -> None:
        self.values = self.equal = self.near = 0
        self.largest = self.scale = 0.0

    def add(self, one: Tensor, other: Tensor, step: float) -> None:
        """Count two tensors that should be equal."""
        apart = _apart(one, other)
        self.values += one.numel()
        self.equal += int((one == other).sum())
        self.near += int((apart <= step).sum())
        self.largest = max(self.largest, float(apart.max()))
        self.scale = max(self.scale, float(one.abs().max()))

    def agreement(self, name: str, scale: float | None = None) -> Agreement:
        """The counts so far as an `Agreement`."""
        size = self.scale if scale is None else scale
        return Agreement(name, self.values, self.equal / self.values, self.near / self.values, self.largest, size)


class _Classes:
    def __init__(self) -> None:
        self.both = self.either = torch.zeros(0)
        self.values = self.equal = 0
        self.pixels = False

    def add(self, one: Tensor, other: Tensor, classes: int) -> None:
        """Count the classes of two predictions."""
        if not len(self.both):
            self.both, self.either = torch.zeros(classes), torch.zeros(classes)
        same = torch.bincount(one[one == other].flatten(), minlength=classes)
        each = [torch.bincount(labels.flatten(), minlength=classes) for labels in (one, other)]
        self.both, self.either = self.both + same, self.either + each[0] + each[1] - same
        self.values, self.equal = self.values + one.numel(), self.equal + int(same.sum())
        self.pixels = one.dim() > 1

    def share(self) -> float | None:
        """Of samples or pixels of the same class."""
        return self.equal / self.values if self.values else None

    def iou(self) -> float | None:
        """Mean intersection over union, of the classes that occur."""
        there = self.either > 0
        return float((self.both[there] / self.either[there]).mean()) if self.pixels else None


def _tuple(result: Any) -> tuple[Tensor, ...]:
    return tuple(x if x.is_floating_point() else x.double() for x in tree_leaves(result))


def _copies(tensors: Inputs) -> Inputs:
    return tuple(tensor.clone() for tensor in tensors)  # a network may overwrite its input


def _moved(part: Inputs) -> Inputs:
    """Change the last bits of the inputs."""
    generator = torch.Generator().manual_seed(0)

    def moved(x: Tensor) -> Tensor:
        low, high = _range(x)
        return x + LAST_BITS * (high - low) * torch.randn(x.shape, generator=generator)

    return tuple(moved(x) if x.is_floating_point() else x for x in part)


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """Distances between numbers, 0 for equal infinities and for NaN in both."""
    same = (one == other) | (one.isnan() & other.isnan())
    return torch.where(same, 0.0, (one - other).abs())


def _size(tensor: Tensor) -> float:
    return float(tensor.abs().nan_to_num(0.0, 0.0, 0.0).max())


@contextmanager
def _watched(net: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """The integers that every quantizer makes meanwhile."""
    seen: dict[str, Tensor] = {}

    def note(name: str, quant: Any, arguments: Any, result: Tensor) -> None:
        seen[name] = quant.codes(result).float() + (2**7 if quant.symmetric else 0)

    with ExitStack() as stack:
        for site in sites(net):
            if site.quant is not None and site.name in names:
                stack.enter_context(site.quant.register_forward_hook(partial(note, site.name)))
        yield seen


def environment() -> Environment:
    """The runtime and the processor of this machine."""
    runtime = import_runtime()
    return Environment(
        runtime=f"onnxruntime {runtime.__version__}",
        processor=processor_name(),
        optimization="all graph optimizations",
        saturates=saturates(),
        torch=torch.__version__,
    )
