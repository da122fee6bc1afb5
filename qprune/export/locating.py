"""Finds the layer from which on a file differs from the network that it was made of."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qprune.export.lowering import Lowering
from qprune.export.running import OnnxModel
from qprune.export.writing import Walk, Written, followed


def where_it_begins(written: Written, inputs: tuple[Tensor, ...], tolerance: float) -> str:
    """The path of the first layer whose result is not the same in both; empty if all are, or cannot be compared."""
    net, calls, example = followed(written.net, tuple(x[:1] for x in inputs))
    walk = Walk(net, calls, example, Lowering(signed=True), None, watching=True)
    model = OnnxModel(
        walk.written().with_outputs(walk.watched.values(), real=True), outputs=list(walk.watched.values())
    )
    with torch.no_grad(), _results(net, [path for path, _ in walk.watched]) as seen:
        net(*(x.clone() for x in inputs))
    made = model(*inputs)
    made = made if isinstance(made, tuple) else (made,)
    for (path, call), theirs in zip(walk.watched, made, strict=True):
        ours = seen[path][call]
        if ours.shape != theirs.shape or not (ours - theirs).abs().max() <= tolerance * ours.abs().max():
            return path
    return ""


@contextmanager
def _results(net: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect the results of each layer, call by call, inside the ``with`` block."""
    seen: dict[str, list[Tensor]] = {path: [] for path in paths}

    def note(path: str) -> Any:
        return lambda module, arguments, result: seen[path].append(result.clone())  # it may be overwritten

    handles = [net.get_submodule(path).register_forward_hook(note(path)) for path in seen]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
