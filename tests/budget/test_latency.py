"""The table of what layers take: exact where measured, kept, of one machine; and whole networks against their files."""

import io
import json
import sys
from functools import partial

import pytest
import torch
from torch import nn

import qprune
from qprune.budget import Latency, LatencyTable, LayerShape, Overhead, latency
from qprune.costs.layer_cost import layer_costs
from qprune.errors import CheckpointError, ExportError
from qprune.flow import trace

LINEAR = LayerShape("Linear", size=())
DEPTHWISE = LayerShape("Conv2d", (6, 9), (("kernel_size", (3, 3)),), groups=0, outputs_per_input=2)
POINTS = {LINEAR: LINEAR.grid((24, 16), least=1 / 3)}


@pytest.fixture
def timed(monkeypatch):
    """Layers whose time is known, in place of measured ones; which were asked for."""
    asked = []

    def time_layers(shape, counts, overhead, threads):
        asked.extend((shape, each) for each in counts)
        return {(inputs, outputs): 1e-6 * (3 + inputs * outputs) for inputs, outputs in counts}

    monkeypatch.setattr(latency, "time_layers", time_layers)
    monkeypatch.setattr(latency, "measure_overhead", lambda threads: Overhead(run=5e-6, real=1e-6, integer=2e-6))
    return asked


def test_an_estimate_is_exact_at_points_of_the_grid_and_between_them_for_products_of_both_counts(timed):
    found = LatencyTable(None)
    found.measure(POINTS, verbose=0)
    for inputs, outputs in [(8, 8), (24, 16), (9, 13), (20.5, 8)]:
        assert found.seconds(LINEAR, inputs, outputs) == pytest.approx(1e-6 * (3 + inputs * outputs))


def test_a_depthwise_layer_has_one_count(timed):
    found = LatencyTable(None)
    found.measure({DEPTHWISE: DEPTHWISE.grid((16, 32), least=0.5)}, verbose=0)
    assert [each for _, each in timed] == [(8, 16), (16, 32)]
    assert found.seconds(DEPTHWISE, 12, 24) == pytest.approx(1e-6 * (3 + (8 * 16 + 16 * 32) / 2))


def test_what_was_never_measured_has_no_estimate(timed):
    with pytest.raises(KeyError):
        LatencyTable(None).seconds(LINEAR, 8, 8)


def test_an_interrupted_measurement_goes_on_with_what_is_missing(timed, monkeypatch, tmp_path):
    file, whole = tmp_path / "latency.json", {**POINTS, DEPTHWISE: [(8, 16), (16, 32)]}
    measured = latency.time_layers

    def interrupted(shape, *rest):
        if shape == DEPTHWISE:
            raise KeyboardInterrupt
        return measured(shape, *rest)

    monkeypatch.setattr(latency, "time_layers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LatencyTable(file).measure(whole, verbose=0)
    monkeypatch.setattr(latency, "time_layers", measured)
    timed.clear()
    LatencyTable(file).measure(whole, verbose=0)
    assert timed == [(DEPTHWISE, (8, 16)), (DEPTHWISE, (16, 32))]
    timed.clear()
    LatencyTable(file).measure(whole, verbose=2, out=(out := io.StringIO()))
    assert (timed, out.getvalue()) == ([], "")


@pytest.mark.parametrize("what", ["processor", "runtime", "threads"])
def test_a_table_of_another_machine_is_not_used_and_stays_in_the_file(timed, monkeypatch, tmp_path, what):
    file = tmp_path / "latency.json"
    LatencyTable(file).measure(POINTS, verbose=0)
    if what == "processor":
        monkeypatch.setattr(latency, "processor_name", lambda: "Another Processor")
    if what == "runtime":
        monkeypatch.setattr(latency.import_runtime(), "__version__", "0.0.1")
    other = LatencyTable(file, threads=2 if what == "threads" else 1)
    assert other.missing(POINTS) == POINTS
    other.measure(POINTS, verbose=0)
    monkeypatch.undo()
    assert LatencyTable(file).missing(POINTS) == {}
    assert len(json.loads(file.read_text())["measured"]) == 2


def test_a_file_of_sensitivities_is_refused(tmp_path):
    file = tmp_path / "sensitivity.json"
    file.write_text('{"format": 1, "measured": {"a": [["act.output", "ratio", 0.5, 0.25]]}}')
    with pytest.raises(CheckpointError, match="cannot be used as a file of measurements"):
        LatencyTable(file)


def test_threads_must_be_there():
    with pytest.raises(ValueError, match=r"threads must be 1 or more; received 0\."):
        LatencyTable(None, threads=0)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_packages_a_sentence_says_how_to_get_them(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=r'pip install "qprune\[onnx\]"'):
        LatencyTable(None)


def test_the_cost_is_told_before_it_starts(timed):
    LatencyTable(None).measure(POINTS, verbose=2, out=(out := io.StringIO()))
    assert out.getvalue() == "Latency of 9 layers in ONNX Runtime: about 2 seconds.\n"


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 48, 3, padding=1, groups=48), nn.ReLU(),
        nn.Conv2d(48, 64, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(64, 24, 2, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    ).eval()  # fmt: skip


IMAGE = torch.zeros(1, 3, 48, 40)


def layers_of(net):
    """Which channels are kept, by the ledger."""
    return {row.path: (row.channels_in_kept, row.channels_out_kept) for row in layer_costs(net, trace(net, IMAGE))}


def narrow(ratio: float, bits: int | None = None) -> nn.Module:
    act = {"types": ["ReLU"], "at": "output"}
    prune = [{"sites": [act], "sparsity": ratio, "schedule": {"kind": "one-shot", "at": 0}}]
    weights = {"types": ["Conv2d", "ConvTranspose2d", "Linear"], "at": "weight"}
    quantize = [{"sites": [weights], "bits": bits, "per": "channel", "start": 0}] if bits else []
    net = qprune.swap(small(), IMAGE, prune=prune, quantize=quantize, complete=bits is not None)
    for site in qprune.layers.sites(net):
        if site.mask is not None:
            site.mask.keep[: int(ratio * len(site.mask.keep))] = False
    return qprune.calibrate(net, [torch.randn(4, 3, 48, 40)]) if bits else net


@pytest.mark.parametrize(
    ("bits", "numbers"), [(None, ["real"] * 5), (8, ["integer"] * 4 + ["sums"]), (4, ["integer"] * 4 + ["sums"])]
)
def test_every_layer_with_weights_is_known_with_what_it_computes_with(timed, bits, numbers):
    known = Latency(narrow(0, bits), IMAGE, LatencyTable(None))
    assert list(known.layers) == ["0", "2", "4", "6", "10"]
    assert [layer.shapes[0].numbers for layer in known.layers.values()] == numbers


def test_a_layer_that_reads_what_is_not_rounded_computes_with_real_numbers(timed):
    weights = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 8, "start": 0}
    net = qprune.calibrate(qprune.swap(small(), IMAGE, quantize=[weights]), [IMAGE + 1])
    known = Latency(net, IMAGE, LatencyTable(None))
    assert {layer.shapes[0].numbers for layer in known.layers.values()} == {"real"}


def test_a_network_that_was_measured_is_what_its_estimate_is(timed):
    known = Latency(small(), IMAGE, LatencyTable(None))
    known.prepare(verbose=0)
    dense, half = layers_of(small()), layers_of(narrow(0.5))
    alone = known.seconds(half)
    known.learn(dense, known.seconds(dense) + 8e-4)
    sizes = {"0": 48 * 40, "2": 48 * 40, "4": 23 * 19, "6": 46 * 38, "10": 1}
    features = [sum(size * layers[path][1] for path, size in sizes.items()) for layers in (half, dense)]
    assert known.seconds(half) == pytest.approx(alone + 8e-4 * features[0] / features[1])
    known.learn(half, 1e-3)
    assert known.seconds(half) == pytest.approx(1e-3)
    assert known.seconds(dense) > 1e-3


def measured(bits: int | None) -> Latency:
    known = Latency(narrow(0, bits), IMAGE, LatencyTable(None))
    known.prepare(least=1 / 4, verbose=0)
    return known


@pytest.fixture(scope="module")
def known():
    return {bits: measured(bits) for bits in (None, 8)}


@pytest.mark.parametrize(("ratio", "bits"), [(0.5, None), (0.75, None), (0.5, 8)])
def test_the_estimate_of_a_shrunk_network_is_near_what_its_file_takes(known, ratio, bits):
    net = narrow(ratio, bits)
    assert 0.2 < known[bits].seconds(layers_of(net)) / known[bits].measure(net) < 5


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 8])
def test_with_whole_networks_measured_the_estimate_is_nearer(bits):
    known = measured(bits)
    for ratio in (0.0, 0.75):
        net = narrow(ratio, bits)
        known.learn(layers_of(net), known.measure(net))
    net = narrow(0.5, bits)
    assert 0.75 < known.seconds(layers_of(net)) / known.measure(net) < 1.35


def test_more_channels_take_longer(known):
    take = partial(known[None].layer, "4")
    assert take(12, 16) < take(48, 64)
