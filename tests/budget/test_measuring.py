"""Measurements on trained digits: nothing where nothing changed, more where more did, and nothing measured twice."""

import copy
import io
import json
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

import qprune
from qprune import zoo
from qprune.budget import changing, measuring
from qprune.budget.changing import masked, pruned, quantized, renormalized
from qprune.budget.divergence import divergence, outputs_of
from qprune.budget.groups import find_groups
from qprune.budget.measuring import measure_sensitivity
from qprune.errors import CheckpointError, PlanError
from qprune.layers import ChannelMask, sites

GRID = {"ratios": (0.0, 0.25, 0.875), "bits": (2, 8)}
measure = partial(measure_sensitivity, compare="classes", verbose=0)


@pytest.fixture(scope="module")
def found(net, images):
    return measure(net, images, **GRID)


def counting(monkeypatch, stop_after=None):
    """The divergences that are measured from now on; at one of them comes Ctrl-C."""
    taken = []

    def count(*arguments):
        if len(taken) == stop_after:
            raise KeyboardInterrupt
        taken.append(divergence(*arguments))
        return taken[-1]

    monkeypatch.setattr(measuring, "divergence", count)
    return taken


def test_nothing_dropped_is_no_divergence_at_all(found):
    assert [curve.ratios[0.0] for curve in found.curves if curve.ratios] == [0.0] * 5


def test_divergence_rises_with_the_ratio(found):
    assert all(0 < curve.ratios[0.25] < curve.ratios[0.875] for curve in found.curves if curve.ratios)


def test_eight_bits_are_nearly_nothing_and_two_are_much_more(found):
    assert all(0 <= curve.bits[8] < 1e-4 for curve in found.curves)
    assert all(curve.bits[2] > 100 * curve.bits[8] for curve in found.curves)


def test_the_classifier_cannot_be_pruned_and_has_bits(found):
    last = found.curves[-1]
    assert (last.group.name, last.ratios, sorted(last.bits), last.problem) == ("classifier.weight", {}, [2, 8], "")


def test_a_measurement_is_that_of_the_network_pruned_by_hand(net, images, found):
    """The channels of `down` with the smallest mean of what the rectifier gives, zero behind it."""
    dense, changed = copy.deepcopy(net), copy.deepcopy(net)
    update_bn(images, dense)
    seen = []
    hook = net.down.act.register_forward_hook(lambda _, __, output: seen.append(output.abs().mean((0, 2, 3))))
    outputs_of(net.eval(), images)
    hook.remove()
    keep = torch.ones(64)
    keep[torch.stack(seen).mean(0).argsort()[:56]] = 0
    changed.down.act.register_forward_hook(lambda _, __, output: output * keep.view(-1, 1, 1))
    update_bn(images, changed)
    by_hand = divergence(changed.eval(), images, outputs_of(dense.eval(), images), "classes")
    curve = next(curve for curve in found.curves if curve.group.name == "down.act.output")
    assert curve.ratios[0.875] == pytest.approx(by_hand, rel=1e-3)


def test_the_network_is_not_touched(net, images):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    measure(net, images, ratios=(0.5,), bits=(4,))
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert [module.training for module in net.modules()] == modes


def test_an_interrupted_measurement_goes_on_to_the_same_numbers(net, images, found, tmp_path, monkeypatch):
    file = tmp_path / "sensitivity.json"
    first = counting(monkeypatch, stop_after=7)
    with pytest.raises(KeyboardInterrupt):
        measure(net, images, file=file, **GRID)
    rest = counting(monkeypatch)
    resumed = measure(net, images, file=file, **GRID)
    assert resumed.curves == found.curves
    assert (len(first), len(rest), resumed.measured) == (7, 5 * 3 + 6 * 2 - 7, len(rest))
    again = measure(net, images, file=file, **GRID)
    assert (again.curves, again.measured) == (found.curves, 0)
    assert len(counting(monkeypatch)) == 0


def test_a_finer_grid_measures_what_is_new(net, images, tmp_path):
    file = tmp_path / "sensitivity.json"
    measure(net, images, ratios=(0.5,), bits=(), file=file)
    assert measure(net, images, ratios=(0.25, 0.5), bits=(), file=file).measured == 5


def test_measurements_of_another_network_or_importance_are_others(net, images, tmp_path):
    file = tmp_path / "sensitivity.json"
    grid = {"ratios": (0.5,), "bits": (), "file": file}
    first = measure(net, images, **grid)
    other = copy.deepcopy(net)
    other.mix.conv.weight.data *= 1.5
    assert measure(other, images, **grid).measured == 5
    assert measure(net, images, importance="activation-l0", **grid).measured == 5
    assert measure(net, images[:1], **grid).measured == 5
    kept = measure(net, images, **grid)
    assert (kept.measured, kept.curves) == (0, first.curves)


def test_a_ranking_by_chance_is_another_with_another_seed(net, images):
    one, two, three = (
        measure(net, images, ratios=(0.5,), bits=(), importance="random", seed=seed).curves for seed in (1, 1, 2)
    )
    assert one == two != three


def test_coupled_masks_drop_the_same_channels(net, images):
    group = find_groups(net, images[0][:1])[0]
    half = pruned(masked(net, images, [group], "activation-l1"), images, {group: 0.5})
    keeps = [mask.keep for mask in half.modules() if isinstance(mask, ChannelMask)]
    assert group.coupled
    assert len(keeps) > 1
    assert all(torch.equal(keep, keeps[0]) and keep.sum() == 16 for keep in keeps)


def test_few_bits_are_few_values(net, images):
    group = find_groups(net, images[0][:1])[1]
    seen = []
    changed = quantized(net, images, group, bits=2)
    changed.residual.act1.register_forward_hook(lambda _, __, output: seen.append(output.unique()))
    outputs_of(changed, images[:1])
    assert group.members == ("residual.act1",)
    assert len(seen[0]) <= 4
    assert [site.name for site in sites(changed)] == ["residual.conv1.weight", "residual.act1.output"]


def test_statistics_are_those_that_torch_takes(net, images):
    by_torch = copy.deepcopy(net)
    update_bn(images, by_torch)
    for name, tensor in renormalized(net, images).state_dict().items():
        if "running" in name:
            torch.testing.assert_close(tensor, by_torch.state_dict()[name])


def test_a_group_that_cannot_be_pruned_says_why_and_the_others_are_measured(net, images, monkeypatch):
    def refuse(dense, batches, groups, *rest):
        if "mix.act.output" in [group.name for group in groups]:
            raise PlanError("No mask can be here.")
        return changing.masked(dense, batches, groups, *rest)

    monkeypatch.setattr(measuring, "masked", refuse)
    found = measure(net, images, ratios=(0.5,), bits=(8,))
    assert [curve.problem for curve in found.curves] == ["", "", "", "", "No mask can be here.", ""]
    assert [len(curve.ratios) for curve in found.curves] == [1, 1, 1, 1, 0, 0]
    assert "mix.act.output is not pruned: No mask can be here." in str(found)


def test_the_cost_is_told_before_it_starts(net, images):
    out = io.StringIO()
    measure(net, images, ratios=(0.5,), bits=(8,), verbose=2, out=out)
    assert out.getvalue().startswith("11 measurements of 6 groups, on 96 images each: about ")
    assert out.getvalue().count("\n") == 1


def test_a_live_line_counts_the_measurements(net, images):
    out = io.StringIO()
    measure(net, images, ratios=(0.5,), bits=(8,), verbose=1, out=out)
    assert "11/11" in out.getvalue()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ratios": (0.5, 1.0)}, r"at least 0 and less than 1; received 1\.0"),
        ({"ratios": (-0.1,)}, r"at least 0 and less than 1; received -0\.1"),
        ({"ratios": (float("nan"),)}, "at least 0 and less than 1; received nan"),
        ({"bits": (16,)}, "bits must be whole numbers from 2 to 8, which quantizers can have; received 16"),
        ({"bits": (4.5,)}, "received 4.5"),
        ({"ratios": (), "bits": ()}, "There is nothing to measure: give ratios, bits, or both"),
        ({"importance": "taylor"}, 'without a loss .*; received "taylor"'),
        ({"importance": "activation-l2"}, 'received "activation-l2"; nearest: "activation-l'),
    ],
)
def test_what_cannot_be_measured_is_refused(net, images, options, sentence):
    with pytest.raises(PlanError, match=sentence):
        measure(net, images, **options)


def test_a_compressed_network_is_refused(images, net):
    rule = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "start": 0}
    with pytest.raises(PlanError, match=r"this one has a quantizer at stem\.conv\.weight"):
        measure(qprune.swap(net, images[0], quantize=[rule]), images)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"format": 2, "measured": {}}', '{"format": 1, "measured": {"a": [[1]]}}',
        '{"format": 1, "measured": {"a": [["g", "ratio", 0.5, NaN]]}}',
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_refused_and_stays(net, images, tmp_path, text):
    file = tmp_path / "sensitivity.json"
    file.write_text(text)
    with pytest.raises(CheckpointError, match=r"sensitivity\.json cannot be used .* Move it away, and all is measured"):
        measure(net, images, file=file)
    assert file.read_text() == text


def test_the_file_is_plain_json_with_a_line_for_each(net, images, tmp_path):
    file = tmp_path / "sensitivity.json"
    measure(net, images, ratios=(0.5,), bits=(), file=file)
    (lines,) = json.loads(file.read_text())["measured"].values()
    assert [line[:3] for line in lines][:2] == [
        ["stem.act.output", "ratio", 0.5],
        ["residual.act1.output", "ratio", 0.5],
    ]
    assert len(file.read_text().splitlines()) == 5 + 4


def test_networks_without_normalizations_and_of_images_are_measured():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(6, 3, 3, padding=1), nn.Tanh())
    found = measure_sensitivity(
        net, [torch.randn(5, 3, 8, 8)], compare="values", ratios=(0.0, 0.5), bits=(8, 2), verbose=0
    )
    first = found.curves[0]
    assert (first.ratios[0.0], first.group.members) == (0.0, ("1",))
    assert first.ratios[0.5] > 0
    assert 0 < first.bits[8] < first.bits[2]


def test_logits_of_every_pixel_are_compared():
    net = zoo.create("unet", width=0.125, classes=5).eval()
    found = measure(net, [torch.randn(3, 3, 32, 48)], ratios=(0.0, 0.5), bits=())
    assert all(curve.ratios[0.0] == 0 < curve.ratios[0.5] for curve in found.curves if curve.ratios)


def test_of_a_gan_the_generator_that_is_used_is_measured():
    net = zoo.create("cyclegan", width=0.125, width_discriminators=0.125).eval()
    found = measure_sensitivity(net, [torch.randn(1, 3, 32, 48)], compare="values", ratios=(0.5,), bits=(), verbose=0)
    paths = dict(net.generator_ab.named_modules())
    assert all(path in paths for curve in found.curves for path in curve.group.weights)
    assert found.curves[-1].group.name == "to_image.weight"
