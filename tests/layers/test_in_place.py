import copy
import sys

import pytest
import torch
from torch import nn

import qprune
from qprune import exact
from qprune.flow import trace
from qprune.layers import (
    Align,
    Aligned,
    ChannelMask,
    CompressedReLU,
    Compressor,
    FakeQuant,
    PrunedConv2d,
    in_place_of,
    sites,
)
from qprune.shrinking import Analysis, Mode, analyse, apply_cuts, apply_fold, find_folds
from qprune.zoo import Add


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_layer_is_in_the_dtype_of_the_one_it_replaces(dtype):
    old = nn.BatchNorm2d(3).to(dtype)
    assert in_place_of(old, nn.Conv2d(3, 3, 1)).bias.dtype == dtype
    assert in_place_of(nn.InstanceNorm2d(3), nn.Conv2d(3, 3, 1), nn.Sequential(old)).weight.dtype == dtype


def test_a_layer_is_on_the_device_of_the_one_it_replaces():
    old = nn.BatchNorm2d(3, affine=False).to("meta")  # buffers alone
    assert in_place_of(old, nn.Conv2d(3, 3, 1)).weight.is_meta
    relu = in_place_of(nn.ReLU(), Align([1, -1], [0.0, 2.0]), nn.Sequential(old))
    assert all(buffer.is_meta for buffer in relu.buffers())


def test_the_layer_itself_is_asked_before_its_network():
    net = nn.Sequential(nn.Linear(2, 3).to("meta", torch.float64), nn.Conv2d(3, 4, 1).to(torch.bfloat16))
    new = in_place_of(net[1], nn.Conv2d(3, 5, 1), net)
    assert (new.weight.device.type, new.weight.dtype) == ("cpu", torch.bfloat16)


def test_masks_and_quantizers_tell_a_device_but_no_dtype():
    old = CompressedReLU()
    old.add_mask("output", channels=3)
    old.to("meta")
    gate = in_place_of(old, nn.Conv2d(3, 3, 1), nn.Linear(2, 2).double())
    assert (gate.weight.device.type, gate.weight.dtype) == ("meta", torch.float64)


def test_masks_and_quantizers_keep_their_dtypes():
    old = PrunedConv2d(3, 4, 1).double()
    assert in_place_of(old, FakeQuant(4, channels=4)).scale.dtype == torch.float32
    mask = in_place_of(old, ChannelMask(4))
    assert (mask.keep.dtype, mask.score.dtype) == (torch.bool, torch.float32)


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_with_all_of_its_parts_is_in_the_mode_of_the_one_it_replaces(training):
    new = in_place_of(nn.BatchNorm2d(3).train(training), nn.Sequential(nn.Dropout(), nn.Sequential(nn.ReLU())))
    assert {module.training for module in new.modules()} == {training}


def test_a_layer_trains_if_the_one_it_replaces_did():
    def trains(old):
        return [parameter.requires_grad for parameter in in_place_of(old, nn.Conv2d(3, 3, 1)).parameters()]

    assert trains(nn.BatchNorm2d(3)) == [True, True]
    assert trains(nn.BatchNorm2d(3).requires_grad_(False)) == [False, False]
    assert trains(nn.AvgPool2d(2)) == [False, False]


def test_a_layer_without_tensors_in_a_network_without_any_stays_where_it_is():
    assert in_place_of(nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Sequential(nn.ReLU())).weight.dtype == torch.float32


# ---- whatever is replaced: on its device, in its dtype and mode, training if it did


WEIGHTS = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "per": "channel", "start": 0}
RECTIFIED = {"sites": [{"types": ["ReLU"], "at": "output"}], "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 1}}


class Residual(nn.Module):
    """Normalizations and a pool that become convolutions, and a sum whose layers gather and scatter."""

    def __init__(self):
        super().__init__()
        self.norm, self.first = nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1)
        self.behind, self.relu, self.pool = nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)
        self.one, self.other = nn.Conv2d(8, 6, 1, bias=False), PrunedConv2d(8, 6, 1, bias=False)
        self.add, self.act, self.last = Add(), nn.ReLU6(), PrunedConv2d(6, 4, 1)

    def forward(self, x):
        h = self.pool(self.relu(self.behind(self.first(self.norm(x)))))
        return self.last(self.act(self.add(self.one(h), self.other(h))))


def masked():
    torch.manual_seed(0)
    net = Residual()
    net.norm.running_mean.normal_()
    net.behind.running_var.uniform_(0.5, 2)
    net.other.input_mask.keep[[0, 3, 5]] = False
    net.last.input_mask.keep[2] = False
    return net


def images(dtype=torch.float32):
    return torch.randn(5, 3, 8, 6).to(dtype)


def swapped(net, x):
    return qprune.swap(net, x, prune=[RECTIFIED], quantize=[WEIGHTS])


WAYS = {
    "swap": swapped,
    "exact": lambda net, x: qprune.swap(net, x, quantize=[WEIGHTS], numerics="exact", complete=True),
    "dense": lambda net, x: qprune.to_dense(swapped(net, x)),
    "shrink": lambda net, x: qprune.shrink(net, x),
    "fold": lambda net, x: qprune.shrink(net, x, fold=True),
    "dense of shrunk": lambda net, x: qprune.to_dense(qprune.shrink(net, x)),
    "shrunk of exact": lambda net, x: qprune.shrink(WAYS["exact"](net, x), x, fold=True),
}
SHRUNK = ("shrink", "fold", "dense of shrunk", "shrunk of exact")  # in eval mode always


def own_tensors(net):
    """Those of layers: what masks and quantizers hold is float32, whatever the network computes in."""
    for path, part in net.named_modules():
        if not isinstance(part, Compressor):
            for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
                yield f"{path}.{name}", tensor


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_they_are_in_the_dtype_and_mode_of_the_network(way, dtype, training):
    net, x = masked().to(dtype).train(training), images(dtype)
    made = WAYS[way](net, x)
    assert [name for name, t in own_tensors(made) if t.is_floating_point() and t.dtype != dtype] == []
    modes = {path: part.training for path, part in made.named_modules()}
    assert set(modes.values()) == {training and way not in SHRUNK}, modes
    assert made(x).dtype == dtype


@pytest.mark.parametrize("way", WAYS)
def test_nothing_trains_in_a_network_that_does_not(way):
    net, x = masked().requires_grad_(False), images()
    assert not any(parameter.requires_grad for parameter in WAYS[way](net, x).parameters())


def test_what_does_the_work_of_layers_without_parameters_does_not_train():
    net, x = masked(), images()
    dense, whole = WAYS["dense"](net, x), WAYS["exact"](net, x)
    fixed = {name for name, parameter in dense.named_parameters() if not parameter.requires_grad}
    assert fixed == {"relu.1.weight"}
    assert {name for name, parameter in whole.named_parameters() if not parameter.requires_grad} == {"pool.weight"}


FINAL = Mode(settled=lambda mask: True, training=False)


def on_meta(net):
    return all(tensor.is_meta for tensor in (*net.parameters(), *net.buffers()))


def test_they_are_on_the_device_of_the_network(monkeypatch):
    # the meta device stands for any other: what reads values, of which it has none, is told them
    monkeypatch.setattr(exact, "analyse", lambda *_: Analysis({}, {}, ()))
    for room in (exact, sys.modules[apply_fold.__module__]):
        monkeypatch.setattr(room, "scale_and_shift", lambda norm: torch.rand(2, norm.num_features))
    net, x = masked().eval(), images()
    away = copy.deepcopy(net).to("meta")
    assert on_meta(swapped(away, x))
    assert on_meta(qprune.to_dense(swapped(away, x)))

    away.other.input_mask, away.last.input_mask = map(copy.deepcopy, (net.other.input_mask, net.last.input_mask))
    cuts = analyse(net, trace(net, x), FINAL).cuts
    apply_cuts(net, cuts)
    apply_cuts(away, cuts)
    aligned = [type(layer).__name__ for layer in away.modules() if isinstance(layer, Aligned)]
    assert aligned == [type(layer).__name__ for layer in net.modules() if isinstance(layer, Aligned)]
    assert aligned
    assert on_meta(away)

    folds, _ = find_folds(trace(net, x))
    assert len(folds) == 1
    apply_fold(away, folds[0])
    assert on_meta(away)

    plain = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 4, 1), nn.ReLU()).to("meta")
    found = qprune.swap(plain, x, quantize=[WEIGHTS], numerics="exact", complete=True)
    assert {"0.weight", "2.weight", "3.weight"} < {site.name for site in sites(found)}
    assert on_meta(found)


def test_exporting_leaves_the_network_where_and_as_it_was(tmp_path):
    net, x = masked(), images()[:1]
    net.one.eval()
    before = {name: part.training for name, part in net.named_modules()}
    qprune.export(net, tmp_path / "net.onnx", x)
    assert {name: part.training for name, part in net.named_modules()} == before
