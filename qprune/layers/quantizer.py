"""`FakeQuant`: rounds values to the grid of a b-bit integer."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from qprune.functional import along
from qprune.layers.compressor import Compressor, measure
from qprune.layers.mask import ChannelMask
from qprune.layers.ranges import ranges_of
from qprune.layers.strips import Commits
from qprune.masking import mask_channels
from qprune.numerics import NUMERICS, RANGES, Numerics, channel_extremes, numerics_of
from qprune.rounding import GRADIENTS, fake_quantize, quantize
from qprune.schedules import QuantizeFrom

torch.fx.wrap("fake_quantize")  # one operation to symbolic tracing, which cannot know a dtype
torch.fx.wrap("mask_channels")


class FakeQuant(Compressor):
    """Quantizes to ``bits`` once active; passes values through before that.

    Input of any shape, output the same shape and dtype. In training, while ``measuring``, each forward widens the range
    seen in this step; `commit` folds it into a running mean, and derives the grid from it, as the numerics say.

    Args:
        bits: 2 to 8.
        channels: one range per channel if given, else one for the whole tensor.
        axis: the channel axis of the input.
        symmetric: integers around 0 (weights) instead of 0 to 2^bits - 1 (activations).
        numerics: the rules of ranges and grids, a word of `qprune.numerics.NUMERICS`.
        gradient: ``"straight"`` (the default) or ``"clipped"``, see `qprune.rounding.fake_quantize`.
        schedule: when to start; asked by `ScheduleDriver`.
        device: where the buffers live.

    Attributes:
        range: float32 ``(2,)`` or ``(2, C)``, the running mean of the smallest and largest values.
        scale: float32 ``()`` or ``(C,)``, the step size; never 0.
        zero_point: int32, same shape, the integer that stands for 0.
        seen: how many steps were measured.
        active: whether it quantizes.
        code_bounds: the smallest and largest integer code.
        ranging: how it comes to its range, a word of `qprune.numerics.RANGES`.
        stored: the tensors that its grid is saved in: a step size, and what stands for the zero point.
        multiplied: those of them that are in units of the values.

    Raises:
        ValueError: for bits outside 2 to 8, or an unknown numerics or gradient.

    Source: Jacob et al. (2018), arXiv:1712.05877, for the affine form.

    Example:
        >>> quant = FakeQuant(2).calibrate(torch.tensor([-1.0, 2.0]))
        >>> quant(torch.tensor([-3.0, 0.4, 0.6, 5.0]))
        tensor([-1., 0., 1., 2.])
    """

    ranging: ClassVar[str] = "measured"
    stored: ClassVar[tuple[str, str]] = ("scale", "zero_point")
    multiplied: ClassVar[tuple[str, ...]] = ("scale",)
    range: Tensor
    scale: Tensor
    zero_point: Tensor
    seen: Tensor
    active: Tensor
    pending_low: Tensor
    pending_high: Tensor

    def __init__(
        self,
        bits: int,
        *,
        channels: int | None = None,
        axis: int = 1,
        symmetric: bool = False,
        numerics: str = "default",
        gradient: str | None = None,
        schedule: QuantizeFrom | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        ranging = RANGES[self.ranging]
        gradient = gradient or ranging.gradients[0]
        self.code_bounds = numerics_of(numerics).code_bounds(bits, symmetric)
        if gradient not in GRADIENTS:
            raise ValueError(f'gradient must be "straight" or "clipped"; received {gradient!r}')
        if problem := ranging.problem(numerics, numerics_of(numerics), gradient):
            raise ValueError(problem)
        self.bits, self.channels, self.axis, self.symmetric = bits, channels, axis, symmetric
        self.numerics, self.gradient, self.schedule = numerics, gradient, schedule
        self.told_active: bool | None = None
        self.register_state(device)

    def fresh(self) -> dict[str, Tensor]:
        """Inactive, nothing seen, scale 1."""
        shape = () if self.channels is None else (self.channels,)
        return {
            "range": torch.zeros(2, *shape),
            "scale": torch.ones(shape),
            "zero_point": torch.zeros(shape, dtype=torch.int32),
            "seen": torch.zeros((), dtype=torch.int64),
            "active": torch.zeros((), dtype=torch.bool),
        }

    def unsaved(self) -> dict[str, Tensor]:
        """The range of no values."""
        shape = () if self.channels is None else (self.channels,)
        return {"pending_low": torch.full(shape, torch.inf), "pending_high": torch.full(shape, -torch.inf)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        self.told_active = None  # the loaded buffer decides
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        if "step" not in self.stored and prefix + "step" in state_dict:
            arguments[-1].append(
                f'"{prefix.rstrip(".")}" learned its steps there, and measures here: give its rule range = "learned"'
            )

    def forward(
        self,
        x: Tensor,
        mask: ChannelMask | None = None,
        raw: Tensor | None = None,
        *,
        owned: bool = False,
        nonnegative: bool = False,
    ) -> Tensor:
        """Measure if asked to, then quantize if active.

        Args:
            x: the values, with dropped channels at 0 already.
            mask: the mask in front, if there is one.
            raw: the values before that mask, if they are at hand.
            owned: ``x`` is nobody else's, and may be overwritten.
            nonnegative: ``x`` comes from a rectifier.
        """
        self.observe(x, mask, raw, nonnegative=nonnegative)
        known = self.known_active
        if known is None:
            return torch.where(self.active, self.rounded(x, mask), x)
        return self.rounded(x, mask, owned, nonnegative) if known else x

    @property
    def arithmetic(self) -> Numerics:
        """The rules of ranges and grids: the object that the word ``numerics`` stands for."""
        return NUMERICS[self.numerics]

    @property
    def known_active(self) -> bool | None:
        """Whether it quantizes now, if that is known without the buffer; None if not.

        The driver's word spares eager training a pass over memory; compiled code and eval always ask the buffer.
        """
        return self.told_active if self.training and not torch.compiler.is_compiling() else None

    def rounded(self, x: Tensor, mask: ChannelMask | None, owned: bool = False, nonnegative: bool = False) -> Tensor:
        """The quantized values, whether active or not, without measuring; arguments as for `forward`."""
        low, high = self.code_bounds
        options: dict[str, Any] = {"axis": self.axis, "gradient": self.gradient}
        origin = self.arithmetic.origin(self.range, self.symmetric)
        if origin is not None and self.training:
            offset, values = along(origin, x, self.axis), x.float()
            y = (fake_quantize(values - offset, self.scale, None, low, high, **options) + offset).to(x.dtype)
            return y if mask is None else mask_channels(y, mask.keep, mask.axis)
        zero_point = None if self.symmetric else self.zero_point
        options["inplace"] = owned and x.dtype == torch.float32
        options["nonnegative"] = nonnegative and origin is None
        return fake_quantize(x, self.scale, zero_point, low, high, **options)

    def codes(self, x: Tensor) -> Tensor:
        """The integer codes of ``x`` (eval arithmetic), int16, same shape."""
        scale, zero_point = along(self.scale, x, self.axis), along(self.zero_point, x, self.axis)
        return quantize(x, scale, zero_point, *self.code_bounds).to(torch.int16)

    def observe(
        self, x: Tensor, mask: ChannelMask | None = None, raw: Tensor | None = None, *, nonnegative: bool = False
    ) -> None:
        """Widen the range seen in this step, in training while ``measuring``; arguments as for `forward`."""
        if self.training and self.measuring and x.numel():
            # the range is one of all channels, so that one which returns has a range
            seen = x if raw is None or self.channels is None else raw
            measure(lambda x: self._observe(x, mask, nonnegative), seen)

    @torch.no_grad()
    def _observe(self, x: Tensor, mask: ChannelMask | None, nonnegative: bool) -> None:
        widen_range(self.pending_low, self.pending_high, *self._extremes(x.float(), mask, nonnegative))

    def _extremes(
        self, x: Tensor, mask: ChannelMask | None = None, nonnegative: bool = False
    ) -> tuple[Any, Any]:  # plain numbers where they are known, such as a rectifier's 0
        if self.channels is not None:
            return channel_extremes(x, self.axis)
        keep, axis = (None, 1) if mask is None else (mask.keep, mask.axis)
        return self.arithmetic.extremes(x, keep, axis, nonnegative)

    def commit(self) -> None:
        """Fold the range seen in this step into the running mean, and derive scale and zero point from it."""
        commit_all([self])

    def select(self, channels: Tensor) -> None:
        """Go on with the ranges of these channels alone, given by their numbers; one range for all stays as it is."""
        if self.channels is None:
            return
        for name in {"range", "pending_low", "pending_high", *self.stored} & self._buffers.keys():
            buffer = getattr(self, name)
            setattr(self, name, buffer[..., channels.to(buffer.device, non_blocking=True)])
        self.channels = len(channels)

    @torch.no_grad()
    def multiply(self, factor: Tensor) -> None:
        """Multiply the grid and the range by positive factors, one per range.

        Example:
            >>> quant = FakeQuant(2, symmetric=True).calibrate(torch.tensor([-1.0, 3.0]))
            >>> quant.multiply(torch.tensor(2.0))
            >>> quant.scale
            tensor(6.)
        """
        for name in (*self.multiplied, "range"):
            getattr(self, name).mul_(factor)

    @torch.no_grad()
    def widen(self, least: Tensor) -> None:
        """Take steps of at least this size.

        Example:
            >>> quant = FakeQuant(2, channels=3)
            >>> quant.widen(torch.tensor([0.5, 1.0, 4.0]))
            >>> quant.scale
            tensor([1., 1., 4.])
        """
        steps: Tensor = getattr(self, self.stored[0])
        steps.copy_(torch.maximum(steps, least))

    @torch.no_grad()
    def per_channel(self, channels: int) -> "FakeQuant":
        """A quantizer of so many channels, each with this one's range for all of them.

        Example:
            >>> FakeQuant(4, axis=0, symmetric=True).per_channel(3).scale
            tensor([1., 1., 1.])
        """
        names = ("symmetric", "numerics", "gradient", "schedule")
        options: dict[str, Any] = {name: getattr(self, name) for name in names}
        wide = type(self)(self.bits, channels=channels, axis=self.axis, device=self.scale.device, **options)
        for name in ("range", *self.stored):
            own = getattr(self, name)
            getattr(wide, name).copy_(own[..., None].expand(*own.shape, channels))
        wide.seen.copy_(self.seen)
        wide.active.copy_(self.active)
        wide.told_active, wide.measuring = self.told_active, self.measuring
        return wide.train(self.training)

    def scale_and_zero_point(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Step size and integer zero point for these ranges, by the quantizer's numerics."""
        return self.arithmetic.scale_and_zero_point(low, high, self.bits, self.symmetric)

    def stored_grid(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """What is saved of the grid of these ranges; the tensors are called `stored`."""
        return self.scale_and_zero_point(low, high)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> "FakeQuant":
        """Take the range of ``x`` as it is and activate; for quantizers outside of training.

        Raises:
            ValueError: if ``x`` holds NaN or infinities.
        """
        if not x.isfinite().all():
            raise ValueError("a range is taken of finite values; received NaN or infinities")
        low, high = self._extremes(x.float())
        self.pending_low.copy_(low)
        self.pending_high.copy_(high)
        self.seen.zero_()
        self.active.fill_(False)  # some keep their grid while they are active
        self.commit()
        self.active.fill_(True)
        self.told_active = None
        return self

    def extra_repr(self) -> str:
        """Bits, granularity and schedule."""
        per = "tensor" if self.channels is None else "channel"
        return f"bits={self.bits}, per={per!r}, symmetric={self.symmetric}, schedule={self.schedule}"


def widen_range(low: Tensor, high: Tensor, seen_low: Any, seen_high: Any) -> None:
    """Add the smallest and largest values of a forward, tensors or plain numbers, to the accumulators of a step.

    Example:
        >>> low, high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        >>> widen_range(low, high, 0.0, torch.tensor(3.0))
        >>> low, high
        (tensor(0.), tensor(3.))
    """
    low.clamp_max_(seen_low)
    high.clamp_min_(seen_high)


def commit_all(quants: Sequence[FakeQuant]) -> None:
    """Commit many quantizers together, once; for those of many steps keep the `Commits` of their `Ranges`.

    Args:
        quants: quantizers on one device.

    Example:
        >>> layer = QuantConv2d(2, 3, 1)
        >>> commit_all([layer.weight_quant, layer.input_quant])
    """
    Commits(ranges_of(quants)).commit()
