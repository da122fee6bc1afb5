"""What was cut from a network, as plain data: enough to cut a freshly built one the same way."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qprune.errors import CheckpointError
from qprune.layers import Align
from qprune.shrink.cut import Cut, Joint, Origin, apply_cuts, cut_of
from qprune.shrink.fold import Fold, apply_fold


def record(net: nn.Module) -> dict[str, Any]:
    """What was cut and folded, by module path: channel numbers of the network as it was built, and how layers are joined.

    Args:
        net: a network, shrunk or not.

    Returns:
        ``{"cuts": {path: {"inputs", "outputs", "arguments", "result", "masks", "bias"}}, "folds": [...]}``, tensors and
        plain types; both are empty for a network that was never shrunk.

    Example:
        >>> record(nn.Conv2d(2, 3, 1))
        {'cuts': {}, 'folds': []}
    """
    modules = dict(net.named_modules())
    cuts = {path: _cut(module) for path, module in modules.items() if hasattr(module, "origin")}
    folds = [module.fold for module in modules.values() if isinstance(getattr(module, "fold", None), Fold)]
    return {"cuts": cuts, "folds": [[fold.norm, fold.weighted, fold.before] for fold in folds]}


def _cut(layer: Any) -> dict[str, Any]:
    origin: Origin = layer.origin
    present = cut_of(layer, tuple(map(len, origin.inputs)), len(origin.outputs))
    return {
        "inputs": [_numbers(each) for each in origin.inputs],
        "outputs": _numbers(origin.outputs),
        "arguments": [_joint(joint) for joint in present.arguments],
        "result": _joint(present.result),
        "masks": list(origin.masks),
        "bias": origin.bias,
    }


def _numbers(values: tuple[int, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _joint(joint: Joint | None) -> Any:
    if joint is None:
        return None
    index, fill = zip(*joint, strict=True) if joint else ((), ())
    return [_numbers(index), torch.tensor(fill, dtype=torch.float32)]


def rebuild(net: nn.Module, recorded: Mapping[str, Any], source: Any = "The record") -> dict[nn.Parameter, Any]:
    """Cut and fold a network as `record` tells, in place. What its parameters hold is not what training left in them.

    Args:
        net: the network as it was built, never cut.
        recorded: from `record`.
        source: what it came from, for errors.

    Returns:
        as `qprune.shrink.cut.apply_cuts`.

    Raises:
        CheckpointError: if the record is of another network.

    Example:
        >>> net = nn.Conv2d(2, 3, 1)
        >>> _ = rebuild(net, record(net))
    """
    try:
        cuts = {path: _to_cut(net.get_submodule(path), entry) for path, entry in recorded["cuts"].items()}
        taken = apply_cuts(net, cuts)
        for norm, weighted, before in recorded["folds"]:
            apply_fold(net, Fold(norm, weighted, before))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{source} was cut out of another network than this one ({error}). Build the network it was trained as."
        ) from error
    return taken


def _to_cut(layer: Any, entry: Mapping[str, Any]) -> Cut:
    outputs = tuple(entry["outputs"].tolist())
    return Cut(
        inputs=tuple(tuple(each.tolist()) for each in entry["inputs"]),
        outputs=outputs,
        arguments=tuple(_to_joint(joint) for joint in entry["arguments"]),
        result=_to_joint(entry["result"]),
        masks=tuple(entry["masks"]),
        added_bias=(0.0,) * len(outputs) if entry["bias"] else None,
    )


def _to_joint(entry: Any) -> Joint | None:
    if entry is None:
        return None
    align = Align(entry[0].tolist(), entry[1].tolist())
    return tuple(zip(align.index, align.fill, strict=True))
