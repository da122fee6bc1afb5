import copy
import gc
import pickle
import weakref

import torch
from torch import nn

from qprune.declared import DeclaredNet
from qprune.zoo import Add


def skip_net():
    layers = {"conv": nn.Conv2d(3, 3, 3, padding=1), "act": nn.ReLU(), "add": Add()}
    return DeclaredNet(layers, {"conv": ("input",), "act": ("conv",), "add": ("act", "input")})


def test_layers_run_on_the_outputs_that_their_sources_name():
    net, x = skip_net(), torch.randn(2, 3, 5, 7)
    assert torch.equal(net(x), net.conv(x).relu() + x)


def test_children_are_registered_by_name_in_order():
    assert [name for name, _ in skip_net().named_children()] == ["conv", "act", "add"]


def test_a_layer_may_read_one_output_twice():
    x = torch.randn(2, 3)
    assert torch.equal(DeclaredNet({"add": Add()}, {"add": ("input", "input")})(x), 2 * x)


def test_an_output_is_given_free_after_its_last_read():
    alive = []

    class Watch(nn.Module):
        def forward(self, x):
            gc.collect()
            alive.append([ref() is not None for ref in seen])
            y = x + 1
            seen.append(weakref.ref(y))
            return y

    seen = []
    net = DeclaredNet({n: Watch() for n in "abc"}, {"a": ("input",), "b": ("a",), "c": ("b",)})
    net(torch.zeros(2))
    assert alive == [[], [True], [False, True]]


def test_traced_exported_copied_and_pickled_networks_equal_the_module():
    net, x = skip_net().eval(), torch.randn(2, 3, 5, 7)
    expected = net(x)
    assert torch.equal(torch.fx.symbolic_trace(net)(x), expected)
    assert torch.equal(torch.export.export(net, (x,)).module()(x), expected)
    assert torch.equal(copy.deepcopy(net)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), expected)


def test_a_child_can_be_replaced():
    net, x = skip_net(), torch.randn(2, 3, 5, 7)
    net.act = nn.Identity()
    assert torch.equal(net(x), net.conv(x) + x)
