import pytest
import torch
import torch.nn.functional as F

from qprune.errors import PlanError
from qprune.flow import trace
from qprune.flow.normalizing import empty_normalized


def vectors(channels=3, count=4):
    return [torch.ones(channels, device="meta") for _ in range(count)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [2, 4])
def test_it_gives_what_torch_gives(layout, dtype, count):
    x = torch.zeros(2, 3, 5, 7, dtype=dtype, device="meta").contiguous(memory_format=layout)
    ours, theirs = (compute(x, *vectors(count=count)) for compute in (empty_normalized, F.batch_norm))
    facts = [(each.shape, each.stride(), each.dtype, each.device) for each in (ours, theirs)]
    assert facts[0] == facts[1]
    assert ours is not x


def test_torch_is_asked_where_the_batch_is_measured():
    with pytest.raises(ValueError, match="more than 1 value per channel when training"):
        empty_normalized(torch.zeros(1, 3, device="meta"), *vectors(count=2), training=True)


def test_torch_refuses_statistics_of_another_number_of_channels():
    with pytest.raises(RuntimeError):
        empty_normalized(torch.zeros(2, 3, 5, 7, device="meta"), *vectors(4))
    with pytest.raises(PlanError, match="could not be followed"):
        trace(torch.nn.BatchNorm2d(4), torch.zeros(2, 3, 5, 7))


def test_values_are_normalized():
    x = torch.randn(2, 3, 5, 7)
    given = torch.zeros(3), torch.full((3,), 4.0)
    assert torch.equal(empty_normalized(x, *given, eps=0.0), F.batch_norm(x, *given, eps=0.0))
