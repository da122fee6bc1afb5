"""`trace`: the network runs once on the meta device, where tensors have shapes and no data, and calls are written down.

Running it, rather than analysing its source, follows any Python control flow and knows every shape.
"""

import copy
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from qprune.errors import PlanError
from qprune.flow.calls import Flow
from qprune.flow.failing import reason, shapes
from qprune.flow.recorder import Recorder
from qprune.host import on_host
from qprune.layers import Aligned, Compressed
from qprune.zoo import Add, Concat, deployed


def trace(net: nn.Module, example: Any) -> Flow:
    """Run ``net`` once on the meta device and write down what happens; ``net`` itself is not touched.

    Args:
        net: any network.
        example: its input: a tensor, or a tuple of positional arguments. Only shapes and dtypes matter.

    Raises:
        PlanError: if the network cannot run without data, or does not accept the example.

    Example:
        >>> flow = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(1, 3, 5, 7))
        >>> [call.name for call in flow.calls], flow.calls[-1].shape
        (['Conv2d', 'ReLU'], (1, 8, 3, 5))
    """
    with torch.inference_mode(False), torch.no_grad():  # inference mode counts no writes
        shadow = meta_copy(net)
        arguments = tree_map_only(Tensor, lambda t: torch.empty_like(t, device="meta"), example)
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        recorder = Recorder(dict(leaves(shadow)), dict(net.named_modules()))
        recorder.watch_modules(shadow)
        recorder.know(arguments)
        try:
            with torch.device("meta"), recorder:
                result = shadow(*arguments)
        except Exception as error:
            path = recorder.inside[-1] if recorder.inside else ""
            raise PlanError(
                f"The network could not be followed on an example of shape {shapes(arguments)}: "
                f"{reason(net, arguments, error, recorder.failed, path)}"
            ) from error
        finally:
            recorder.remove()
        return recorder.flow(result, shadow)


def unhooked_copy(net: nn.Module) -> Any:
    """A copy of a network without people's hooks: their owners (a callback with its trainer) cannot always be copied.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> _ = net.register_forward_hook(lambda *_: None)
        >>> len(unhooked_copy(net)._forward_hooks)
        0
    """
    return copy.deepcopy(net, _no_hooks(net))


def _no_hooks(net: nn.Module) -> dict[int, Any]:
    """An empty table in place of each table of hooks, as `copy.deepcopy` takes what is copied already."""
    tables = [each for module in net.modules() for each in (module._forward_hooks, module._forward_pre_hooks)]
    return {id(table): type(table)() for table in tables}


def hooked_copy(net: nn.Module) -> Any:
    """A copy of a network with its forward hooks: those of its own modules act on the copy, others stay the same.

    What somebody collects with a hook is collected from the copy too.

    Example:
        >>> net, seen = nn.Sequential(nn.Conv2d(3, 8, 3)), []
        >>> _ = net.register_forward_hook(lambda module, inputs, output: seen.append(output))
        >>> list(hooked_copy(net)._forward_hooks.values()) == list(net._forward_hooks.values())
        True
    """
    tables = [each for module in net.modules() for each in (module._forward_hooks, module._forward_pre_hooks)]
    memo = _no_hooks(net)
    copied = copy.deepcopy(net, memo)
    for table in tables:
        memo[id(table)].update({key: _rebound(hook, memo) for key, hook in table.items()})
    return copied


def host_picture(net: nn.Module) -> Any:
    """A picture of a network, to look at: its tensors are on the host, all brought there in one transfer.

    Nothing may be written to it: hooks are the same, and so are tensors that were on the host already. A network that
    is all there is its own picture.

    Example:
        >>> net = nn.Linear(2, 3)
        >>> host_picture(net) is net
        True
    """
    tensors = [*net.parameters(), *net.buffers()]
    return net if all(tensor.device.type == "cpu" for tensor in tensors) else _brought(net, tensors)


def _brought(net: nn.Module, tensors: list[Tensor]) -> Any:
    hooks = [each for module in net.modules() for each in (module._forward_hooks, module._forward_pre_hooks)]
    memo: dict[int, Any] = {id(table): table for table in hooks}
    for tensor, there in zip(tensors, on_host(tensors), strict=True):
        memo[id(tensor)] = nn.Parameter(there, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there
    return copy.deepcopy(net, memo)


def _rebound(hook: Any, copies: dict[int, Any]) -> Any:
    owner = getattr(hook, "__self__", None)
    inside = isinstance(owner, nn.Module) and id(owner) in copies
    return MethodType(hook.__func__, copies[id(owner)]) if inside else hook


def meta_copy(net: nn.Module) -> nn.Module:
    """A copy of a network in eval mode, without people's hooks, whose tensors have shapes and no data.

    Example:
        >>> next(meta_copy(nn.Linear(2, 3)).parameters()).device
        device(type='meta')
    """
    # hooks collect and count real values: they are not to see this run
    shadow = copy.deepcopy(net, _no_hooks(net) | _without_data(net))
    before = _tensors(shadow)
    shadow = shadow.to("meta").eval()
    moved = dict(zip(map(id, before), _tensors(shadow), strict=True))
    for module in shadow.modules():
        for name, value in vars(module).items():  # tensors that were never registered stay behind with `to`
            if not name.startswith("_") and isinstance(value, (Tensor, list, tuple, dict)):
                vars(module)[name] = tree_map_only(Tensor, lambda each: moved.get(id(each), each.to("meta")), value)
    shadow.training = net.training and deployed(net) is not net  # what only teaches is reached in training alone
    return shadow


def _without_data(net: nn.Module) -> dict[int, Tensor]:
    """The plain tensors of a network on the meta device, by the ids of the originals, so that no data is copied."""
    return {id(tensor): _on_meta(tensor) for tensor in _tensors(net) if type(tensor) in (Tensor, nn.Parameter)}


def _on_meta(tensor: Tensor) -> Tensor:
    moved = tensor.detach().to("meta")
    return nn.Parameter(moved, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved


def _tensors(net: nn.Module) -> list[Tensor]:
    named = (*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False))
    return [tensor for _, tensor in named]


def leaves(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers that are one call each, with their paths: those of torch and of qprune, not people's own modules.

    Example:
        >>> [path for path, _ in leaves(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU())))]
        ['0', '1.0']
    """
    covered: tuple[str, ...] = ()
    for path, module in net.named_modules():
        if not path.startswith(covered or ("\0",)) and _is_leaf(module):
            covered = (*covered, f"{path}.") if path else ("",)
            yield path, module


def _is_leaf(module: nn.Module) -> bool:
    if isinstance(module, (Aligned, Compressed, Add, Concat)):
        return True
    # the class that wrote the forward decides: a subclass of nn.Conv2d may be as plain as nn.Conv2d
    forward = getattr(type(module), "forward", None)
    of_torch = str(getattr(forward, "__module__", "")).startswith("torch.nn.modules")  # None for generated code
    return of_torch and forward not in (nn.Module.forward, nn.Sequential.forward)
