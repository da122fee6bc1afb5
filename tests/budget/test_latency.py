"""The table of what layers take: exact where measured, kept, of one machine; and whole networks against their files."""

import io
import json
import sys
from functools import partial

import pytest
import torch
from attrs import evolve
from torch import nn

import qprune
from qprune.budget import Latency, LatencyTable, LayerShape, Overhead, latency
from qprune.errors import CheckpointError, ExportError
from qprune.flow import trace
from qprune.report.costs import layer_costs

LINEAR = LayerShape("Linear", size=())
DEPTHWISE = LayerShape("Conv2d", (6, 9), (("kernel_size", (3, 3)),), groups=0, outputs_per_input=2)
POINTS = {LINEAR: LINEAR.grid((24, 16), least=1 / 3)}


@pytest.fixture
def timed(monkeypatch):
    """Layers whose time is known, in place of measured ones; which were asked for."""
    asked = []

    def time_layers(shape, counts, overhead, threads, stop_after=None):
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
        monkeypatch.setattr(latency, "processor", lambda: "Another Processor")
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


def ledger(net):
    return layer_costs(net, trace(net, IMAGE))


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


def test_every_layer_with_weights_is_known_with_what_it_computes_with(timed):
    known = Latency(small(), IMAGE, LatencyTable(None))
    numbers = {path: [shape.numbers for shape in layer.of(integer=True)] for path, layer in known.layers.items()}
    assert numbers == {"0": ["integer"], "2": ["integer"], "4": ["integer"], "6": ["integer"], "10": ["sums"]}
    assert all(shape.numbers == "real" for layer in known.layers.values() for shape in layer.of(integer=False))


def test_a_network_that_was_measured_is_what_its_estimate_is(timed):
    known = Latency(small(), IMAGE, LatencyTable(None))
    known.prepare(verbose=0)
    dense, half = ledger(small()), ledger(narrow(0.5))
    alone = known.seconds(half)
    known.learn(dense, known.seconds(dense) + 8e-4)
    share = latency._features([row for row in half if row.path in known.layers]) / latency._features(dense)
    assert known.seconds(half) == pytest.approx(alone + 8e-4 * share)
    known.learn(half, 1e-3)
    assert known.seconds(half) == pytest.approx(1e-3)
    assert known.seconds(dense) > 1e-3


def test_bits_decide_between_real_numbers_and_integers(timed, monkeypatch):
    known = Latency(small(), IMAGE, LatencyTable(None))
    known.prepare(integer=(False, True), verbose=0)
    asked = []
    seconds = known.table.seconds
    monkeypatch.setattr(known.table, "seconds", lambda shape, *counts: asked.append(shape) or seconds(shape, *counts))
    row = next(row for row in ledger(small()) if row.path == "4")
    for bits in [(32, 32), (8, 32), (4, 8)]:
        known.seconds([evolve(row, weight_bits=bits[0], activation_bits=bits[1])])
    assert [shape.numbers for shape in asked] == ["real", "real", "integer"]


@pytest.fixture(scope="module")
def measured():
    known = Latency(small(), IMAGE, LatencyTable(None))
    known.prepare(integer=(False, True), least=1 / 4, verbose=0)
    return known


@pytest.mark.parametrize(("ratio", "bits"), [(0.5, None), (0.75, None), (0.5, 8)])
def test_the_estimate_of_a_shrunk_network_is_near_what_its_file_takes(measured, ratio, bits):
    net = narrow(ratio, bits)
    assert 0.4 < measured.seconds(ledger(net)) / measured.measure(net) < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 8])
def test_with_the_dense_network_measured_the_estimate_is_nearer(bits):
    known = Latency(small(), IMAGE, LatencyTable(None))
    known.prepare(integer=(bits is not None,), least=1 / 4, verbose=0)
    for ratio in (0.0, 0.75):
        net = narrow(ratio, bits)
        known.learn(ledger(net), known.measure(net))
    net = narrow(0.5, bits)
    assert 0.75 < known.seconds(ledger(net)) / known.measure(net) < 1.35


def test_more_channels_take_longer(measured):
    take = partial(measured.layer, "4", integer=False)
    assert take(12, 16) < take(48, 64)
    assert take(24, 32) < take(48, 64)
