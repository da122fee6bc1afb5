import pytest
import torch
import torch.nn.functional as F

from qprune.errors import PlanError
from qprune.flow import trace
from qprune.flow.meta_functions import ACTIVATIONS, quick


def vectors(channels=3, count=4):
    return [torch.ones(channels, device="meta") for _ in range(count)]


def facts(tensor):
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def empty(layout, dtype):
    return torch.zeros(2, 3, 5, 7, dtype=dtype, device="meta").contiguous(memory_format=layout)


@LAYOUTS
@DTYPES
@pytest.mark.parametrize("count", [2, 4])
def test_a_normalization_gives_what_torch_gives(layout, dtype, count):
    x = empty(layout, dtype)
    ours, theirs = (compute(x, *vectors(count=count)) for compute in (quick(F.batch_norm), F.batch_norm))
    assert facts(ours) == facts(theirs)
    assert ours is not x


@LAYOUTS
@DTYPES
@pytest.mark.parametrize("function", ACTIVATIONS)
def test_an_activation_gives_what_torch_gives(layout, dtype, function):
    x = empty(layout, dtype)
    ours, theirs = quick(function)(x), function(x)
    assert facts(ours) == facts(theirs)
    assert ours is not x


@LAYOUTS
@DTYPES
def test_a_choice_gives_what_torch_gives(layout, dtype):
    x, condition = empty(layout, dtype), torch.zeros((), dtype=torch.bool, device="meta")
    ours, theirs = (choose(condition, x, x.clone()) for choose in (quick(torch.where), torch.where))
    assert facts(ours) == facts(theirs)
    assert ours is not x


def test_a_choice_of_what_differs_is_left_to_torch():
    condition = torch.zeros(5, 7, dtype=torch.bool, device="meta")
    x, row = torch.zeros(2, 3, 5, 7, device="meta"), torch.zeros(7, device="meta", dtype=torch.float64)
    for given in ((condition, row, x), (condition, x, 0.0), (condition[0, 0], row, x), (condition[0, 0], row, row)):
        assert facts(quick(torch.where)(*given)) == facts(torch.where(*given))
    assert [each.shape for each in quick(torch.where)(torch.tensor([True, False]))] == [(1,)]


@pytest.mark.parametrize("function", [F.relu, F.relu6, F.hardtanh, F.leaky_relu])
def test_what_is_overwritten_is_handed_back(function):
    x = torch.zeros(2, 3, device="meta")
    assert quick(function)(x, inplace=True) is x
    assert x._version == 1


def test_torch_is_asked_where_the_batch_is_measured():
    with pytest.raises(ValueError, match="more than 1 value per channel when training"):
        quick(F.batch_norm)(torch.zeros(1, 3, device="meta"), *vectors(count=2), training=True)


def test_torch_refuses_statistics_of_another_number_of_channels():
    with pytest.raises(RuntimeError):
        quick(F.batch_norm)(torch.zeros(2, 3, 5, 7, device="meta"), *vectors(4))
    with pytest.raises(PlanError, match="could not be followed"):
        trace(torch.nn.BatchNorm2d(4), torch.zeros(2, 3, 5, 7))


def test_values_are_computed():
    x = torch.randn(2, 3, 5, 7)
    given = torch.zeros(3), torch.full((3,), 4.0)
    assert torch.equal(quick(F.batch_norm)(x, *given, eps=0.0), F.batch_norm(x, *given, eps=0.0))
    assert torch.equal(quick(torch.where)(torch.tensor(True), x, -x), x)
    assert all(torch.equal(quick(function)(x), function(x)) for function in ACTIVATIONS)
