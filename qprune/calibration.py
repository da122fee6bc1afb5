"""`calibrate`: ranges of quantizers and statistics of normalizations from data, without training."""

import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from qprune.errors import DataError, PlanError, TrainingError
from qprune.exact import bias_grids, settle_biases
from qprune.flow import trace
from qprune.layers import BiasQuant, FakeQuant, commit_all, learned_parameters, sites
from qprune.shrinking import evaluating
from qprune.zoo import deployed

Quants = Mapping[str, FakeQuant]


@torch.no_grad()
def calibrate(net: nn.Module, loader: Iterable[Any], *, batches: int | None = None, norms: bool = False) -> nn.Module:
    """Quantize a trained network without training: measure every range on data, and switch the quantizers on.

    The first pass over the batches runs the network as it is deployed (normalizations with their running statistics, no
    dropout, nothing quantized yet); the range of a quantizer is the mean over the batches of their smallest and largest
    values. Ranges that were measured before are forgotten. If asked to, a second pass takes the statistics of batch
    normalizations anew, in the quantized network, as `torch.optim.swa_utils.update_bn` does: the mean over the batches.

    Of a network that trains more than is used afterwards the used part is calibrated, see `qprune.zoo.deployed`.

    Args:
        net: a trained network with quantizers, say from `qprune.swap`. It is changed in place: ranges, and statistics.
        loader: batches of images, alone or first in a tuple ``(input, target)``; a `DataLoader` or a list, of which
            both passes begin at the start. A few hundred images do; without augmentation. For a network of two inputs
            batches are ``(a, b)``, ``(a, b, target)`` or ``((a, b), target)``: as many are taken as its forward has
            arguments without a default.
        batches: how many of them to take; by default all.
        norms: whether to take the statistics of batch normalizations anew. It needs batches of a usual size, 64 say,
            augmented as in training: without augmentation the statistics alone cost a CIFAR-10 network 3 points.

    Returns:
        ``net``, in the mode that it was in.

    Raises:
        ValueError: if ``batches`` is less than 1.
        PlanError: if the network has no quantizer, or one that no forward in eval mode reaches; it is named.
        DataError: if the loader gives no batch, or one with fewer inputs than the network takes.
        TrainingError: if there is NaN or infinity at a site; it is named. After an error the network is as it was.

    Source: Jacob et al. (2018), arXiv:1712.05877, section 3.2; the statistics after Izmailov et al. (2018),
    arXiv:1803.05407, section 3.2.

    Example:
        >>> sites = [{"types": ["Conv2d", "Linear"], "at": "weight"}]
        >>> weights = {"sites": sites, "bits": 8, "per": "channel", "start": 0}
        >>> net = qprune.swap(dense, torch.zeros(1, 3, 32, 32), quantize=[weights], complete=True)
        >>> certificate = qprune.export(qprune.calibrate(net, loader, batches=8), "model.onnx", images)
    """
    if batches is not None and batches < 1:
        raise ValueError(f"batches must be at least 1; received {batches}")
    part = deployed(net)
    quants = {site.name: site.quant for site in sites(part) if site.quant is not None}
    if not quants:
        raise PlanError(
            "The network has no quantizer to calibrate: give it some by qprune.swap(net, example, quantize=[...])."
        )
    with evaluating(part), _undone_on_error(part):
        _measure_ranges(part, quants, _inputs(part, loader, batches))
        _round_biases(part, next(_inputs(part, loader, batches)))
        if norms:
            average_statistics(part, loader, batches)
    return net


def _measure_ranges(net: nn.Module, quants: Quants, inputs: Iterable[tuple[Any, ...]]) -> None:
    with _measuring(quants):
        for number, arguments in enumerate(inputs):
            net(*arguments)
            _check_finite(quants, number)
            commit_all(list(quants.values()))
    _check_reached(quants)
    for quant in quants.values():
        quant.active.fill_(True)


def _round_biases(net: nn.Module, example: tuple[Any, ...]) -> None:
    biases = [module for module in net.modules() if isinstance(module, BiasQuant)]
    for bias in biases:
        bias.active.fill_(False)
    if biases:
        settle_biases(list(bias_grids(trace(net, example))))


@contextmanager
def _measuring(quants: Quants) -> Iterator[None]:
    """Quantizers, and nothing else of the network, in training: they measure, and pass values through."""
    before = {quant: quant.measuring for quant in quants.values()}
    for quant in quants.values():
        quant.training = quant.measuring = True
        quant.seen.zero_()
        quant.active.fill_(False)
        quant.told_active = False
        quant.forget()
    try:
        yield
    finally:
        for quant, measuring in before.items():
            quant.training, quant.measuring, quant.told_active = False, measuring, None


def _check_finite(quants: Quants, number: int) -> None:
    # a quantizer that was not reached holds (inf, -inf); one look at all of them, which waits for the device
    ends = [
        torch.stack([q.pending_low.amin() > -torch.inf, q.pending_high.amax() < torch.inf]) for q in quants.values()
    ]
    fine = torch.stack(ends).all(1).tolist()
    if not all(fine):
        name = next(name for name, each in zip(quants, fine, strict=True) if not each)
        raise TrainingError(
            f'The values at the site "{name}" hold NaN or infinity, in batch {number} of the loader, and a range is '
            "taken of finite values: check the data, and the weights of the network."
        )


def _check_reached(quants: Quants) -> None:
    for name, quant in quants.items():
        if not quant.seen:
            raise PlanError(f"{name} has no range: no forward in eval mode reaches it. Take its quantizer out.")


@torch.no_grad()
def average_statistics(net: nn.Module, loader: Iterable[Any], batches: int | None = None) -> None:
    """Take the statistics of batch normalizations anew, in place: the mean over the batches; nothing else changes.

    The network is in eval mode; of the loader the first ``batches`` are taken, by default all.

    Raises:
        DataError: if there is no batch.

    Source: Izmailov et al. (2018), arXiv:1803.05407, section 3.2.

    Example:
        >>> norm = nn.BatchNorm2d(1).eval()
        >>> average_statistics(norm, [torch.full((2, 1, 1, 1), 3.0)])
        >>> norm.running_mean
        tensor([3.])
    """
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True  # None: every batch counts the same. Its quantizer stays in eval mode
    try:
        for arguments in _inputs(net, loader, batches):
            net(*arguments)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False


def _inputs(net: nn.Module, loader: Iterable[Any], batches: int | None) -> Iterator[tuple[Any, ...]]:
    """The arguments of one forward for each batch, on the network's device."""
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    empty = True
    for batch in itertools.islice(loader, batches):
        empty = False
        yield tree_map_only(Tensor, lambda tensor: tensor.to(device), _arguments(net, batch))
    if empty:
        raise DataError(
            "There is nothing to calibrate on: the loader gave no batch. Pass a DataLoader or a list of batches; what "
            "can be gone through only once is empty at the second pass."
        )


def _arguments(net: nn.Module, batch: Any) -> tuple[Any, ...]:
    parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    wanted = max(1, _required(net))
    if isinstance(parts[0], tuple) or (isinstance(parts[0], list) and wanted > 1):  # a DataLoader makes lists of tuples
        parts = tuple(parts[0])
        wanted = max(wanted, len(parts))
    if len(parts) < wanted:
        raise DataError(
            f"{type(net).__name__} takes {wanted} inputs, and a batch of the loader holds {len(parts)}: give batches "
            "(a, b), or ((a, b), target)."
        )
    return parts[:wanted]


def _required(net: nn.Module) -> int:
    """How many arguments the network cannot do without."""
    parameters = inspect.signature(net.forward).parameters.values()
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


@contextmanager
def _undone_on_error(net: nn.Module) -> Iterator[None]:
    before = [(each, each.clone()) for each in (*net.buffers(), *learned_parameters(net))]
    try:
        yield
    except BaseException:
        for tensor, values in before:
            tensor.copy_(values)
        raise
