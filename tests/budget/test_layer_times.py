"""Layers timed side by side by the runtime's own clock."""

import pytest
import torch
from torch import nn

from qprune.budget import LayerShape, Overhead, layer_times
from qprune.budget.layer_times import measure_overhead, time_layers, time_network, typical
from qprune.errors import ExportError
from qprune.exporting import OnnxModel

OPTIONS = (("kernel_size", (3, 3)), ("stride", (1, 1)), ("padding", (1, 1)), ("dilation", (1, 1)))
SHAPES = [
    LayerShape("Conv2d", (24, 32), (*OPTIONS, ("padding_mode", "zeros"))),
    LayerShape("Conv2d", (24, 32), (*OPTIONS, ("padding_mode", "zeros")), groups=0, outputs_per_input=1),
    LayerShape("ConvTranspose2d", (12, 16), (*OPTIONS, ("output_padding", (0, 0)))),
    LayerShape("Linear", ()),
]


@pytest.mark.parametrize("numbers", ["real", "integer", "sums"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.type)
def test_many_more_channels_take_longer(shape, numbers):
    few, many = (8, 8), ((1024, 1024) if shape.type == "Linear" else (256, 256))
    found = time_layers(shape.of(numbers), [few, many], Overhead(), threads=1)
    assert 0 < found[few] < found[many]


@pytest.mark.parametrize(("numbers", "kind"), [("real", "Conv"), ("integer", "QLinearConv"), ("sums", "ConvInteger")])
def test_a_layer_becomes_the_operator_that_it_is_in_a_whole_file(numbers, kind):
    file = layer_times._side_by_side(SHAPES[0].of(numbers), [(8, 16)])
    model = OnnxModel(file.content(), threads=1, profile=True)
    model.session.run(None, file.feeds)
    assert kind in {node.kind for node in model.nodes() if "layers.0." in node.name}


def test_noise_of_other_processes_is_left_out():
    assert typical([1e-3] * 10 + [5e-3] * 12) == pytest.approx(1e-3)


def test_what_a_run_and_a_profile_take_is_little_and_not_negative():
    found = measure_overhead(threads=1)
    assert all(0 <= each < 1e-3 for each in (found.run, found.real, found.integer))


def test_a_larger_network_takes_longer():
    small, large = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3))
    image = torch.zeros(1, 3, 48, 64)
    assert time_network(small, image, 1) < time_network(large, image, 1)


def test_a_runtime_that_names_nodes_otherwise_is_told(monkeypatch):
    monkeypatch.setattr(layer_times, "_profiled", lambda file, threads: ())
    with pytest.raises(ExportError, match="does not tell which of its nodes a layer has become"):
        time_layers(LayerShape("Linear", ()), [(8, 8)], Overhead(), threads=1)
