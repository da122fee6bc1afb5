"""An exponential moving average of a network's weights, beside the weights that are trained."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from qprune.errors import PlanError
from qprune.layers import BiasQuant, learned_parameters


def make_average(net: nn.Module, decay: float) -> AveragedModel:
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
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)


def check_average(net: nn.Module) -> None:
    """Refuse to average a network whose biases are rounded to grids that are learned."""
    if learned_parameters(net) and any(isinstance(module, BiasQuant) for module in net.modules()):
        raise PlanError(
            "In exact numerics biases lie on the grids of the learned steps that are trained, not of their moving "
            'average: train without the average (train.ema), or take range = "measured".'
        )
