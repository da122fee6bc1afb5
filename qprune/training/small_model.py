"""Writes the file of a network that was shrunk after training."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from qprune.graph import graph_of
from qprune.shrinking import record
from qprune.training.checkpoint import save
from qprune.zoo import deployed


def save_small(path: str | os.PathLike[str], content: Mapping[str, Any], net: nn.Module, small: nn.Module) -> None:
    """Write a model file whose network is a shrunk one; `open_model` opens it as it does ``model.pt``.

    Of a network that trains more than is used afterwards (`qprune.zoo.deployed`) the rest is written as it is. Where
    the file holds the network's calls, those of the small one take their place.

    Args:
        path: where to; its folder must exist.
        content: that of the ``model.pt`` of ``net``, from `load_model`.
        net: the network.
        small: what `qprune.shrinking.shrink` made of it.

    Raises:
        CheckpointError: if the file cannot be written.
        ShrinkError: if the file holds the network's calls, and those of the small one cannot be followed.

    Example:
        >>> save_small("small.pt", load_model("model.pt"), net, shrink(net, example))
    """
    part = deployed(net)
    place = "" if part is net else next(f"{name}." for name, module in net.named_modules() if module is part)
    rest = {name: tensor for name, tensor in net.state_dict().items() if not name.startswith(place)} if place else {}
    state = rest | {f"{place}{name}": tensor for name, tensor in small.state_dict().items()}
    # a network that was opened by its calls has no part of it left out
    graph = {"graph": graph_of(small, torch.zeros(1, *content["shape"]))} if "graph" in content else {}
    save(path, {**content, "state": state, "cuts": _placed(record(small), place), **graph})


def _placed(recorded: Mapping[str, Any], place: str) -> dict[str, Any]:
    def put(path: str) -> str:
        return path if path.startswith(place) else f"{place}{path}"  # a fold that a file brought along is in place

    cuts = {put(path): cut for path, cut in recorded["cuts"].items()}
    left_out = {"left_out": [put(path) for path in recorded["left_out"]]} if "left_out" in recorded else {}
    return {
        **recorded,
        **left_out,
        "cuts": cuts,
        "folds": [[put(norm), put(layer), before] for norm, layer, before in recorded["folds"]],
    }
