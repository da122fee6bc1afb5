"""The cuts of a network as plain data, with which a freshly built network can be cut the same way."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qprune.errors import CheckpointError
from qprune.layers import Align, Aligned, Compressed
from qprune.shrinking.cut import Cut, Joint, Origin, apply_cuts, cut_of
from qprune.shrinking.fold import Fold, apply_fold
from qprune.shrinking.unused import LeftOut, leave_out


def record(net: nn.Module) -> dict[str, Any]:
    """The cuts and folds by module path: the channels left of the network as it was built, and how layers join.

    Args:
        net: a network, shrunk or not.

    Returns:
        ``{"cuts": {path: {"inputs", "outputs", "arguments", "result", "masks", "bias"}}, "folds": [...]}``, tensors and
        plain types; both are empty for a network that was never shrunk. With ``"left_out"``, paths, if there are any.

    Example:
        >>> record(nn.Conv2d(2, 3, 1))
        {'cuts': {}, 'folds': []}
    """
    modules = dict(net.named_modules())
    cuts = {path: _cut(module) for path, module in modules.items() if hasattr(module, "origin")}
    folds = [module.fold for module in modules.values() if isinstance(getattr(module, "fold", None), Fold)]
    left_out = [path for path, module in modules.items() if isinstance(module, LeftOut)]
    recorded = {"cuts": cuts, "folds": [[fold.norm, fold.weighted, fold.before] for fold in folds]}
    return recorded | ({"left_out": left_out} if left_out else {})


def _cut(layer: Any) -> dict[str, Any]:
    origin: Origin = layer.origin
    present = cut_of(layer, tuple(map(len, origin.inputs)), len(origin.outputs))
    return {
        "inputs": [_numbers(each) for each in origin.inputs],
        "outputs": _numbers(origin.outputs),
        "arguments": [_joint(joint) for joint in present.arguments],
        "result": _joint(present.result),
        "masks": {side: torch.tensor(keep) for side, keep in origin.masks.items()},
        "bias": origin.bias,
        **_axis(layer),
    }


def _axis(layer: Any) -> dict[str, int]:
    # dimension 1 goes without saying
    aligns = [*layer.arguments, layer.result] if isinstance(layer, Aligned) else []
    others = [align.axis for align in aligns if isinstance(align, Align) and align.axis != 1]
    return {"axis": others[0]} if others else {}


def _numbers(values: tuple[int, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _joint(joint: Joint | None) -> Any:
    if joint is None:
        return None
    index, fill = zip(*joint, strict=True) if joint else ((), ())
    return [_numbers(index), torch.tensor(fill, dtype=torch.float32)]


def rebuild(net: nn.Module, recorded: Mapping[str, Any], source: Any = "The record") -> dict[nn.Parameter, Any]:
    """Cut and fold a network, as it was built or cut less, as `record` tells, in place.

    What its parameters hold is not what training left in them. ``source`` is what the record came from, for errors.

    Returns:
        as `qprune.shrinking.cut.apply_cuts`.

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
        leave_out(net, recorded.get("left_out", ()))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{source} was cut out of another network than this one ({error}). Build the network it was trained as."
        ) from error
    return taken


def _to_cut(layer: Any, entry: Mapping[str, Any]) -> Cut:
    before: Origin | None = getattr(layer, "origin", None)
    inputs, outputs = [each.tolist() for each in entry["inputs"]], entry["outputs"].tolist()
    gone: Mapping[str, Any] = {}
    if before is not None:  # it was cut already, but less
        inputs = [_places(each, old) for each, old in zip(inputs, before.inputs, strict=True)]
        outputs, gone = _places(outputs, before.outputs), before.masks
    _restore_masks(layer, {side: keep for side, keep in entry["masks"].items() if side not in gone})
    gains = entry["bias"] and not (before is not None and before.bias)
    return Cut(
        inputs=tuple(map(tuple, inputs)),
        outputs=tuple(outputs),
        arguments=tuple(_to_joint(joint) for joint in entry["arguments"]),
        result=_to_joint(entry["result"]),
        masks={side: tuple(keep.tolist()) for side, keep in entry["masks"].items() if side not in gone},
        added_bias=(0.0,) * len(outputs) if gains else None,
        axis=entry.get("axis", 1),
    )


def _places(numbers: Sequence[int], among: Sequence[int]) -> list[int]:
    place = {number: index for index, number in enumerate(among)}
    return [place[number] for number in numbers]


def _restore_masks(layer: Any, keeps: Mapping[str, Tensor]) -> None:
    for side, keep in keeps.items():
        mask = layer.slot(side, "mask") if isinstance(layer, Compressed) else None
        if mask is not None:
            mask.keep.copy_(keep)


def restore_masks(net: nn.Module, recorded: Mapping[str, Any]) -> None:
    """Put the masks that went back into a network that was never cut; nothing else changes.

    Example:
        >>> restore_masks(nn.Conv2d(2, 3, 1), {"cuts": {}, "folds": []})
    """
    for path, entry in recorded["cuts"].items():
        _restore_masks(net.get_submodule(path), entry["masks"])


def _to_joint(entry: Any) -> Joint | None:
    if entry is None:
        return None
    align = Align(entry[0].tolist(), entry[1].tolist())
    return tuple(zip(align.index, align.fill, strict=True))
