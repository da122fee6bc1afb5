"""An exponential moving average of a network's weights, beside the weights that are trained."""

from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from qprune.errors import PlanError
from qprune.layers import BiasQuant, learned_parameters

Pair = tuple[Tensor, Tensor]


class MovingAverage(AveragedModel):
    """torch's, in a few operations on many tensors at once: torch copies each buffer by itself.

    Which tensors belong together is looked up once, and anew when either network has others. ``decay`` is the weight of
    the average so far.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        move = get_ema_multi_avg_fn(decay)
        super().__init__(net, multi_avg_fn=move, use_buffers=False)
        self._move = move
        self._pairs: _Pairs | None = None

    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards a network's parameters, and take over its buffers."""
        if self._pairs is None or not self._pairs.stand(model):
            self._pairs = _Pairs(self.module, model)
        begins = bool(self.n_averaged == 0)  # which stays on the host
        with torch.no_grad():
            for averages, values in self._pairs.parameters:
                if begins:
                    torch._foreach_copy_(averages, values)
                else:
                    self._move(averages, values, self.n_averaged)
            for averages, values in self._pairs.buffers:
                torch._foreach_copy_(averages, values)
        self.n_averaged += 1

    def __getstate__(self) -> dict[str, Any]:
        """Without the pairs, of which a copy would find its own."""
        return self.__dict__ | {"_pairs": None}


class _Pairs:
    """The tensors of two networks of one form that belong together, in lists of one dtype and device each."""

    def __init__(self, average: nn.Module, net: nn.Module) -> None:
        self._net = net
        # looked up by name where they hang: to walk through the modules takes longer than to copy all tensors
        self._places = [
            (held, name)
            for module in chain(average.modules(), net.modules())
            for held in (module._parameters, module._buffers, module._modules)
            for name in held
        ]
        self._known = self._present()
        self.parameters = _grouped(zip(average.parameters(), net.parameters(), strict=True))
        self.buffers = _grouped(zip(average.buffers(), net.buffers(), strict=True))

    def stand(self, net: nn.Module) -> bool:
        """Whether they are still those of the average and of this network."""
        return net is self._net and all(map(is_, self._present(), self._known))

    def _present(self) -> list[Any]:
        return [held.get(name) for held, name in self._places]


def _grouped(pairs: Any) -> list[tuple[list[Tensor], list[Tensor]]]:
    groups: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
    for average, value in pairs:
        key = average.dtype, average.device, value.dtype, value.device
        averages, values = groups.setdefault(key, ([], []))
        averages.append(average)  # not detached: a parameter that is cut stays the same object, with other values
        values.append(value)
    return list(groups.values())


def make_average(net: nn.Module, decay: float) -> MovingAverage:
    """A copy of ``net`` whose weights become the moving average; its buffers are those of ``net``.

    After each step of training ``average.update_parameters(net)`` moves it; `ScheduleDriver` zeroes in it what it
    zeroes in ``net``. Masks and ranges are measured with the weights that are trained.

    Args:
        net: the network.
        decay: the weight of the average so far, in (0, 1).

    Raises:
        PlanError: as `check_average`.

    Source: Polyak and Juditsky, 1992; torch.optim.swa_utils.

    Example:
        >>> average = make_average(net, decay=0.999)
        >>> driver = ScheduleDriver(net, average=average.module)
    """
    check_average(net)
    return MovingAverage(net, decay)


def check_average(net: nn.Module) -> None:
    """Refuse to average a network whose biases are rounded to grids that are learned."""
    if learned_parameters(net) and any(isinstance(module, BiasQuant) for module in net.modules()):
        raise PlanError(
            "In exact numerics biases lie on the grids of the learned steps that are trained, not of their moving "
            'average: train without the average (train.ema), or take range = "measured".'
        )
