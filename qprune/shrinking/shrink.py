"""`shrink`: a network without the channels that its masks dropped."""

import copy
from typing import Any

from attrs import frozen
from torch import nn

from qprune.errors import PlanError, ShrinkError
from qprune.flow import host_picture, trace
from qprune.layers import take_apart
from qprune.shrinking.analysis import Analysis, analyse
from qprune.shrinking.constants import Mode
from qprune.shrinking.cut import apply_cuts
from qprune.shrinking.equality import assert_same
from qprune.shrinking.fold import Fold, fold_norms
from qprune.shrinking.unused import leave_out
from qprune.zoo import deployed

FINAL = Mode(settled=lambda mask: True, training=False)


@frozen(eq=False)
class Shrunk:
    """A shrunk network, and what became of it."""

    net: nn.Module  # the network, in eval mode
    analysis: Analysis  # what was found dead, and what was held
    folds: tuple[Fold, ...] = ()  # normalizations that became part of a convolution
    unfolded: tuple[str, ...] = ()  # why others did not, a sentence each


def shrink(net: nn.Module, example: Any, *, fold: bool = False) -> nn.Module:
    """A plain, smaller network with the same outputs, in which dropped channels no longer exist.

    It is the same module tree, in eval mode: convolutions, linear layers and normalizations with the channels that
    matter, masks gone, quantizers as they were. A channel goes if it is exactly zero, or one constant everywhere that
    the layers behind it can take into their bias; or if nobody reads it. Where two neighbours keep different channels,
    the layer gathers or scatters by fixed indices (``Aligned<Type>``). What a mask kept and somebody reads stays.
    Of a network that trains more than is used afterwards only the used part is returned, see `qprune.zoo.deployed`; and
    a module that does not run on the example, such as an auxiliary head, is left out
    (`qprune.shrinking.unused.LeftOut`).

    Args:
        net: a network with masks; any network. It is not touched.
        example: an input of it: a tensor or a tuple of arguments. Values matter only for the comparison at the end.
        fold: also fold normalizations into the convolutions beside them, where that changes nothing but rounding. Such
            a network is not for training.

    Returns:
        the smaller network; an ordinary module to train on, save, compile and export.

    Raises:
        ShrinkError: if the network cannot be followed, or the outputs on the example are not the same, see
            `qprune.shrinking.equality.assert_same`; with active quantizers, too.

    Example:
        >>> small = qprune.shrink(net, torch.zeros(1, 3, 32, 32), fold=True)
    """
    return shrink_with_facts(net, example, fold=fold).net


def shrink_with_facts(net: nn.Module, example: Any, *, fold: bool = False) -> Shrunk:
    """`shrink`, with what it found; arguments and errors as there."""
    whole = deployed(net)
    try:
        try:
            return _shrunk(whole, example, fold, cautious=False)
        except ShrinkError:
            flow = trace(whole, example)
            if flow.cautious() == flow:
                raise
            return _shrunk(whole, example, fold, cautious=True)
    except PlanError as error:
        raise ShrinkError(str(error)) from error


def _shrunk(whole: nn.Module, example: Any, fold: bool, cautious: bool) -> Shrunk:
    """The network cut and compared; if cautious, whatever was counted in it keeps its channels."""
    small = copy.deepcopy(whole).eval()
    take_apart(small)
    analysis = cut_dead(small, example, cautious=cautious)
    if not fold:
        assert_same(whole, small, example)
        return Shrunk(small, analysis)
    try:
        flow = trace(small, example)
    except PlanError:
        assert_same(whole, small, example)  # says more about a cut that went wrong
        raise
    folds, unfolded = fold_norms(small, flow)
    assert_same(whole, small, example)
    return Shrunk(small, analysis, tuple(folds), tuple(unfolded))


def cut_dead(net: nn.Module, example: Any, *, cautious: bool = False) -> Analysis:
    """Cut every dead channel out of a network that is trained, and leave out what never runs, in place.

    If it is cautious, all that is counted in the network's code keeps its channels, see `qprune.flow.Flow.cautious`.

    Example:
        >>> cut_dead(nn.Conv2d(2, 3, 1), torch.zeros(1, 2, 5, 7)).held
        ()
    """
    picture = host_picture(net)
    flow = trace(picture, example)
    analysis = analyse(picture, flow.cautious() if cautious else flow, FINAL)
    apply_cuts(net, analysis.cuts)
    leave_out(net, analysis.unused)
    return analysis
