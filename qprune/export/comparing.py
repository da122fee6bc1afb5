"""Runs a network and the file that was made of it on the same inputs, and counts what is equal."""

import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qprune.export.certificate import STEPS, Agreement, Environment
from qprune.export.packages import import_onnx, import_runtime
from qprune.export.probe import saturates
from qprune.export.running import OnnxModel
from qprune.export.writing import Written
from qprune.layers import sites

RANDOM = 8
Inputs = tuple[Tensor, ...]


def inputs_like(example: Inputs, seed: int = 0) -> dict[str, Inputs]:
    """The example, random images of its range, and extremes: all least, all largest, zeros, both side by side.

    Example:
        >>> {name: len(images[0]) for name, images in inputs_like((torch.rand(1, 3, 5, 7),)).items()}
        {'example': 1, 'random': 8, 'extreme': 4}
    """
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
    return torch.rand(RANDOM, *x.shape[1:], generator=generator) * (high - low) + low


def _extremes(x: Tensor) -> Tensor:
    low, high = _range(x)
    board = torch.arange(x[0].numel()).view(x.shape[1:]) % 2
    return torch.stack([torch.full_like(x[0], low), torch.full_like(x[0], high), torch.zeros_like(x[0]),
                        low + board * (high - low)])  # fmt: skip


class Comparison:
    """Adds up over many batches how equal the network and the file are.

    Args:
        net: the network that was trained.
        model: runs the file.
        written: what was made of the network, where its integers can be looked at.
        batch: images that run at a time.
    """

    def __init__(self, net: nn.Module, model: Any, written: Written | None = None, batch: int = 32) -> None:
        self.net, self.model, self.written, self.batch = net, model, written, batch
        integers = {} if written is None else {site: codes.name for site, codes in written.quantized.items()}
        self.sites = list(integers)
        self.inside: OnnxModel | None = None
        if written is not None and integers:
            self.inside = OnnxModel(_with_outputs(written.model, integers.values()), outputs=list(integers.values()))
        self.outputs: dict[str, _Count] = {name: _Count() for name in self.model.outputs}
        self.quantizers = {name: _Count() for name in self.sites}
        self.classes = _Classes()

    @torch.no_grad()
    def add(self, inputs: Inputs) -> None:
        """Compare on these images."""
        for part in zip(*(x.split(self.batch) for x in inputs), strict=True):
            trained, exported = _tuple(self.net(*part)), _tuple(self.model(*part))
            for name, one, other in zip(self.model.outputs, trained, exported, strict=True):
                step = float(one.abs().max()) / STEPS
                self.outputs[name].add(one, other, step)
                if one.dim() == 2 or (one.dim() == 4 and one.shape[1] > 3):  # classes, not an image
                    self.classes.add(one.argmax(1), other.argmax(1), one.shape[1])
            if self.written is not None and self.inside is not None:
                self._add_integers(self.written.net, self.inside, part)

    def _add_integers(self, net: nn.Module, inside: OnnxModel, part: Inputs) -> None:
        with _watched(net, self.sites) as seen:
            net(*part)
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
        apart = (one - other).abs()
        self.values += one.numel()
        self.equal += int((one == other).sum())
        self.near += int((apart <= step).sum())
        self.largest = max(self.largest, float(apart.max()))
        self.scale = max(self.scale, float(one.abs().max()))

    def agreement(self, name: str, scale: float | None = None) -> Agreement:
        """What was counted."""
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
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def _with_outputs(model: Any, names: Iterable[str]) -> bytes:
    onnx = import_onnx()
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in names]
    copied.graph.output.extend(values)
    return bytes(copied.SerializeToString())


@contextmanager
def _watched(net: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """The integers that every quantizer makes meanwhile."""
    seen: dict[str, Tensor] = {}

    def note(name: str, quant: Any) -> Any:
        shift = 2**7 if quant.symmetric else 0

        def hook(module: nn.Module, arguments: Any, result: Tensor) -> None:
            seen[name] = quant.codes(result).float() + shift

        return hook

    by_name = {site.name: site.quant for site in sites(net)}
    handles = [by_name[name].register_forward_hook(note(name, by_name[name])) for name in names]  # type: ignore[union-attr]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def environment() -> Environment:
    """Where files run here."""
    runtime = import_runtime()
    return Environment(
        runtime=f"onnxruntime {runtime.__version__}",
        processor=processor(),
        optimization="all graph optimizations",
        saturates=saturates(),
        torch=torch.__version__,
    )


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
