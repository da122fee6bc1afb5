"""`LearnedQuant`: a quantizer whose step size and offset are trained with the weights."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qprune.layers.in_place import cut_parameter
from qprune.layers.mask import ChannelMask
from qprune.layers.quantizer import FakeQuant
from qprune.numerics import ranging_of
from qprune.rounding import fake_quantize_learned, through


class LearnedQuant(FakeQuant):
    """A `FakeQuant` that measures a range until it is active, and from then on learns its step size and its offset.

    The parameters are there from the start, and follow the measured range until the quantizer is active: they begin to
    be trained where measuring ended. With values v, step size s, zero point z and the codes of `FakeQuant`, the
    gradients of a quantized value are those published: by s it is ``round(v / s) - v / s`` where v lies on the grid,
    and the smallest or largest code where it was clamped; by the offset 1 where it was clamped; by v 1 where it was
    not. Those by s and by the offset are multiplied by ``1 / sqrt(n * q)``, with q the largest code and n the
    number of values of one image, or of one weight, that share the step. What is used, in training as in eval, are the
    grid's own numbers: zero points are integers, and steps powers of two where the numerics want that.

    Args:
        bits: as all arguments, as for `FakeQuant`.

    Attributes:
        step: float32 parameter ``()`` or ``(C,)``, the step size.
        offset: the same, the value that code 0 stands for, before it is rounded to whole steps; where the quantizer is
            symmetric a buffer, which is 0.

    Raises:
        ValueError: as `FakeQuant`; for numerics whose steps cannot be learned, or the gradient ``"straight"``.

    Source: Esser et al. (2020), arXiv:1902.08153; the offset after Bhalgat et al. (2020), arXiv:2004.09576.

    Example:
        >>> quant = LearnedQuant(2, symmetric=True).calibrate(torch.tensor([-1.0, 1.0])).train()
        >>> quant(torch.tensor([0.2, 0.7, 3.0])).sum().backward()
        >>> quant.step.grad * math.sqrt(3)  # -0.2 + (1 - 0.7) + 1
        tensor(1.1000)
    """

    ranging: ClassVar[str] = "learned"
    stored: ClassVar[tuple[str, str]] = ("step", "offset")
    multiplied: ClassVar[tuple[str, ...]] = ("step", "offset")
    step: Tensor
    offset: Tensor

    @property
    def trained(self) -> tuple[str, ...]:
        """The parameters."""
        return ("step",) if self.symmetric else ("step", "offset")

    def fresh(self) -> dict[str, Tensor]:
        """Inactive, nothing seen, step 1."""
        state = super().fresh()
        scale, zero_point = state.pop("scale"), state.pop("zero_point")
        return state | {"step": scale, "offset": zero_point.float()}

    @property
    def scale(self) -> Tensor:  # type: ignore[override]  # a buffer there
        """The step size that the grid has, float32 ``()`` or ``(C,)``."""
        return self.arithmetic.nearest_step(self.step.detach())

    @property
    def zero_point(self) -> Tensor:  # type: ignore[override]  # a buffer there
        """The integer that stands for 0, int32, same shape."""
        return self._nearest_zero_point(self.scale).to(torch.int32)

    def _nearest_zero_point(self, scale: Tensor) -> Tensor:
        if self.symmetric:
            return torch.zeros_like(scale)
        return self.arithmetic.nearest_zero_point(-(self.offset.detach() / scale), *self.code_bounds)

    def stored_grid(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The step and the offset of the grid of these ranges."""
        scale, zero_point = self.scale_and_zero_point(low, high)
        return scale, 0 - zero_point * scale

    def observe(self, x: Tensor, *arguments: Any, **options: Any) -> None:
        """Widen the range seen in this step, until the quantizer is active; see `FakeQuant.observe`."""
        if torch.compiler.is_compiling() or not self.told_active:
            super().observe(x, *arguments, **options)

    def rounded(self, x: Tensor, mask: ChannelMask | None, owned: bool = False, nonnegative: bool = False) -> Tensor:
        """The quantized values, with gradients by step and offset in training; see `FakeQuant.rounded`."""
        if not self.training:
            return super().rounded(x, mask, owned, nonnegative)
        low, high = self.code_bounds
        share, scale, zero_point = 1 / math.sqrt(self._sharing(x) * high), self.scale, None
        step = through(self.step, scale, share)
        if not self.symmetric:
            position = -(through(self.offset, self.offset, share) / step)
            zero_point = through(position, self._nearest_zero_point(scale))
        return fake_quantize_learned(x, step, zero_point, low, high, axis=self.axis)

    def _sharing(self, x: Tensor) -> int:
        """How many values of one image, or of the weight, have one step in common."""
        axis = self.axis % x.dim()
        return math.prod(x.shape[axis if self.channels is None else axis + 1 :])

    def select(self, channels: Tensor) -> None:
        """Go on with the ranges and steps of these channels alone; see `FakeQuant.select`."""
        for parameter in self.parameters() if self.channels is not None else ():
            cut_parameter(parameter, lambda tensor: tensor[channels.to(tensor.device, non_blocking=True)])
        super().select(channels)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        # the state of a quantizer that measured is where learning goes on
        scale, zero_point = (state_dict.get(prefix + name) for name in FakeQuant.stored)
        if scale is not None and zero_point is not None and prefix + "step" not in state_dict:
            del state_dict[prefix + "scale"], state_dict[prefix + "zero_point"]
            state_dict |= {prefix + "step": scale, prefix + "offset": 0 - zero_point * scale}
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def make_quant(bits: int, *, ranging: str = "measured", **options: Any) -> FakeQuant:
    """The quantizer that comes to its range in this way.

    Args:
        bits: 2 to 8.
        ranging: a word of `qprune.numerics.RANGES`.
        **options: of `FakeQuant`.

    Raises:
        ValueError: for an unknown word, and as `FakeQuant` and `LearnedQuant`.

    Example:
        >>> make_quant(4, ranging="learned")
        LearnedQuant(bits=4, per='tensor', symmetric=False, schedule=None)
    """
    return (LearnedQuant if ranging_of(ranging).learned else FakeQuant)(bits, **options)


def learned_parameters(net: nn.Module) -> list[nn.Parameter]:
    """The steps and offsets that the quantizers of a network learn.

    Example:
        >>> len(learned_parameters(nn.Sequential(QuantConv2d(2, 3, 1, range="learned"))))
        3
    """
    return [parameter for part in net.modules() if isinstance(part, LearnedQuant) for parameter in part.parameters()]
