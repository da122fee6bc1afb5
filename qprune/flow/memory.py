"""`Memory`: which call made what a tensor holds, writes through other names of the same memory included."""

import torch
from torch import Tensor

from qprune.flow.calls import Shape


class Memory:
    """Tracks which call made each tensor while a network runs.

    By writer, ``read_again`` has the makers of what it overwrote and what is read again by an earlier name (the same
    tensor, or another view of it), each with the shape that is read, and ``handed`` the layers that had handed on the
    memory that it wrote into.
    """

    def __init__(self) -> None:
        self.read_again: dict[int, dict[int, Shape]] = {}
        self.handed: dict[int, set[int]] = {}
        self._makers: dict[int, int] = {}
        self._names: dict[int, dict[int, Tensor]] = {}  # by memory, then id; being here, a tensor keeps its id
        self._writes: dict[int, list[tuple[int, int]]] = {}  # by tensor: writer, and maker of what was there
        self._handing: dict[int, set[int]] = {}  # by memory, the layers whose argument and result both lie in it

    def know(self, tensor: Tensor, maker: int) -> None:
        """Note which call made a tensor; -1 for an input of the network."""
        self._makers[id(tensor)] = maker
        self._writes.pop(id(tensor), None)
        self._names.setdefault(_place(tensor), {})[id(tensor)] = tensor

    def maker(self, tensor: Tensor) -> int | None:
        """The call that made the present content of a tensor; None for a parameter, a buffer or a constant."""
        for writer, before in self._writes.get(id(tensor), ()):
            self.read_again.setdefault(writer, {})[before] = tuple(tensor.shape)
        return self.present_maker(tensor)

    def present_maker(self, tensor: Tensor) -> int | None:
        """The same, for a tensor of which only the shape is read."""
        writes = self._writes.get(id(tensor))
        return writes[-1][0] if writes else self._makers.get(id(tensor))

    def hand_on(self, layer: int, given: list[Tensor], made: list[Tensor]) -> None:
        """Note that a layer's result may lie in the memory of its argument."""
        for place in set(map(_place, given)) & set(map(_place, made)):
            self._handing.setdefault(place, set()).add(layer)

    def overwrite(self, writer: int, written: list[Tensor], made: list[Tensor]) -> None:
        """Note that a call wrote into tensors; by the names of its results that is what it made."""
        fresh = set(map(id, made))
        for place in set(map(_place, written)):
            self.handed.setdefault(writer, set()).update(self._handing.get(place, ()))
            for name in self._names.get(place, {}).values():
                before = self.present_maker(name)
                if id(name) not in fresh and before is not None:
                    self._writes.setdefault(id(name), []).append((writer, before))


def _place(tensor: Tensor) -> int:
    # the same for all views of one tensor
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)
