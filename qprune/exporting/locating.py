"""Finds the layer from which on a file differs from the network that it was made of."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qprune.exporting.lowering import Lowering
from qprune.exporting.running import OnnxModel
from qprune.exporting.writing import Walk, Written, followed


def where_it_begins(written: Written, inputs: tuple[Tensor, ...], tolerance: float) -> str:
    """The path of the first layer whose result is not the same in both; empty if all are, or cannot be compared."""
    net, calls, example = followed(written.net, tuple(x[:1] for x in inputs))
    walk = Walk(net, calls, example, Lowering(signed=True), None, watching=True)
    model = OnnxModel(
        walk.written().with_outputs(walk.watched.values(), real=True), outputs=list(walk.watched.values())
    )
    seen: dict[str, list[Tensor]] = {path: [] for path, _ in walk.watched}
    with torch.no_grad(), ExitStack() as stack:
        for path in seen:
            stack.enter_context(net.get_submodule(path).register_forward_hook(partial(_note, seen[path])))
        net(*(x.clone() for x in inputs))
    made = model(*inputs)
    made = made if isinstance(made, tuple) else (made,)
    for (path, call), theirs in zip(walk.watched, made, strict=True):
        ours = seen[path][call]
        if ours.shape != theirs.shape or not (ours - theirs).abs().max() <= tolerance * ours.abs().max():
            return path
    return ""


def _note(results: list[Tensor], _: nn.Module, __: Any, result: Tensor) -> None:
    results.append(result.clone())  # it may be overwritten
