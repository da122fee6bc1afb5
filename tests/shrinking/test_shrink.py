"""Random networks with random masks: the shrunk one computes the same, and is an ordinary network."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_nets import analysed, assert_same, held, lively, masked, masks_left, outputs, parameters, shrunk
from random_nets import RECIPES, random_net
from torch import nn

import qprune
from qprune.errors import ShrinkError
from qprune.shrinking import shrink

X = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(1))
SEEDS = st.integers(0, 2**16)


@settings(max_examples=150)
@given(RECIPES, SEEDS)
def test_random_networks_compute_the_same(recipe, seed):
    net = random_net(recipe, seed)
    small = shrunk(net, X)
    assert parameters(small) <= parameters(net) + sum(
        m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    )
    reasons = held(net, X)
    assert not any("Aligned" in reason for reason in held(small, X))
    for site in masks_left(small):
        assert any(reason.startswith(site.rpartition(".")[0]) for reason in reasons), (site, reasons)


@settings(max_examples=100)
@given(RECIPES, SEEDS)
def test_shrinking_twice_changes_nothing(recipe, seed):
    small = shrink(random_net(recipe, seed), X)
    assert analysed(small, X).cuts == {}


@settings(max_examples=50)
@given(RECIPES, SEEDS)
def test_random_networks_fold(recipe, seed):
    shrunk(random_net(recipe, seed), X, tolerance=2e-5, fold=True)


@settings(max_examples=20)
@given(RECIPES, SEEDS)
def test_shrunk_network_is_an_ordinary_module(recipe, seed):
    small = shrink(random_net(recipe, seed), X)
    expected = outputs(small, X)
    twins = [copy.deepcopy(small), pickle.loads(pickle.dumps(small)), copy.deepcopy(small)]
    for parameter in twins[2].parameters():
        nn.init.zeros_(parameter)
    twins[2].load_state_dict(small.state_dict())
    twins.append(torch.export.export(small, (X,)).module())
    for twin in twins:
        assert all(torch.equal(a, b) for a, b in zip(outputs(twin, X), expected, strict=True))


@settings(max_examples=8)
@given(RECIPES, SEEDS)
def test_shrunk_network_compiles(recipe, seed):
    small = shrink(random_net(recipe, seed), X)
    torch.compiler.reset()
    compiled = torch.compile(small, backend="aot_eager", fullgraph=True)
    for one, other in zip(outputs(compiled, X), outputs(small, X), strict=True):
        assert_same(one, other, 1e-6)


@settings(max_examples=20)
@given(RECIPES, SEEDS)
def test_shrunk_network_trains_on(recipe, seed):
    small = shrink(random_net(recipe, seed), X).train()
    optimizer = torch.optim.SGD(small.parameters(), lr=1e-4, momentum=0.9)
    before = {name: tensor.clone() for name, tensor in small.named_parameters()}
    sum(y.square().mean() for y in small(X)).backward()
    optimizer.step()
    assert not torch.equal(small.linear.bias, before["linear.bias"])
    assert all(tensor.isfinite().all() for tensor in small.parameters())


def chain(widths, sparsity):
    layers = []
    for into, out in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), masked(nn.ReLU(), range(out), channels=out)]
        layers[-1].output_mask.score.uniform_()
        layers[-1].output_mask.refresh(sparsity)
    return lively(nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 48, 5)))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.sampled_from([0.0, 0.5, 0.75, 0.95]))
def test_chain_has_the_parameters_that_the_masks_keep(widths, sparsity):
    net = chain(widths, sparsity)
    small = shrunk(net, X)
    assert not masks_left(small)
    assert parameters(small) <= qprune.summary(net, X.shape[1:]).total.parameters_kept


def test_saved_network_loads_into_a_copy():
    small = shrink(chain((7, 11), 0.75), X)
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    twin = shrink(chain((7, 11), 0.75), X)
    shapes = {name: tensor.shape for name, tensor in small.state_dict().items()}
    assert {name: tensor.shape for name, tensor in twin.state_dict().items()} == shapes
    copy.deepcopy(small).load_state_dict(torch.load(file, weights_only=True), strict=True)


def test_layout_of_the_weights_stays():
    net = chain((7, 11), 0.5).eval().to(memory_format=torch.channels_last)
    small = shrink(net, X)
    assert small[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert_same(outputs(net, X), outputs(small, X))


def test_network_is_returned_in_eval_mode_and_left_in_its_own():
    net = chain((7,), 0.5).train()
    assert not shrink(net, X).training
    assert net.training


def test_wrong_example_is_named():
    with pytest.raises(ShrinkError, match=r"could not be followed on an example of shape \(2, 5, 6, 8\)"):
        shrink(chain((7,), 0.5), torch.zeros(2, 5, 6, 8))
