"""Layers of other libraries, taken apart into torch's own: what masks, shrinking and export know, they know of those.

timm's `BatchNormAct2d` is a normalization, a dropout and an activation, its `Conv2dSame` a pad and a convolution.
As these they need no rule, no host and no operator of their own.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn


class Apart(nn.Module):
    """Base class of what a layer becomes: a module of several layers, one of which (``own``) holds its parameters.

    It loads a state in which they have the names that they had before, without that layer's.
    """

    own: ClassVar[str]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            layer = vars(self).get("_modules", {}).get(self.own)
            if layer is None or not hasattr(layer, name):
                raise
            return getattr(layer, name)  # `weight`, `num_features`: what the network's own code may ask of the layer

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key[len(prefix) :]
            if name.partition(".")[0] not in self._modules:
                state_dict[f"{prefix}{self.own}.{name}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class NormAct(Apart):
    """`timm.layers.BatchNormAct2d`: the layers ``norm``, ``drop`` and ``act``, one after the other."""

    own = "norm"

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, drop, activate."""
        result: Tensor = self.act(self.drop(self.norm(x)))
        return result


class SameConv(Apart):
    """`timm.layers.Conv2dSame`: ``conv`` behind so many zeros that its output has a stride-th of the sides."""

    own = "conv"

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve."""
        pads: list[Any] = []
        for side, kernel, stride, dilation in zip(
            x.shape[-2:], self.conv.kernel_size, self.conv.stride, self.conv.dilation, strict=True
        ):
            pad = max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
            pads = [pad // 2, pad - pad // 2, *pads]
        result: Tensor = self.conv(F.pad(x, pads))
        return result


class ChannelNorm(Apart):
    """`LayerNorm2d` of timm and torchvision: the layer ``norm`` over the channels of each pixel."""

    own = "norm"

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each pixel."""
        result: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return result


def take_apart(net: nn.Module) -> None:
    """Let the layers of other libraries that are known be torch's own, in place; each stays the same object.

    Args:
        net: any network.

    Example:
        >>> from torchvision.models.convnext import LayerNorm2d
        >>> net = nn.Sequential(LayerNorm2d(4))
        >>> take_apart(net)
        >>> type(net[0]).__name__, net[0].norm
        ('ChannelNorm', LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True))
    """
    for module in list(net.modules()):
        change = _CHANGES.get(f"{type(module).__module__}.{type(module).__qualname__}")
        if change is not None and "forward" not in vars(module):
            change(module)


def names_apart(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of a network before it was taken apart, under the names that its parameters have since.

    Args:
        net: a network that `take_apart` went through.
        state: with the names that its library gives.

    Example:
        >>> from torchvision.models.convnext import LayerNorm2d
        >>> net = nn.Sequential(LayerNorm2d(4))
        >>> state = net.state_dict()
        >>> take_apart(net)
        >>> list(names_apart(net, state))
        ['0.norm.weight', '0.norm.bias']
    """
    own = {f"{path}.": module.own for path, module in net.named_modules() if isinstance(module, Apart)}
    named = {}
    for key, tensor in state.items():
        owner, dot, name = key.rpartition(".")
        named[f"{owner}.{own[owner + dot]}.{name}" if owner + dot in own else key] = tensor
    return named


def _splitting(kind: type[Apart], plain: type[nn.Module]) -> Callable[[Any], None]:
    def split(module: Any) -> None:
        if getattr(module, "_fast_norm", False):
            return  # another arithmetic
        layer: Any = plain.__new__(plain)
        nn.Module.__init__(layer)
        layer.training = module.training
        ours = vars(nn.Module()).keys()
        for name, value in list(vars(module).items()):
            if name not in ours:  # what the layer knows: its strides, its channels
                vars(layer)[name] = vars(module).pop(name)
            elif name in ("_parameters", "_buffers", "_non_persistent_buffers_set"):
                vars(layer)[name], vars(module)[name] = value, type(value)()
        module.__class__ = kind
        module._modules = {kind.own: layer, **module._modules}

    return split


def _plainly(plain: type[nn.Module], **options: Any) -> Callable[[Any], None]:
    def rename(module: Any) -> None:
        module.__class__ = plain
        vars(module).update(options)

    return rename


_CHANGES: dict[str, Callable[[Any], None]] = {
    "timm.layers.norm_act.BatchNormAct2d": _splitting(NormAct, nn.BatchNorm2d),
    "timm.layers.conv2d_same.Conv2dSame": _splitting(SameConv, nn.Conv2d),
    "timm.layers.norm.LayerNorm2d": _splitting(ChannelNorm, nn.LayerNorm),
    "torchvision.models.convnext.LayerNorm2d": _splitting(ChannelNorm, nn.LayerNorm),
    # the same as torch's, written again for older versions of it
    "timm.layers.linear.Linear": _plainly(nn.Linear),
    "timm.layers.activations.GELU": _plainly(nn.GELU, approximate="none"),
    "timm.layers.activations.GELUTanh": _plainly(nn.GELU, approximate="tanh"),
}
