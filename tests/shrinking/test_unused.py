import pytest
import torch
import torch.nn.functional as F
from masked_nets import KEEP, Net, conv, masked, outputs, shrunk
from torch import nn

import qprune
from qprune.errors import ShrinkError
from qprune.flow import trace
from qprune.shrinking import rebuild, record, shrink
from qprune.shrinking.unused import LeftOut

X = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))


def run(net, x):
    y = net.body(x)
    return (net.head(y), net.teacher(y)) if net.training else net.head(y)


def taught():
    body, teacher = masked(conv(3, 6), KEEP), nn.Sequential(conv(6, 5), nn.ReLU(), conv(5, 2))
    return Net(run, body=body, head=conv(6, 4), teacher=teacher)


def test_a_head_that_only_teaches_is_left_out_and_named():
    small = shrunk(taught(), X)
    assert isinstance(small.teacher, LeftOut)
    assert qprune.shrink_report(taught(), X).left_out == ("teacher",)
    assert "Left out, since they never run in eval mode:\n  teacher" in str(qprune.shrink_report(taught(), X))


def test_what_was_left_out_says_so_if_it_is_called_after_all():
    small = shrunk(taught(), X).train()
    with pytest.raises(ShrinkError, match="teacher was left out when the network was shrunk, since it did not run"):
        small(X)


def test_what_was_left_out_is_recorded_and_left_out_again():
    small, again = shrink(taught().eval(), X), taught()
    rebuild(again, record(small))
    again.load_state_dict(small.state_dict())
    assert torch.equal(outputs(again.eval(), X), outputs(small, X))


class Reads(nn.Module):
    """Uses parameters of layers that it never calls."""

    def __init__(self):
        super().__init__()
        self.called, self.read, self.held = conv(3, 6), conv(6, 4), nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        y = F.conv2d(self.called(x), self.read.weight).flatten(2).mT
        y = y @ self.held.weight.detach()
        return self.attention(y, y, y)[0]


def test_a_layer_whose_parameters_are_read_is_not_unused():
    assert trace(Reads(), X).unused == ()


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_of_torchvision_are_left_out(name):
    models = pytest.importorskip("torchvision").models
    net = models.get_model(name, weights=None, init_weights=False, num_classes=5).eval()
    flow = trace(net, torch.zeros(2, 3, 96, 96))
    assert flow.unused == {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}[name]
