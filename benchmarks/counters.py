"""What a training step launches and holds, counted by dispatch modes where there is no GPU to ask."""

import weakref
from collections import Counter
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Made: TypeAlias = tuple[str, tuple[int, ...], str]
NO_LAUNCH = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
    "_record_function_enter_new", "_record_function_exit",
}  # fmt: skip


class Launches(TorchDispatchMode):
    """Counts the operations that launch a kernel, by name: all but views and allocations.

    Attributes:
        counts: how often each was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, returned = func._schema.name.split("::")[1], func._schema.returns
        result = func(*args, **(kwargs or {}))
        views = bool(returned) and all(each.alias_info and not each.alias_info.is_write for each in returned)
        if views:  # unless it had to be a copy, as of a reshape, or in another dtype
            views = storages(result) <= storages((args, kwargs))
        if not views and name not in NO_LAUNCH:
            self.counts[name] += 1
        return result


def storages(tree: Any) -> set[int]:
    """Which memory the tensors in it have."""
    return {each.untyped_storage()._cdata for each in tree_leaves(tree) if isinstance(each, Tensor)}


class LiveBytes(TorchDispatchMode):
    """Adds up the memory of the tensors that are made meanwhile and still held, each storage once.

    What an operation needs within itself, such as a convolution's workspace, is not seen; nor are tensors from before.

    Attributes:
        now: bytes that are held.
        peak: the most that was held at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._held: dict[int, tuple[Any, int, Made]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = storages((args, kwargs))
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.untyped_storage()._cdata not in known:
                self._hold(each, func._schema.name.split("::")[1])
        return result

    def _hold(self, tensor: Tensor, maker: str) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._held:
            return

        def dropped(_: Any) -> None:
            self.now -= self._held.pop(address)[1]

        entry = (maker, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        self._held[address] = (weakref.ref(storage, dropped), storage.nbytes(), entry)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def listed(self) -> Counter[Made]:
        """Bytes that are held now, by the operation that made them, its shape and dtype."""
        found: Counter[Made] = Counter()
        for _, size, entry in self._held.values():
            found[entry] += size
        return found
