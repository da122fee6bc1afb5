"""What a notebook shows of the values that people hold: HTML in which every name is escaped, and a short line else."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import qprune
from qprune.budget import Curve, Group, Sensitivity
from qprune.budget.budgets import Budget
from qprune.budget.costs import Choice
from qprune.budget.found import Found
from qprune.comparison import ComparedRun, Comparison
from qprune.costs import summarize
from qprune.exporting import Agreement, Certificate, Elsewhere, Environment
from qprune.exporting.running import Operators
from qprune.network_plan import Plan, SitePlan
from qprune.schedules import Timeline
from qprune.training import History

HOSTILE = "<script>x</script>"


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def summary():
    net = nn.Sequential()
    net.add_module(HOSTILE, nn.Conv2d(3, 4, 3))
    net.add_module("head", nn.Conv2d(4, 2, 1))
    return summarize(net, (3, 5, 7))


def plan():
    mask = SitePlan(f"{HOSTILE}.output", "mask", Timeline(refreshes=((5, 0.5),), end=5), 8, 4, "activation-l1")
    return Plan((mask,), steps=20, steps_per_epoch=10, notes=(f"{HOSTILE} is a note",), cost={"MACs": "8 k -> 2 k"})


def certificate():
    return Certificate(
        file=f"{HOSTILE}.onnx", bytes=1500, packed_bytes=700,
        environment=Environment("onnxruntime 1", "a processor", "all", False, "2"),
        inputs={"random": 8}, outputs=(Agreement("output", 80, 1.0, 1.0, 0.0, 3.5),),
        quantizers=(Agreement(HOSTILE, 30, 0.5, 1.0, 1.0),), predictions=1.0,
        scores={"accuracy": (0.97, 0.96)}, standard_errors={"accuracy": 0.01},
        operators=Operators({"ConvInteger": 1}, {}, {}), real_layers={"stem": HOSTILE}, milliseconds={"exported": 0.25},
        elsewhere={"openvino": Elsewhere("OpenVINO", refusal=HOSTILE)},
    )  # fmt: skip


def comparison():
    runs = (ComparedRun(f"a/{HOSTILE}", 0.9, 800, 5000, 80_000, 3200), ComparedRun("a/b", 0.8, 90, 600, 900, 45))
    return Comparison(runs, "accuracy", "max", (f"{HOSTILE} is left out",))


def history():
    columns = {"step": [10, 20], "epoch": [1.0, 2.0], "loss": [0.7, 0.4], HOSTILE: [0.5, 0.6]}
    events = [{"step": 5, "site": f"{HOSTILE}.output", "sparsity": 0.5, "frozen": True}]
    return History(history=columns, events=events)


def search():
    group = Group(HOSTILE, members=("act",), weights=("conv",), channels=16)
    asked = (Budget("macs", 0.5, share=True),)
    return Found({group: Choice(8)}, {group: 0.25}, "sensitivity", asked, {"macs": 5e5}, {"macs": 1e6}, "l1")


def sensitivity():
    return Sensitivity((Curve(Group(HOSTILE, ("act",), ("conv",), 16), {0.5: 0.25}, {8: 0.1}),), "classes", 9, "l1", 2)


def shrunk():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    return qprune.shrink_report(net, torch.zeros(1, 3, 5, 7))


VALUES = [summary, plan, certificate, comparison, history, search, sensitivity, shrunk]


@pytest.mark.parametrize("make", VALUES, ids=lambda make: make.__name__)
def test_a_notebook_shows_html_with_a_table_or_a_figure(make):
    found = _Tags()
    found.feed(make()._repr_html_())
    assert {"table", "svg"} & set(found.tags)


@pytest.mark.parametrize("make", VALUES, ids=lambda make: make.__name__)
def test_names_of_others_are_text_in_a_notebook(make):
    found = _Tags()
    found.feed(make()._repr_html_())
    assert "script" not in found.tags
    assert make is shrunk or HOSTILE in "".join(found.text)


def test_numbers_on_axes_are_written_out():
    assert "mathdefault" not in sensitivity()._repr_html_()
    assert "mathdefault" not in comparison()._repr_html_()


@pytest.mark.parametrize("make", VALUES, ids=lambda make: make.__name__)
def test_a_plain_repr_is_one_short_line(make):
    value = make()
    assert re.fullmatch(rf"{type(value).__name__}\([^\n]+\)", repr(value))
    assert len(repr(value)) < 140


def test_a_plain_repr_tells_what_matters():
    assert repr(plan()) == "Plan(1 mask, 0 quantizers, finished by step 5 (0.50 ep) of 20 (2.00 ep))"
    assert repr(history()) == "History(2 entries, 1 event)"
    assert repr(History()) == "History(0 entries, 0 events)"
    assert repr(comparison()) == "Comparison(2 runs of a, accuracy on test images)"
    assert repr(search()) == "Found(macs = 50 %, 1 group of channels)"
    assert repr(sensitivity()) == "Sensitivity(1 group of channels, 9 images)"


def test_a_history_without_entries_says_so_in_a_notebook():
    assert "The history is empty" in History()._repr_html_()


def test_a_certificate_is_the_same_after_a_way_through_json(tmp_path):
    from qprune.exporting import read_certificate

    file = tmp_path / "it.certificate.json"
    file.write_text(certificate().to_json())
    assert read_certificate(file) == certificate()
    assert json.loads(file.read_text())["bytes"] == 1500
