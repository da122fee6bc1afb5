"""Layers of a shrunk network whose neighbours kept other channels: they gather before computing, or scatter after."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qprune.layers.all_hosts import HOSTS
from qprune.layers.compressor import home
from qprune.layers.slots import Compressed
from qprune.zoo import Add, Concat


class Align(nn.Module):
    """Picks channels by fixed indices, and puts constants where a channel no longer exists.

    Input ``(N, C, ...)``, output ``(N, len(index), ...)``: channel j is ``x[:, index[j]]``, or the constant ``fill[j]``
    where ``index[j]`` is -1. Without any -1 it gathers, else it scatters into constants. Channels may lie along another
    dimension than the second.

    Args:
        index: for each output channel the input channel, or -1.
        fill: for each output channel a constant; by default 0.
        axis: the dimension of the channels: 1, or counted from the last one, which is -1.

    Raises:
        ValueError: if ``fill`` has another length, or an index is below -1.

    Example:
        >>> Align([1, -1, 0], fill=[0.0, 5.0, 0.0])(torch.tensor([[1.0, 2.0]]))
        tensor([[2., 5., 1.]])
    """

    source: Tensor
    place: Tensor
    constants: Tensor

    def __init__(self, index: Sequence[int], fill: Sequence[float] | None = None, axis: int = 1) -> None:
        super().__init__()
        fill = [0.0] * len(index) if fill is None else fill
        if min(index, default=0) < -1 or len(fill) != len(index):
            raise ValueError(f"index must be -1 or more, and as long as fill; received {index!r} and {fill!r}")
        self.index, self.axis = tuple(index), axis
        self.fill = tuple(0.0 if i >= 0 else float(f) for i, f in zip(index, fill, strict=True))
        self._settle(None)

    def _settle(self, device: torch.device | None) -> None:
        there = [index >= 0 for index in self.index]
        buffers = {
            "source": torch.tensor([index for index in self.index if index >= 0], dtype=torch.int64),
            "place": torch.tensor([i for i, exists in enumerate(there) if exists], dtype=torch.int64),
            "constants": torch.tensor(self.fill),
        }
        for name, value in buffers.items():  # as fixed as a stride: no state to load
            self.register_buffer(name, value.to(device, non_blocking=True), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the picked channels."""
        if self.axis != 1 and x.dim() + self.axis != 1:
            return self._align(x.movedim(self.axis, 1)).movedim(1, self.axis)
        if x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last):
            return self._align(x)
        # whole pixels as rows, where channels lie side by side: ten times as fast as index_select over dimension 1
        pixels = x.permute(0, 2, 3, 1)
        aligned = self._align(pixels.reshape(-1, x.shape[1]))
        return aligned.view(*pixels.shape[:3], len(self.index)).permute(0, 3, 1, 2)

    def _align(self, x: Tensor) -> Tensor:
        if -1 not in self.index:
            return _pick(x, self.source)
        aligned = x.new_zeros(x.shape[0], len(self.index), *x.shape[2:])
        if any(self.fill):
            aligned += self.constants.to(x.dtype).view(1, -1, *[1] * (x.dim() - 2))
        return aligned.index_copy_(1, self.place, self._sources(x)) if len(self.source) else aligned

    def _sources(self, x: Tensor) -> Tensor:
        read = tuple(index for index in self.index if index >= 0)
        return x if read == tuple(range(x.shape[1])) else _pick(x, self.source)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
        assigned = local_metadata.get("assign_to_params_buffers", False)
        self._settle(home(state_dict, prefix) if assigned else self.source.device)

    def extra_repr(self) -> str:
        """The number of channels that come out, and how many of them are constants."""
        axis = "" if self.axis == 1 else f", axis={self.axis}"
        return f"{len(self.index)}, constants={self.index.count(-1)}{axis}"


def _pick(x: Tensor, source: Tensor) -> Tensor:
    # 90 of 260 columns of 2,048 rows on two cores: 99 µs by gather, 148 by index_select
    return x.gather(1, source.expand(x.shape[0], -1)) if x.dim() == 2 else x.index_select(1, source)


class Aligned:
    """Mixed in before a layer: its arguments are aligned before it computes, and its result after."""

    arguments: Any
    result: Align | None

    def align(self, arguments: Sequence[Align | None], result: Align | None) -> None:
        """Set what is done to each argument and to the result; None leaves it as it is."""
        self.arguments = nn.ModuleList(nn.Identity() if align is None else align for align in arguments)
        self.arguments.train(self.training)  # type: ignore[attr-defined]
        self.result = result

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        """Align, compute, align."""
        if "input" in options:  # torch's name of the first one
            inputs = (options.pop("input"), *inputs)
        aligned = [align(x) for align, x in zip(self.arguments, inputs, strict=False)]
        y = super().forward(*aligned, *inputs[len(aligned) :], **options)  # type: ignore[misc]
        return y if self.result is None else self.result(y)

    def __repr__(self) -> str:
        aligns = [*self.arguments, self.result]
        shown = " | ".join(align.extra_repr() if isinstance(align, Align) else "-" for align in aligns)
        parts = filter(None, [self.extra_repr(), f"aligned=[{shown}]"])  # type: ignore[attr-defined]
        return f"{type(self).__name__}({', '.join(parts)})"


# Layers that treat each channel alone, and keep their number; with those of `HOSTS` all that can be cut.
CHANNELWISE: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
    nn.GroupNorm, nn.LayerNorm,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Identity, nn.Dropout, nn.Dropout2d,
    nn.PReLU, nn.Dropout1d, nn.Dropout3d,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.LPPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Upsample,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d,
)  # fmt: skip
_ALIGNABLE = dict.fromkeys(
    (
        *CHANNELWISE,
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose1d,
        nn.ConvTranspose2d,
        nn.ConvTranspose3d,
        nn.Linear,
        Add,
        Concat,
        *HOSTS.values(),
    )
)
ALIGNED: dict[type[nn.Module], type[nn.Module]] = {
    plain: type(
        f"Aligned{plain.__name__}", (Aligned, plain), {"__doc__": f"`{plain.__name__}` with its channels aligned."}
    )
    for plain in _ALIGNABLE
}
globals().update({aligned.__name__: aligned for aligned in ALIGNED.values()})  # where pickle and deepcopy look


def bare(layer: nn.Module) -> type[nn.Module]:
    """The class of a layer without alignments.

    Raises:
        KeyError: if it is none of `qprune.layers.ALIGNED`.

    Example:
        >>> from qprune.layers import PrunedConv2d
        >>> bare(PrunedConv2d(2, 3, 1)).__name__
        'CompressedConv2d'
    """
    fitting = [kind for kind in ALIGNED if isinstance(layer, kind) and _same_forward(layer, kind)]
    if not fitting:
        raise KeyError(type(layer).__name__)
    return next((kind for kind in fitting if issubclass(kind, Compressed)), fitting[0])


def _same_forward(layer: nn.Module, kind: type[nn.Module]) -> bool:
    own = next(c for c in type(layer).__mro__ if "forward" in c.__dict__ and c is not Aligned)
    return own in kind.__mro__ and "forward" in own.__dict__
