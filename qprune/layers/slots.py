"""The slots of a host, in which masks and quantizers are put, and which entries of its parameters those leave."""

from collections.abc import Container, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qprune.functional import along
from qprune.layers.bias import LARGEST, BiasQuant
from qprune.layers.learned import make_quant
from qprune.layers.mask import ChannelMask
from qprune.layers.quantizer import FakeQuant


class Compressed:
    """Mixed in before a torch layer: the slots ``<side>_mask`` and ``<side>_quant`` for each of its sides."""

    sides: tuple[str, ...] = ("output",)
    channel_axis = 1
    recompute: bool = False  # set by `qprune.layers.recompute_in_backward`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.open_slots()

    def open_slots(self) -> None:
        """Make every slot, empty."""
        # plain attributes, not register_module(name, None): that one takes a checkpoint's entries for it and drops them
        for side in self.sides:
            setattr(self, f"{side}_mask", None)
            setattr(self, f"{side}_quant", None)

    def close_slots(self) -> None:
        """Forget every slot, for a layer that is going to be of its torch class again."""
        for side in self.sides:
            delattr(self, f"{side}_mask")
            delattr(self, f"{side}_quant")
        vars(self).pop("recompute", None)

    def channels_at(self, side: str) -> int | None:
        """Channels of the tensor at ``side``; None where the layer itself does not know."""
        return getattr(self, "num_features", getattr(self, "num_channels", None))

    def slot(self, side: str, kind: str) -> Any:
        """The ``"mask"`` or ``"quant"`` at ``side``, or None.

        Raises:
            ValueError: if the layer has no such side.
        """
        if side not in self.sides:
            raise ValueError(f"{type(self).__name__} has sites at {', '.join(self.sides)}; received {side!r}")
        return getattr(self, f"{side}_{kind}")

    def add_mask(
        self, side: str, *, channels: int | None = None, axis: int | None = None, **options: Any
    ) -> ChannelMask:
        """Fill the mask slot at ``side``; ``options`` are those of `ChannelMask`.

        Args:
            side: ``"input"``, ``"weight"`` or ``"output"``.
            channels: number of channels, where the layer does not know it.
            axis: the dimension of the channels, by default that of this kind of layer.
            **options: of `ChannelMask`.

        Raises:
            ValueError: if the slot is taken, the side does not exist, ``channels`` is needed and not given, or the
                importance cannot rank this layer.
        """
        count, axis = self._count(side, "mask", channels), self._axis(side) if axis is None else axis
        mask = ChannelMask(count, axis=axis, device=self._device(), **options)
        if problem := mask.ranking.problem(self):
            raise ValueError(f"{type(self).__name__} {problem}")
        setattr(self, f"{side}_mask", mask.train(self.training))  # type: ignore[attr-defined]
        return mask

    def add_quant(
        self,
        side: str,
        bits: int,
        *,
        per: str = "tensor",
        range: str = "measured",
        channels: int | None = None,
        axis: int | None = None,
        **options: Any,
    ) -> FakeQuant:
        """Fill the quantizer slot at ``side``; ``options`` are those of `FakeQuant`.

        Args:
            side: ``"input"``, ``"weight"`` or ``"output"``.
            bits: 2 to 8.
            per: one range for the whole ``"tensor"`` or one per ``"channel"``.
            range: ``"measured"``, or ``"learned"`` for a `LearnedQuant`.
            channels: number of channels, where the layer does not know it.
            axis: the dimension of the channels, by default that of this kind of layer.
            **options: of `FakeQuant`; symmetric by default at the weight only.

        Raises:
            ValueError: if the slot is taken, the side does not exist, or ``channels`` is needed and not given.
        """
        if per not in ("tensor", "channel"):
            raise ValueError(f'per must be "tensor" or "channel"; received {per!r}')
        self._free(side, "quant")
        count = self._count(side, "quant", channels) if per == "channel" else None
        options = {"symmetric": side == "weight"} | options
        axis = self._axis(side) if axis is None else axis
        options |= {"channels": count, "axis": axis, "device": self._device()}
        quant = make_quant(bits, ranging=range, **options)
        setattr(self, f"{side}_quant", quant.train(self.training))  # type: ignore[attr-defined]
        return quant

    def _free(self, side: str, kind: str) -> None:
        if self.slot(side, kind) is not None:
            raise ValueError(f"{type(self).__name__} already has a {kind} at its {side}")

    def _count(self, side: str, kind: str, channels: int | None) -> int:
        self._free(side, kind)
        count = channels or self.channels_at(side)
        if count is None:
            raise ValueError(f"{type(self).__name__} does not know its channels: pass channels=")
        return count

    def _axis(self, side: str) -> int:
        return 0 if side == "weight" else self.channel_axis

    def _device(self) -> torch.device | None:
        return next((p.device for p in self.parameters()), None)  # type: ignore[attr-defined]

    def kept_entries(self, masks: Container[ChannelMask] | None = None) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each parameter with a bool tensor that broadcasts to it, false where a dropped channel has its entries.

        Args:
            masks: the masks that count; all of them if None.
        """
        (keep,) = self._keeps(masks, "output")
        if keep is not None:
            for parameter in self.parameters(recurse=False):  # type: ignore[attr-defined]
                if len(parameter) == len(keep):  # a PReLU may have one number for all channels
                    yield parameter, keep

    def _keeps(self, masks: Container[ChannelMask] | None, *sides: str) -> list[Tensor | None]:
        found = [self.slot(side, "mask") for side in sides]
        return [None if mask is None or (masks is not None and mask not in masks) else mask.keep for mask in found]

    def extra_repr(self) -> str:
        """The torch layer's own line and the filled slots."""
        slots = [f"{side}_{kind}={_brief(self.slot(side, kind))}" for side in self.sides for kind in ("mask", "quant")
                 if self.slot(side, kind) is not None]  # fmt: skip
        return ", ".join(filter(None, [super().extra_repr(), *slots]))  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class WeightSlots(Compressed):
    """The slots of a host with a weight, at its input, weight and output, and what they make of its entries."""

    sides = ("input", "weight", "output")
    channel_axis = -3
    weight: Any
    bias: Any
    input_mask: ChannelMask | None
    input_quant: FakeQuant | None
    weight_mask: ChannelMask | None
    weight_quant: FakeQuant | None
    output_mask: ChannelMask | None
    output_quant: FakeQuant | None
    bias_quant: BiasQuant | None

    def open_slots(self) -> None:
        """Make every slot, empty."""
        super().open_slots()
        self.bias_quant = None

    def close_slots(self) -> None:
        """Forget every slot, for a layer that is going to be of its torch class again."""
        super().close_slots()
        del self.bias_quant

    def channels_at(self, side: str) -> int:
        """Input channels, or output channels for the weight and output sides."""
        return self.in_channels if side == "input" else self.out_channels  # type: ignore[attr-defined]

    def rows(self, weight: Tensor) -> Tensor:
        """View a tensor of the weight's shape as ``(out, in / groups, ...)``; its own inverse."""
        return weight

    def int_weight(self) -> tuple[Tensor, Tensor]:
        """The integer weights and their float32 scale, both in the weight's shape.

        Their product, in the layer's dtype, is the weight that forward uses, to the bit. Integers are int8; int16 where
        the quantizer is not symmetric, because its zero point is subtracted already.

        Raises:
            ValueError: if there is no weight quantizer, or it does not quantize yet.
        """
        if self.weight_quant is None or not self.weight_quant.active:
            raise ValueError(
                f"{type(self).__name__} has no active weight quantizer: train past its start, or calibrate it"
            )
        rows = self.rows(self.weight.detach())
        if self.weight_mask is not None:
            rows = torch.where(along(self.weight_mask.keep, rows, 0), rows, 0)
        quant = self.weight_quant
        kind = torch.int8 if quant.symmetric else torch.int16
        integers = (quant.codes(rows) - along(quant.zero_point, rows, 0)).to(kind)
        return self.rows(integers), self.rows(along(quant.scale, rows, 0).expand_as(rows))

    def beyond_float(self) -> bool:
        """Whether integer sums of this layer may be too large for float32 to hold them exactly.

        Only where that is asked for, by a `BiasQuant`: then eval computes the layer in float64.
        """
        if self.bias_quant is None or self.weight_quant is None:
            return False
        terms = self.rows(self.weight)[0].numel()
        return terms * self.bias_quant.levels * self.weight_quant.code_bounds[1] >= 2**24 - LARGEST

    def kept_entries(self, masks: Container[ChannelMask] | None = None) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """As `Compressed.kept_entries`: the bias, and the weight by the channels that it reads and makes."""
        rows = self.rows(self.weight)
        into, *outs = self._keeps(masks, "input", "weight", "output")
        keep = torch.ones_like(rows, dtype=torch.bool)
        if into is not None:
            keep &= self._input_keep(into).view(*rows.shape[:2], *[1] * (rows.dim() - 2))
        for out in outs:
            if out is not None:
                keep &= along(out, rows, 0)
                if self.bias is not None:
                    yield self.bias, out
        yield self.weight, self.rows(keep)

    def _input_keep(self, keep: Tensor) -> Tensor:
        # (in,) -> (out, in / groups): output row o reads the input channels of its own group
        groups = getattr(self, "groups", 1)
        return keep.view(groups, -1).repeat_interleave(self.channels_at("output") // groups, 0)


def _brief(slot: ChannelMask | FakeQuant) -> str:
    if isinstance(slot, ChannelMask):
        kept = "?" if slot.keep.is_meta else int(slot.keep.sum())
        return f"{kept}/{slot.channels}"
    return f"{slot.bits}bit" + ("" if slot.active.is_meta or slot.active else "(off)")
