"""The curves as people see them: a table of 80 columns, a picture, plain data; and by the public function."""

import json

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import qprune
from qprune.budget import Curve, Group, Sensitivity
from qprune.errors import CheckpointError, DataError, PlanError
from qprune.training import Run

GRID = {"ratios": (0.25, 0.75), "bits": (4,), "verbose": 0}


def of(ratios, bits, name="stage1.0.a_long_name.post_residual.act.output"):
    group = Group(name, ("a", "b"), ("conv",), 1024, coupled=True)
    return Sensitivity((Curve(group, ratios, bits),), "classes", 256, "activation-l1", 9)


def test_a_table_has_80_columns_at_most_whatever_the_grid():
    ratios = {k / 32: 1000.0 * k for k in range(32)}
    lines = str(of(ratios, {bits: 10.0**-bits for bits in range(2, 9)})).splitlines()
    assert max(map(len, lines)) <= 80
    header, row = lines[4], lines[6]
    assert header.split()[3::2] == ["0", "18.8", "37.5", "59.4", "78.1", "96.9"]
    assert row.split()[2:] == ["1024", "0", "6000.0", "1e+04", "2e+04", "2e+04", "3e+04"]


def test_long_names_stay_different():
    names = [f"features.denseblock{b}.denselayer{layer}.relu2.output" for b in (1, 2) for layer in (1, 12)]
    rows = [str(of({0.5: 0.25}, {}, name)).splitlines()[-1].split()[0] for name in names]
    assert rows == ["f.d1.d1.relu2.output", "f.d1.d12.relu2.output", "f.d2.d1.relu2.output", "f.d2.d12.relu2.output"]


def test_numbers_of_every_size_can_be_told_apart_from_nothing():
    row = str(of({0.1: 0.0, 0.2: 3e-7, 0.3: 0.00125, 0.4: 1.5, 0.5: 250.25}, {})).splitlines()[-1]
    assert row.split()[-5:] == ["0", "3e-07", "0.0013", "1.5000", "250.25"]


def test_plain_data_is_that_of_json(net_curves):
    plain = net_curves.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["groups"][0]["members"] == ["stem.act", "residual.act2"]
    assert [level for level, _ in plain["groups"][0]["ratios"]] == [0.25, 0.75]


@pytest.fixture(scope="module")
def net_curves(runs):
    return qprune.sensitivity("digits/baseline", runs=runs, images=64, **GRID)


def test_the_picture_has_a_line_for_each_group(net_curves, tmp_path):
    pytest.importorskip("matplotlib")
    figure = net_curves.plot(tmp_path / "curves.png")
    ratios, bits = figure.axes
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert (len(ratios.lines), len(bits.lines)) == (5, 6)
    first = net_curves.curves[0]
    assert list(ratios.lines[0].get_ydata()) == [first.ratios[0.25], first.ratios[0.75]]
    assert ratios.lines[0].get_color() == bits.lines[0].get_color()


def test_a_run_keeps_what_was_measured_in_its_folder(runs, net_curves):
    assert (runs / "digits/baseline/sensitivity.json").is_file()
    again = qprune.sensitivity("digits/baseline", runs=runs, images=64, **GRID)
    assert (again.measured, again.curves) == (0, net_curves.curves)


def test_a_network_of_ones_own_is_measured_on_ones_own_images():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).train()
    photos = TensorDataset(torch.randn(24, 3, 8, 8), torch.arange(24) % 4)
    found = qprune.sensitivity(net, data={"train": photos}, images=20, **GRID)
    assert [curve.group.name for curve in found.curves] == ["1.output", "4.weight"]
    assert (found.compare, found.images, net.training) == ("classes", 20, True)


def test_a_network_without_images_is_refused():
    with pytest.raises(DataError, match=r"does not know what its images are: hand them over, data={\"train\": \.\.\.}"):
        qprune.sensitivity(nn.Conv2d(3, 5, 3))


def test_a_run_that_is_not_trained_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="nothing"):
        qprune.sensitivity("nothing", runs=tmp_path)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/spec.toml").write_text("format = 1\n")
    with pytest.raises(CheckpointError, match="is not finished, so it has no model yet"):
        qprune.sensitivity("begun", runs=tmp_path)


def test_a_ratio_that_cannot_be_is_refused_before_anything_is_measured(runs):
    with pytest.raises(PlanError, match="received 1"):
        qprune.sensitivity("digits/baseline", runs=runs, ratios=(1,), verbose=0)
    assert Run(runs / "digits/baseline").finished
