"""A device that is not there: `Card` tensors lie in memory, and say that they are on the device ``"card"``.

Within `Watched` every operation that would make a GPU wait is counted, and operations that mix devices are errors, as
they are with a GPU. Importing it registers the device, for good: do so in a process of its own.
"""

import traceback
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


_setup_privateuseone_for_python_backend("card", _Module())
# Autocast casts nothing here, and must let everything pass.
_LIBRARY = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
_LIBRARY.fallback(torch.library.fallthrough_kernel)
CARD = torch.device("card:0")
aten = torch.ops.aten
# what has a size, or gives a number, that depends on values: its kernels end with a copy to the host
READING = {
    aten._local_scalar_dense, aten.equal, aten.nonzero, aten.masked_select, aten.bincount, aten._unique2,
    aten.unique_dim, aten.unique_consecutive, aten.linalg_eigvals, aten._linalg_eigvals, aten.linalg_eig,
}  # fmt: skip
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index_put}
COPYING = {aten._to_copy, aten.copy_}
JOINING = {aten.cat, aten.stack}


class Card(Tensor):
    """A tensor on the device; ``inner`` holds its values."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Card":
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        with torch.inference_mode(False):  # in which a wrapper cannot be split into views
            return torch.Tensor._make_wrapper_subclass(cls, inner.size(), device=CARD, **layout)

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner.detach()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    @property
    def data(self) -> "Card":
        """As of any tensor."""
        return self.detach()

    @data.setter
    def data(self, other: "Card") -> None:
        Tensor.data.__set__(self, other)
        self.inner = other.inner

    def tolist(self) -> Any:
        """As of any tensor, which torch does not give subclasses."""
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"Card({self.inner!r})"


class Watched(TorchDispatchMode):
    """Lets tensors be on the device, and counts what waits for it.

    Attributes:
        waits: by the operation, and the line of qprune's code that it came from.
        launches: operations on the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.launches = 0

    def __enter__(self) -> "Watched":
        torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor would not ask the mode
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _waits(func, args, kwargs):
            self.waits[f"{func.overloadpacket.__name__} at {_place()}"] += 1
        self.launches += any(isinstance(leaf, Card) for leaf in tree_leaves((args, kwargs)))
        return _run(func, args, kwargs)


def _place() -> str:
    """The innermost line of qprune's code, or of torch's where there is none."""
    lines = [line for line in traceback.extract_stack() if "/tests/" not in line.filename]
    own = [line for line in lines if "/qprune/" in line.filename] or lines
    return f"{own[-1].filename.split('site-packages/')[-1].split('/qprune/')[-1]}:{own[-1].lineno}"


def _on_card(value: Any) -> bool:
    return isinstance(value, Card)


def _waits(func: Any, args: Any, kwargs: Any) -> bool:
    packet, leaves = func.overloadpacket, tree_leaves((args, kwargs))
    if packet in COPYING:
        there = _on_card(args[0])
        if packet is aten.copy_:
            return there != _on_card(args[1]) and not (there and (kwargs.get("non_blocking") or args[2:3] == (True,)))
        to = kwargs.get("device")
        return (
            to is not None
            and to.type != "meta"
            and (to.type == "card") != there
            and not (kwargs.get("non_blocking") and not there)
        )
    if not any(map(_on_card, leaves)):
        return False
    if packet in INDEXING:
        indices = [index for index in args[1] if index is not None]
        return any(index.dtype in (torch.bool, torch.uint8) or not _on_card(index) for index in indices)
    if packet is aten.repeat_interleave:
        return kwargs.get("output_size") is None
    return packet in READING


def _check_devices(func: Any, args: Any, kwargs: Any) -> None:
    packet = func.overloadpacket
    if packet in COPYING:
        return
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if packet in INDEXING:
        leaves = [leaf for leaf in leaves if not any(leaf is index for index in args[1])]
    cards = [leaf for leaf in leaves if _on_card(leaf)]
    if not cards:
        return
    others = [leaf for leaf in leaves if not _on_card(leaf)]
    written = func._schema.is_mutable and leaves and not _on_card(leaves[0])
    if written or any(other.dim() for other in others) or (others and packet in JOINING):
        raise RuntimeError(f"{func} was given tensors on the card and on the host: {[tuple(x.shape) for x in leaves]}")


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    _check_devices(func, args, kwargs)
    cards = {id(leaf.inner): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Card)}
    device = kwargs.get("device")
    there = bool(cards) if device is None else device.type == "card"
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu") if there else device}
    inner_args, inner_kwargs = tree_map(lambda x: x.inner if isinstance(x, Card) else x, (args, kwargs))
    result = func(*inner_args, **inner_kwargs)
    if not there and not cards:
        return result
    if not there or (func.overloadpacket is aten.copy_ and not _on_card(args[0])):
        return result
    return tree_map_only(Tensor, lambda x: cards[id(x)] if id(x) in cards else Card(x), result)
