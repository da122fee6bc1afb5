"""The rule of convolutions and linear layers."""

from typing import Any

import torch
from torch import Tensor, nn

from qprune.flow import Call
from qprune.layers.bias import LARGEST
from qprune.shrinking.constants import Mode, compressed
from qprune.shrinking.layer_rules import Layer, at_least_one
from qprune.shrinking.watching import evaluating
from qprune.shrinking.weights import TRANSPOSED, input_count, output_count, rows


class Weighted(Layer):
    """Convolutions and linear layers."""

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        self.groups: int = getattr(self.layer, "groups", 1)
        # (groups, outputs, inputs): which output of a group reads which of its inputs, and the sums of their weights
        self.reads, self.sums, self.bias = self._by_masks() if mode.training else self._by_weights()

    def _by_masks(self) -> tuple[Tensor, Tensor, Tensor]:
        """What no training changes: only zeros are relied on, and whatever weights these are multiplied by."""
        keep = self.mode.kept(self.slot("weight", "mask"))
        kept = torch.ones(output_count(self.layer), dtype=torch.bool) if keep is None else keep
        inputs = input_count(self.layer) // self.groups
        reads = kept.view(self.groups, -1, 1).expand(-1, -1, inputs)
        bias = torch.zeros(len(kept)) if self.layer.bias is None else torch.where(kept, torch.nan, 0.0)
        return reads, torch.zeros(reads.shape), bias

    def _by_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        weight, bias = self._effective()
        flat = rows(self.layer, weight).flatten(2) if weight.dim() > 2 else weight[..., None]
        flat = flat.view(self.groups, -1, *flat.shape[1:]).cpu()
        shift = torch.zeros(output_count(self.layer)) if bias is None else bias.detach().float().cpu()
        return (flat != 0).any(3), flat.float().sum(3), shift

    @torch.no_grad()
    def _effective(self) -> tuple[Tensor, Tensor | None]:
        layer = self.layer
        if not hasattr(layer, "sides"):
            return layer.weight.detach(), layer.bias
        with evaluating(layer):
            weight, bias = layer._weight_and_bias()
        return weight.detach(), bias

    @property
    def folds(self) -> bool:
        """Whether constants that it reads amount to a bias, and may become one."""
        return not self.mode.training and borderless(self.layer) and self._has_room()

    def _has_room(self) -> bool:
        """Whether a bias that is whole steps of integer sums has room for what constants amount to."""
        quant = getattr(self.layer, "bias_quant", None)
        if quant is None or not bool(quant.active):
            return True
        added = (self.sums * self._grouped_read().nan_to_num(0)).abs().sum(2).flatten()
        return bool((self.bias.abs() + added <= LARGEST * quant.scale.cpu()).all())

    def own(self, values: list[Tensor]) -> Tensor:
        """Constant where everything that is read is."""
        mask, quant = self.slot("input", "mask"), self.slot("input", "quant")
        # the mask goes, so what it drops is a constant for those who align the input
        form = self.call.shapes[0], self.call.layouts[0]
        self.entered[0] = compressed(values[0], *form, mask, None, self.mode)
        self.read = compressed(values[0], *form, mask, quant, self.mode)
        known = self._known()
        constant = ~(self.reads & ~known).any(2)
        sums = (self.sums * torch.where(known, self._grouped_read(), 0)).sum(2)
        made = torch.where(constant, sums, torch.nan).flatten() + self.bias
        return self.behind(made)

    def _grouped_read(self) -> Tensor:
        return self.read.view(self.groups, 1, -1)

    def _known(self) -> Tensor:
        read = self._grouped_read()
        return (read == 0) | (~read.isnan() if self.folds else torch.zeros_like(read, dtype=torch.bool))

    def folded(self, outputs: Tensor, inputs: Tensor) -> Tensor | None:
        """The bias that replaces constants which were read and are removed, per output channel that stays; or None."""
        gone = torch.where(self._known() & ~inputs.view(self.groups, 1, -1), self._grouped_read(), 0)
        added = (self.sums.double() * gone.double()).sum(2).flatten()[outputs].float()
        return added if added.any() else None

    def least(self) -> tuple[Tensor, list[Tensor]]:
        """One output of one input, whatever that reads; all of a layer whose masks may still change."""
        if self.open:
            return super().least()
        one = at_least_one(torch.zeros(len(self.made), dtype=torch.bool))
        return one, [at_least_one(torch.zeros(len(self.read), dtype=torch.bool))]

    def read_by(self, outputs: Tensor) -> Tensor:
        """The inputs that they read, without constants."""
        read = (self.reads & outputs.view(self.groups, -1, 1)).any(1)
        return (read & ~self._known()[:, 0]).flatten()

    def inputs_for(self, outputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The inputs that are read and not constant; as many of each group as torch's grouped convolutions want."""
        if self._open("weight"):
            outputs = torch.ones_like(outputs)
        by_group = outputs.view(self.groups, -1)
        inputs = self.read_by(outputs).view(self.groups, -1)
        if self._open("weight") or self._open("input"):
            inputs = torch.ones_like(inputs)
        if self.groups > 1:
            by_group = _evened(by_group, by_group.any(1))
            inputs = _evened(inputs, by_group.any(1))
        return by_group.flatten(), [at_least_one(inputs.flatten())]


def borderless(layer: Any) -> bool:
    """Whether a constant that the layer reads adds the same to every position: no zeros are put at the borders."""
    if isinstance(layer, nn.Linear):
        return True
    if isinstance(layer, TRANSPOSED):
        return False
    pointwise = layer.padding == "same" and set(layer.kernel_size) == {1}
    return pointwise or layer.padding_mode != "zeros" or layer.padding == "valid" or not any(layer.padding)


def _evened(chosen: Tensor, groups: Tensor) -> Tensor:
    """As many channels in each of these groups as in the fullest of them, and none elsewhere."""
    most = max(int(chosen[groups].sum(1).max()), 1)
    # those that are chosen come first, then the others in their order
    order = (~chosen).int().sort(dim=1, stable=True).indices[:, :most]
    return torch.zeros_like(chosen).scatter_(1, order, True) & groups[:, None]
