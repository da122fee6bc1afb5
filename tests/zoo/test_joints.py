import torch
from torch import nn

from qprune.zoo import Add, Concat


def test_add_sums_any_number_of_tensors():
    a, b, c = torch.randn(3, 2, 3, 5, 7)
    assert torch.equal(Add()(a, b, c), a + b + c)
    assert torch.equal(Add()(a), a)


def test_concat_joins_channels():
    a, b = torch.randn(2, 3, 5, 7), torch.randn(2, 4, 5, 7)
    assert torch.equal(Concat()(a, b), torch.cat([a, b], 1))


def test_concat_joins_along_another_dimension():
    a, b = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 6, 7)
    assert torch.equal(Concat(dim=2)(a, b), torch.cat([a, b], 2))


def test_joints_have_no_parameters_and_a_one_line_repr():
    assert not list(nn.ModuleList([Add(), Concat()]).parameters())
    assert (repr(Add()), repr(Concat())) == ("Add()", "Concat(dim=1)")
