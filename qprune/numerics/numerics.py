"""What a numerics is: which grid a range becomes, how ranges are averaged, what a network needs before it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # specs ask numerics too, and are read without torch
    from torch import Tensor

SMALLEST_LEARNED = 2.0**-40  # a step that training moved to 0 or below; small, and its gradients are finite


class Numerics(ABC):
    """The rules by which quantizers compute. Functions of tensors alone: ranges and grids are the quantizers' own.

    Attributes:
        least: the least weight of one step in the running mean of a range; with 0 all steps weigh the same.
        by_magnitude: whether the upper end of a symmetric range is the mean of the steps' largest magnitudes.
        learnable: whether step sizes may be learned, see `qprune.layers.LearnedQuant`.
        keeps_grid: whether a quantizer's grid stays as it is from when the quantizer is active.
        from_zero: whether training counts steps from 0, and one range of a whole tensor is that of all its values.
        remakes: whether a run begins by giving its network another form, see `qprune.exact.make_exact`: normalizations
            are folded and the masks are final. Neither the spec nor the network before it can make that form again.
    """

    __slots__ = ()
    least: ClassVar[float] = 0.01
    by_magnitude: ClassVar[bool] = False
    learnable: ClassVar[bool] = True
    keeps_grid: ClassVar[bool] = False
    from_zero: ClassVar[bool] = True
    remakes: ClassVar[bool] = False

    def code_bounds(self, bits: int, symmetric: bool) -> tuple[int, int]:
        """The smallest and largest integer code.

        Args:
            bits: 2 to 8.
            symmetric: whether the integers lie around 0 (weights), or from 0 up (activations).

        Raises:
            ValueError: unless ``bits`` is 2 to 8.

        Example:
            >>> from qprune.numerics import Default, Paper
            >>> Default().code_bounds(4, symmetric=True), Paper().code_bounds(4, symmetric=True)
            ((-7, 7), (-8, 7))
        """
        if bits not in range(2, 9):
            raise ValueError(f"bits must be 2 to 8; received {bits!r}")
        top = 2 ** (bits - 1) - 1
        return (-top, top) if symmetric else (0, 2**bits - 1)

    @abstractmethod
    def scale_and_zero_point(self, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
        """The step size and the integer that stands for 0, for values between ``low`` and ``high``.

        Args:
            low: smallest values, any shape (one per tensor or per channel).
            high: largest values, same shape.
            bits: 2 to 8.
            symmetric: as for `code_bounds`.

        Returns:
            float32 scale and int32 zero point of that shape.

        Example:
            >>> from qprune.numerics import Paper
            >>> Paper().scale_and_zero_point(torch.tensor(-1.0), torch.tensor(3.0), 2, symmetric=False)
            (tensor(1.), tensor(1, dtype=torch.int32))
        """

    def extremes(
        self, x: Tensor, keep: Tensor | None = None, axis: int = 1, nonnegative: bool = False
    ) -> tuple[Tensor | float, Tensor | float]:
        """The smallest and largest value that count for one range of a whole tensor.

        Dropped channels are 0 already and count: a range contains 0 whatever was measured.

        Args:
            x: values of shape ``(N, C, ...)``.
            keep: bool ``(C,)``, the channels that are not dropped; None if there is no mask.
            axis: the channel axis.
            nonnegative: ``x`` comes from a rectifier.

        Example:
            >>> from qprune.numerics import Default
            >>> Default().extremes(torch.tensor([[-1.0, 2.0]]))
            (tensor(-1.), tensor(2.))
        """
        return 0.0 if nonnegative else x.amin(), x.amax()

    def origin(self, ends: Tensor, symmetric: bool) -> Tensor | None:
        """The value from which training counts steps, where that is not 0; None where it is 0, as in eval.

        Where it is not 0, the grid of training need not contain 0: a value of 0 does not stay 0, and a zero point may
        lie outside of the codes.

        Args:
            ends: the range, float32 ``(2,)`` or ``(2, C)``.
            symmetric: as for `code_bounds`.

        Example:
            >>> from qprune.numerics import Default, Paper
            >>> ends = torch.tensor([0.5, 3.0])
            >>> Default().origin(ends, symmetric=False), Paper().origin(ends, symmetric=False)
            (None, tensor(0.5000))
        """
        return None

    def nearest_step(self, wanted: Tensor) -> Tensor:
        """The step size of a grid that is nearest to a learned one; never 0 or below.

        Example:
            >>> from qprune.numerics import Default, Exact
            >>> wanted = torch.tensor([0.3, 0.4])
            >>> Default().nearest_step(wanted), Exact().nearest_step(wanted)
            (tensor([0.3000, 0.4000]), tensor([0.2500, 0.5000]))
        """
        return wanted.clamp(min=SMALLEST_LEARNED)

    def nearest_zero_point(self, wanted: Tensor, low: int, high: int) -> Tensor:
        """The whole number, as float32, that may stand for 0 and is nearest to a learned one.

        Args:
            wanted: counted in steps.
            low: smallest code.
            high: largest code.

        Example:
            >>> from qprune.numerics import Default, Exact
            >>> wanted = torch.tensor([2.7, 99.0])
            >>> Default().nearest_zero_point(wanted, 0, 15), Exact().nearest_zero_point(wanted, 0, 15)
            (tensor([ 3., 15.]), tensor([ 2., 14.]))
        """
        return wanted.round().clamp(low, high)


def channel_extremes(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The smallest and largest value of each channel; of a single vector, its values.

    Example:
        >>> channel_extremes(torch.tensor([[1.0, 2.0], [3.0, -6.0]]), axis=1)
        (tensor([ 1., -6.]), tensor([3., 2.]))
    """
    others = [d for d in range(x.dim()) if d != axis % x.dim()]
    return (x.amin(others), x.amax(others)) if others else (x, x)
