"""An exponential moving average of a network's weights, beside the weights that are trained."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def make_average(net: nn.Module, decay: float) -> AveragedModel:
    """A copy of ``net`` whose weights become the moving average; its buffers are those of ``net``.

    After each step of training ``average.update_parameters(net)`` moves it; `ScheduleDriver` zeroes in it what it
    zeroes in ``net``. Masks and ranges are measured with the weights that are trained.

    Args:
        net: the network.
        decay: the weight of the average so far, in (0, 1).

    Source: Polyak and Juditsky, 1992; torch.optim.swa_utils.

    Example:
        >>> average = make_average(net, decay=0.999)
        >>> driver = ScheduleDriver(net, average=average.module)
    """
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)
