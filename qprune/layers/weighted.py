"""The layers that people construct: `PrunedConv2d`, `QuantConv2d`, `PrunedQuantConv2d`, and the same for
ConvTranspose2d and Linear. Each is the torch layer with the same first arguments; the extra options are keyword-only.
"""

from typing import Any

from qprune.importances import fitting
from qprune.layers.hosts import CompressedConv2d, CompressedConvTranspose2d, CompressedLinear
from qprune.layers.slots import Compressed
from qprune.schedules import PruneSchedule, QuantizeFrom


class _Pruned(Compressed):
    def __init__(
        self,
        *args: Any,
        schedule: PruneSchedule | None = None,
        at: str = "input",
        importance: str | None = None,
        multiple_of: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        _prune(self, at, importance, multiple_of, schedule)


class _Quant(Compressed):
    def __init__(
        self,
        *args: Any,
        schedule: QuantizeFrom | None = None,
        weight_bits: int | None = 8,
        act_bits: int | None = 8,
        at: str = "input",
        per: str = "channel",
        numerics: str = "default",
        gradient: str | None = None,
        range: str = "measured",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        options = {"schedule": schedule, "numerics": numerics, "gradient": gradient, "range": range}
        _quantize(self, weight_bits, act_bits, at, per, **options)


class _PrunedQuant(Compressed):
    def __init__(
        self,
        *args: Any,
        prune_schedule: PruneSchedule | None = None,
        quant_schedule: QuantizeFrom | None = None,
        at: str = "input",
        importance: str | None = None,
        multiple_of: int = 1,
        weight_bits: int | None = 8,
        act_bits: int | None = 8,
        act_at: str = "input",
        per: str = "channel",
        numerics: str = "default",
        gradient: str | None = None,
        range: str = "measured",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        _prune(self, at, importance, multiple_of, prune_schedule)
        options = {"schedule": quant_schedule, "numerics": numerics, "gradient": gradient, "range": range}
        _quantize(self, weight_bits, act_bits, act_at, per, **options)


def _prune(
    layer: Compressed, at: str, importance: str | None, multiple_of: int, schedule: PruneSchedule | None
) -> None:
    layer.slot(at, "mask")  # refuses a side that does not exist
    importance = importance or fitting(at)[0]
    check_importance(importance, at)
    layer.add_mask(at, importance=importance, multiple_of=multiple_of, schedule=schedule)


def check_importance(importance: str, side: str) -> None:
    """Refuse an importance that cannot rank the channels at ``side``."""
    fits = fitting(side)
    if importance not in fits:
        raise ValueError(f"importance at the {side} must be one of {', '.join(fits)}; received {importance!r}")


def _quantize(
    layer: Compressed, weight_bits: int | None, act_bits: int | None, at: str, per: str, **options: Any
) -> None:
    if weight_bits is None and act_bits is None:
        raise ValueError("weight_bits and act_bits are both None: nothing would be quantized")
    if at == "weight":
        raise ValueError('activations are quantized at "input" or "output"; received "weight"')
    if weight_bits is not None:
        layer.add_quant("weight", weight_bits, per=per, **options)
    if act_bits is not None:
        layer.add_quant(at, act_bits, **options)


class PrunedConv2d(_Pruned, CompressedConv2d):
    """`torch.nn.Conv2d` that learns to do without some of its channels: mask, then convolve.

    Input ``(N, C_in, H, W)``, output as `torch.nn.Conv2d`. Weight and bias keep their names; the mask's state is under
    ``<at>_mask.*``. A layer just made behaves as the dense one, to the bit, and loads its ``state_dict``.

    Args:
        *args: as for `torch.nn.Conv2d`, in order; its keyword arguments too.
        schedule: when to prune (`OneShot`, `Stepwise`, `Layerwise`, `Inherited`); carried out by `ScheduleDriver`.
        at: ``"input"`` masks input channels, ``"weight"`` and ``"output"`` output channels.
        importance: how channels are ranked, a word of `qprune.importances.IMPORTANCES` that fits the side; by default
            ``"activation-l1"``, at the weight ``"weight-l1"``.
        multiple_of: the kept count is rounded up to a multiple of this.
        **kwargs: as for `torch.nn.Conv2d`.

    Raises:
        ValueError: if ``importance`` cannot rank channels ``at`` that side.

    Source: Zhang, Colbert, Das (2022).

    Example:
        >>> PrunedConv2d(64, 128, 3, padding=1, schedule=Stepwise(sparsity=0.75, start=500, every=100))
        PrunedConv2d(64, 128, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), input_mask=64/64)
    """


class PrunedConvTranspose2d(_Pruned, CompressedConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with a channel mask; options as for `PrunedConv2d`."""


class PrunedLinear(_Pruned, CompressedLinear):
    """`torch.nn.Linear` with a mask over features; options as for `PrunedConv2d`. Input ``(*, in_features)``."""


class QuantConv2d(_Quant, CompressedConv2d):
    """`torch.nn.Conv2d` that computes with b-bit weights and activations.

    Input ``(N, C_in, H, W)``, output as `torch.nn.Conv2d`. State is under ``weight_quant.*`` and ``<at>_quant.*``. A
    layer just made behaves as the dense one, to the bit, and loads its ``state_dict``.

    Args:
        *args: as for `torch.nn.Conv2d`, in order; its keyword arguments too.
        schedule: when to start, a `QuantizeFrom`; carried out by `ScheduleDriver`.
        weight_bits: 2 to 8, or None to leave the weight alone.
        act_bits: 2 to 8, or None to leave activations alone.
        at: which activation: ``"input"`` or ``"output"``.
        per: one weight scale per output ``"channel"`` or per ``"tensor"``.
        numerics: as for `FakeQuant`.
        gradient: ``"straight"`` (the default) or ``"clipped"``.
        range: ``"measured"``, or ``"learned"``: step sizes are trained, see `LearnedQuant`.
        **kwargs: as for `torch.nn.Conv2d`.

    Raises:
        ValueError: for bits outside 2 to 8, or when nothing would be quantized.

    Source: Jacob et al. (2018), arXiv:1712.05877.

    Example:
        >>> QuantConv2d(64, 128, 3, weight_bits=4, act_bits=4, schedule=QuantizeFrom(200))
        QuantConv2d(64, 128, kernel_size=(3, 3), stride=(1, 1), input_quant=4bit(off), weight_quant=4bit(off))
    """


class QuantConvTranspose2d(_Quant, CompressedConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with b-bit weights and activations; options as for `QuantConv2d`."""


class QuantLinear(_Quant, CompressedLinear):
    """`torch.nn.Linear` with b-bit weights and activations; options as for `QuantConv2d`.

    Input ``(*, in_features)``.
    """


class PrunedQuantConv2d(_PrunedQuant, CompressedConv2d):
    """`torch.nn.Conv2d` with a channel mask and b-bit arithmetic; a `PrunedConv2d` checkpoint loads into it.

    Args:
        *args: as for `torch.nn.Conv2d`, in order; its keyword arguments too.
        prune_schedule: when to prune, as ``schedule`` of `PrunedConv2d`.
        quant_schedule: when to quantize, as ``schedule`` of `QuantConv2d`.
        at: side of the mask.
        importance: as for `PrunedConv2d`, like ``multiple_of``.
        weight_bits: as for `QuantConv2d`, like ``act_bits``, ``per``, ``numerics``, ``gradient`` and ``range``.
        act_at: side of the activation quantizer.
        **kwargs: as for `torch.nn.Conv2d`.

    Raises:
        ValueError: as `PrunedConv2d` and `QuantConv2d`.

    Example:
        >>> PrunedQuantConv2d(8, 4, 1, weight_bits=4, act_bits=4).weight_quant.bits
        4
    """


class PrunedQuantConvTranspose2d(_PrunedQuant, CompressedConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with a channel mask and b-bit arithmetic; options as for `PrunedQuantConv2d`."""


class PrunedQuantLinear(_PrunedQuant, CompressedLinear):
    """`torch.nn.Linear` with a mask and b-bit arithmetic; options as for `PrunedQuantConv2d`."""
