"""`assert_same`: two networks of one module tree compute the same, or an error names where they begin to differ."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from qprune.errors import ShrinkError
from qprune.flow import line_of, named
from qprune.host import on_device, on_host
from qprune.layers import CompressedWeight
from qprune.shrinking.fold import Fold
from qprune.shrinking.watching import evaluating, noted, quantizers, trail_of, watching_layers, watching_quantizers

TOLERANCE = 1e-3  # of the largest value: rounding stays far below, a wrong channel far above


def assert_same(
    before: nn.Module, after: nn.Module, example: Any, *, tolerance: float = TOLERANCE, what: str = "The shrunk network"
) -> None:
    """Run two networks on an example, in eval mode, and compare their outputs.

    A sum that rounding moves across a tie of a quantizer is a whole step away. So where the inputs of a quantizer are
    the same to ``tolerance``, both networks are given the same; everything else is computed by each itself.

    Args:
        before: a network.
        after: the same with layers cut or folded. Modes of both are left as they are.
        example: an input: a tensor or a tuple of arguments. Tensors on the meta device, and floats that are all zeros,
            are replaced by random numbers, always the same; tensors move to the network's device.
        tolerance: the largest difference, in units of the largest value.
        what: what ``after`` is called in errors.

    Raises:
        ShrinkError: if outputs differ, or ``after`` does not run; the first layer that makes a difference is named.

    Example:
        >>> assert_same(nn.ReLU(), nn.Identity(), torch.ones(1, 2))
        >>> assert_same(nn.ReLU(), nn.Identity(), -torch.ones(1, 2))
        Traceback (most recent call last):
        ...
        qprune.errors.ShrinkError: The shrunk network does not compute what the network computes: ...
    """
    comparison = _Comparison(before, after, _arguments(before, example), tolerance)
    with torch.no_grad(), evaluating(before), evaluating(after):
        comparison.check(what)


class _Comparison:
    """Two networks, what both are given, and what the quantizers of the first were given."""

    def __init__(self, before: nn.Module, after: nn.Module, arguments: tuple[Any, ...], tolerance: float) -> None:
        self.before, self.after, self.arguments, self.tolerance = before, after, arguments, tolerance
        self.quantized: dict[str, list[Tensor]] = {}  # what active quantizers of `before` are given, call by call

    def check(self, what: str) -> None:
        wanted = self._run_before()
        found = self._run_after(what)
        difference = self._difference(wanted, found)
        if difference is None:
            return
        if self._difference(wanted, self._run(self.before, seed=1)) is not None:
            raise ShrinkError(
                f"{what} cannot be compared with the network, which gives other outputs each time it runs: it draws "
                "random numbers in eval mode, too. Let it do so in training alone, as F.dropout(x, "
                "training=self.training) does."
            )
        raise ShrinkError(
            f"{what} does not compute what the network computes: {difference}. {self._beginning()} Its forward, or "
            "that of a module around it, depends on a number of channels, or on values, in a way that could not be "
            "followed. Compute such a number once, in __init__, and keep it as an attribute, or leave masks off "
            "the layers around it."
        )

    def _run_before(self) -> list[Any]:
        self.quantized.clear()
        quants = quantizers(self.before)
        active = dict(zip(quants, on_host([quant.active for quant in quants.values()]), strict=True))

        def note(name: str, tensor: Tensor) -> Tensor:
            return noted(self.quantized, name, tensor) if active[name] else tensor

        try:
            with watching_quantizers(self.before, note), trail_of(self.before) as trail:
                return self._run(self.before)
        except Exception as error:
            raise ShrinkError(
                f"The network fails on the example, in {_last(self.before, trail)}{line_of(error)}. Give an example "
                "that it takes: a tensor, or a tuple of arguments."
            ) from error

    def _run_after(self, what: str) -> list[Any]:
        try:
            with trail_of(self.after) as trail:
                return self._run_synchronized()
        except Exception as error:
            raise ShrinkError(
                f"{what} fails where the network does not: in {_last(self.after, trail)}{line_of(error)}. The code "
                "there, or around it, counts on channels that were cut. Take sizes from the tensor that is computed "
                "with (x.shape[1]), or leave masks off the layers around it."
            ) from error

    def _run_synchronized(self) -> list[Any]:
        calls: dict[str, int] = {}
        # the quantizer of a normalization is the convolution's now
        folds = (fold for fold in _folds(self.after) if not fold.before)
        behind = {f"{fold.weighted}.output": f"{fold.norm}.output" for fold in folds}

        def settle(name: str, tensor: Tensor) -> Tensor:
            name = behind.get(name, name)
            number = calls[name] = calls.get(name, -1) + 1
            noted = self.quantized.get(name, [])
            return self._settled(name, noted[number], tensor) if number < len(noted) else tensor

        with watching_quantizers(self.after, settle):
            return self._run(self.after)

    def _settled(self, name: str, noted: Tensor, tensor: Tensor) -> Tensor:
        path, _, side = name.rpartition(".")
        noted = self._picked(path, side, noted, tensor)
        return torch.where(self._alike(noted, tensor), noted, tensor) if noted.shape == tensor.shape else tensor

    def _picked(self, path: str, side: str, tensor: Tensor, like: Tensor) -> Tensor:
        """The channels of a tensor of ``before`` that a layer of ``after`` still has, on its input or output side."""
        old, new = self.before.get_submodule(path), self.after.get_submodule(path)
        left = _channels_left(new, side)
        if left is None or tensor.dim() < 2 or tensor.shape == like.shape:
            return tensor
        axis: int = getattr(new.origin, "axis", 1)
        earlier = _channels_left(old, side)
        place = {each: i for i, each in enumerate(range(tensor.shape[axis]) if earlier is None else earlier)}
        if not all(each in place for each in left):
            return tensor
        return tensor.index_select(axis, on_device([place[each] for each in left], tensor.device))

    def _run(self, net: nn.Module, seed: int = 0) -> list[Any]:
        devices = {leaf.device for leaf in tree_leaves(self.arguments) if isinstance(leaf, Tensor) and leaf.is_cuda}
        with torch.random.fork_rng(list(devices)):
            torch.manual_seed(seed)
            return tree_leaves(net(*tree_map_only(Tensor, Tensor.clone, self.arguments)))  # it may overwrite its input

    def _difference(self, wanted: list[Any], found: list[Any]) -> str | None:
        if len(wanted) != len(found):
            return f"it gives {len(wanted)} outputs, not {len(found)}"
        for one, other in zip(wanted, found, strict=True):
            if isinstance(one, Tensor) and isinstance(other, Tensor):
                if one.shape != other.shape:
                    return f"an output of shape {tuple(one.shape)} has shape {tuple(other.shape)} now"
                if not self._alike(one, other).all():
                    share = float((one - other).abs().max() / _size(one))
                    return f"an output of shape {tuple(one.shape)} differs by {share:.2g} of its size"
            elif isinstance(one, (bool, int, float, str)) and one != other:
                return f"an output {one!r} is {other!r} now"
        return None

    def _alike(self, one: Tensor, other: Tensor) -> Tensor:
        same = (one == other) | (one.isnan() & other.isnan())
        if not one.is_floating_point() or not other.is_floating_point() or not one.numel():
            return same
        tolerance = max(self.tolerance, 2 * torch.finfo(one.dtype).eps)
        return same | ((one - other).abs() <= tolerance * _size(one))

    def _beginning(self) -> str:
        """A sentence about the first layer whose result differs and makes a difference to the outputs."""
        results: dict[str, list[Tensor]] = {}
        with watching_layers(self.before, partial(noted, results)):
            self._run(self.before)
        differing: dict[str, None] = {}
        plain = self._run_forcing(results, frozenset(), differing)
        for path in differing:  # a channel that nobody reads may hold anything
            if self._difference(plain, self._run_forcing(results, frozenset([path]), {})) is not None:
                return f"It begins before or in {named(self.after, path)}."
        return f"It begins behind the layers, in {named(self.after, '')}."

    def _run_forcing(self, results: dict[str, list[Tensor]], forced: frozenset[str], differing: dict[str, None]) -> Any:
        """Run ``after`` with some layers' results put right; note which layers' are not."""
        calls: dict[str, int] = {}
        # what these make is not what they made: it is scaled already, or not any more
        folded = {fold.norm if fold.before else fold.weighted for fold in _folds(self.after)}

        def compare(name: str, tensor: Tensor) -> Tensor:
            number = calls[name] = calls.get(name, -1) + 1
            noted = results.get(name, [])
            if name in folded or number >= len(noted):
                return tensor
            wanted = self._picked(name, "output", noted[number], tensor)
            if wanted.shape != tensor.shape:
                return tensor
            if not self._alike(wanted, tensor).all():
                differing[name] = None
            return wanted if name in forced else tensor

        with watching_layers(self.after, compare):
            return self._run_synchronized()


def _last(net: nn.Module, trail: list[str]) -> str:
    return named(net, trail[-1] if trail else "")


def _size(tensor: Tensor) -> Tensor:
    finite = tensor.abs().nan_to_num(0, 0, 0)
    return finite.max().clamp_min(1e-6)


def _channels_left(layer: nn.Module, side: str) -> tuple[int, ...] | None:
    origin: Any = getattr(layer, "origin", None)
    if origin is None:
        return None
    return origin.inputs[0] if side == "input" and isinstance(layer, CompressedWeight) else origin.outputs


def _folds(net: nn.Module) -> Iterator[Fold]:
    for module in net.modules():
        fold = getattr(module, "fold", None)
        if isinstance(fold, Fold):
            yield fold


def _arguments(net: nn.Module, example: Any) -> tuple[Any, ...]:
    device = next((tensor.device for tensor in (*net.parameters(), *net.buffers())), None)
    generator = torch.Generator().manual_seed(0)

    def fill(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and (tensor.is_meta or not tensor.any()):
            tensor = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        elif tensor.is_meta:
            tensor = torch.zeros(tensor.shape, dtype=tensor.dtype)
        return tensor if device is None else tensor.to(device, non_blocking=True)

    arguments = tree_map_only(Tensor, fill, example)
    return arguments if isinstance(arguments, tuple) else (arguments,)
