"""What a forward does otherwise in training than in eval mode."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from qprune.flow import meta_copy
from qprune.graph.operations import DROPOUTS, outermost


def switched_dropouts(
    net: nn.Module, inputs: tuple[Any, ...], is_layer: Callable[[nn.Module], bool]
) -> set[int] | None:
    """Numbers of the functional dropouts that drop in training alone; None if anything else differs there, or fails."""
    arguments = tree_map_only(Tensor, lambda x: torch.empty_like(x, device="meta"), inputs)
    listings = []
    for training in (False, True):
        listing = _Listing(meta_copy(net).train(training), is_layer)
        try:
            with torch.no_grad(), torch.device("meta"), listing:
                listing.net(*arguments)
        except Exception:  # the network's own code, on tensors without values
            return None
        listings.append(listing)
    one, other = listings
    return one.switched(other) if one.calls == other.calls else None


class _Listing(TorchFunctionMode):
    """The calls of layers and functions of one run on the meta device; apart from them what dropouts are told."""

    def __init__(self, net: nn.Module, is_layer: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.net = net
        self.calls: list[tuple[str, str]] = []
        self.dropouts: list[str] = []
        for path, layer in outermost(net, is_layer):
            layer._compiled_call_impl = self._calling(path, layer)  # in place of forward

    def _calling(self, path: str, layer: nn.Module) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((path, _told(arguments, options)))
            with torch._C.DisableTorchFunction():
                return layer.forward(*arguments, **options)

        return call

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in DROPOUTS:
            self.dropouts.append(_told(args, options))
            self.calls.append((func.__name__, ""))
        else:
            self.calls.append((getattr(func, "__name__", str(func)), _told(args, options)))
        with torch._C.DisableTorchFunction():
            return func(*args, **options)

    def switched(self, other: "_Listing") -> set[int]:
        """The dropouts that are told something else in another run."""
        pairs = zip(self.dropouts, other.dropouts, strict=True)
        return {number for number, (one, another) in enumerate(pairs) if one != another}


def _told(arguments: Any, options: Any) -> str:
    return str(tree_map_only(Tensor, lambda x: tuple(x.shape), (arguments, options)))
