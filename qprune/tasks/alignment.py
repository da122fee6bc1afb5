"""How alike the channels of two layers are, whatever their number, and what the layers of a network gave."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qprune.errors import PlanError


def alignment(ours: Tensor, theirs: Tensor) -> Tensor:
    """Alignment of the linear kernels of two activations, ``|X^T Y|^2 / (|X^T X| |Y^T Y|)`` in Frobenius norms.

    Rows of X and Y are the positions of all images, columns the channels, of which the two may have different numbers.
    It is 1 where X is Y but for a scale, a rotation of its channels, or channels that are zero everywhere.

    Args:
        ours: (N, C, ...).
        theirs: (N, D, ...), of the same positions.

    Returns:
        a scalar from 0 to 1, computed in float32; 0 where one of them is zero everywhere.

    Source: Jin et al., 2021, arXiv:2103.03467, equation 3; Cortes et al., 2012.

    Example:
        >>> x = torch.eye(3).reshape(3, 3, 1, 1)
        >>> alignment(x, -2 * x).round(decimals=4)
        tensor(1.)
    """
    with torch.autocast(ours.device.type, enabled=False):  # sums over all positions need float32
        x, y = (_of_size_one(each.float().movedim(1, -1).flatten(0, -2)) for each in (ours, theirs))
        norms = (x.T @ x).norm() * (y.T @ y).norm()
        return (x.T @ y).square().sum() / norms.clamp_min(1e-12)


def _of_size_one(rows: Tensor) -> Tensor:
    return rows / rows.norm().clamp_min(1e-12)  # whose fourth powers neither overflow nor vanish


def distance(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
    """The sum of ``1 - alignment`` over layers, whose activations in both networks are given by their paths."""
    return torch.stack([1 - alignment(*_comparable(path, ours.get(path), theirs.get(path))) for path in theirs]).sum()


def _comparable(path: str, ours: Any, theirs: Any) -> tuple[Tensor, Tensor]:
    fits = all(isinstance(each, Tensor) and each.dim() > 1 for each in (ours, theirs))
    if fits and _positions(ours) == _positions(theirs):
        return ours, theirs
    raise PlanError(
        f'train.teacher.layers compares outputs of layers that are tensors (N, C, ...), equal but for C; "{path}" '
        f"gives {_shown(ours)} in the network and {_shown(theirs)} in the teacher. Name another layer, or leave it out."
    )


def _positions(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.shape[0], *tensor.shape[2:])


def _shown(output: Any) -> str:
    if output is None:
        return "nothing"
    return str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__


@contextmanager
def first_outputs(net: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What layers give when they run first within the block: a GAN runs a generator several times in a step."""
    given: dict[str, Any] = {}

    def keep(path: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            given.setdefault(path, output)

        return hook

    with ExitStack() as stack:
        for path in paths:
            stack.callback(net.get_submodule(path).register_forward_hook(keep(path)).remove)
        yield given
