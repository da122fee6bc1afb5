"""`shrink`: a network without the channels that its masks dropped."""

import copy
from typing import Any

import torch
from torch import nn

from qprune.flow import trace
from qprune.shrink.analysis import analyse
from qprune.shrink.constants import Mode
from qprune.shrink.cut import apply_cuts
from qprune.shrink.fold import fold_norms
from qprune.zoo import deployed

FINAL = Mode(settled=lambda mask: True, training=False)


def shrink(net: nn.Module, example: Any, *, fold: bool = False) -> nn.Module:
    net = copy.deepcopy(deployed(net)).eval()
    apply_cuts(net, analyse(net, trace(net, example), FINAL).cuts)
    if fold:
        fold_norms(net, trace(net, example))
    return net
