"""Functions that touch positions alone: they do the same to every channel, and leave it in its place."""

from typing import Any

from torch.utils._pytree import tree_leaves

from qprune.flow import Call, Given

WHOLE = slice(None)


def picks_positions(call: Call) -> bool:
    """Whether it picks positions, or adds or drops dimensions behind the channels."""
    if not call.shapes or len(call.shapes[0]) < 2:
        return False
    rank = len(call.shapes[0])
    if call.name == "__getitem__":
        return _leaves_channels(call.arguments[1], rank)
    if call.name in ("unsqueeze", "squeeze", "flatten"):
        dim = _argument(call, 1, "start_dim" if call.name == "flatten" else "dim")
        return isinstance(dim, int) and dim % (rank + (call.name == "unsqueeze")) >= 2
    return False


def _leaves_channels(index: Any, rank: int) -> bool:
    if not isinstance(index, tuple) or not all(
        each in (None, Ellipsis) or type(each) in (int, slice) for each in index
    ):
        return False
    if Ellipsis in index:
        place, used = index.index(Ellipsis), sum(each not in (None, Ellipsis) for each in index)
        index = (*index[:place], *[WHOLE] * (rank - used), *index[place + 1 :])
    return index[:2] == (WHOLE, WHOLE)


def pads_positions(call: Call) -> bool:
    """Whether it puts something around the positions, and nothing around the channels."""
    sizes = _argument(call, 1, "pad")
    return isinstance(sizes, (tuple, list)) and len(sizes) <= 2 * (len(call.shapes[0]) - 2)


def pads_channels(call: Call) -> tuple[int, int] | None:
    """How many channels it puts before and behind those that there are; None if it does anything else to them."""
    sizes, rank = _argument(call, 1, "pad"), len(call.shapes[0])
    if not isinstance(sizes, (tuple, list)) or len(call.shape) != rank or pads_with(call)[0] != "constant":
        return None
    before, behind, *batch = sizes[2 * (rank - 2) :] or (0, 0)
    return (before, behind) if before >= 0 and behind >= 0 and not any(batch) else None


def pads_with(call: Call) -> tuple[str, float]:
    """The mode of a padding function, and the value that it puts there in mode ``"constant"``."""
    return _argument(call, 2, "mode") or "constant", _argument(call, 3, "value") or 0.0


def free_tensors(call: Call) -> list[Given]:
    """The parameters, buffers and constants with dimensions among its arguments: nothing will cut them."""
    leaves = tree_leaves((call.arguments, dict(call.options)))
    return [leaf for leaf in leaves if isinstance(leaf, Given) and leaf.maker is None and len(leaf.shape) > 0]


def has_free_tensor(call: Call) -> bool:
    """Whether there is any of these."""
    return bool(free_tensors(call))


def _argument(call: Call, place: int, name: str) -> Any:
    return call.arguments[place] if len(call.arguments) > place else call.options.get(name)
