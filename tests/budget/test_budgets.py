"""Budgets as people write them, and sentences for what cannot be one."""

import pytest

from qprune.budget import Budget, read_budgets
from qprune.budget.budgets import told
from qprune.errors import PlanError


@pytest.mark.parametrize(
    ("written", "budget"),
    [
        ("macs=0.25", Budget("macs", 0.25, share=True)),
        ("macs = 25 %", Budget("macs", 0.25, share=True)),
        ("macs=2.5e-1", Budget("macs", 0.25, share=True)),
        ("macs=10M", Budget("macs", 10e6, share=False)),
        ("params=50k", Budget("params", 50e3, share=False)),
        ("params=50000", Budget("params", 50e3, share=False)),
        ("bytes=100kB", Budget("bytes", 100e3, share=False)),
        ("bytes=1.5 MB", Budget("bytes", 1.5e6, share=False)),
        ("bytes=800B", Budget("bytes", 800, share=False)),
        ("bops=0.8%", Budget("bops", 0.008, share=True)),
        ("bops=.5", Budget("bops", 0.5, share=True)),
        ("latency=2.5ms", Budget("latency", 0.0025, share=False)),
        ("latency = 250 us", Budget("latency", 0.00025, share=False)),
        ("latency=250\u00b5s", Budget("latency", 0.00025, share=False)),
        ("latency=0.5s", Budget("latency", 0.5, share=False)),
        ("latency=50%", Budget("latency", 0.5, share=True)),
        ("latency=0.5", Budget("latency", 0.5, share=True)),
        ("macs=1", Budget("macs", 1.0, share=True)),
    ],
)
def test_texts_are_read(written, budget):
    (read,) = read_budgets([written])
    assert (read.cost, read.share) == (budget.cost, budget.share)
    assert read.most == pytest.approx(budget.most)


def test_a_table_says_the_same_as_texts():
    assert read_budgets({"macs": 0.25, "bytes": "100kB"}) == read_budgets(["macs=0.25", "bytes=100kB"])


def test_a_share_is_of_what_the_dense_network_costs():
    assert Budget("macs", 0.25, share=True).limit(40e6) == 10e6
    assert Budget("macs", 3e6, share=False).limit(40e6) == 3e6


@pytest.mark.parametrize(
    ("cost", "value", "text"),
    [
        ("bytes", 1536, "1.536 kB"),
        ("macs", 10_400_000, "10.4 M"),
        ("params", 12, "12"),
        ("latency", 0.0025, "2.5 ms"),
        ("latency", 0.00004567, "0.04567 ms"),
    ],
)
def test_costs_are_told_as_people_write_them(cost, value, text):
    assert told(cost, value) == text


NUMBERS = {
    "macs": "macs=10M or macs=0.25",
    "bytes": "bytes=100kB or bytes=0.25",
    "latency": "latency=2.5ms or latency=0.25",
}


@pytest.mark.parametrize(
    ("cost", "value"),
    [("macs", "10MB"), ("macs", True), ("macs", -0.5), ("macs", float("nan")), ("macs", None), ("bytes", "2ms"),
     ("bytes", "lots"), ("macs", "10m"), ("macs", "10ms"), ("latency", "2.5"), ("latency", "2kB"), ("latency", "-1ms")],
)  # fmt: skip
def test_what_is_no_number_of_that_cost_is_a_sentence(cost, value):
    with pytest.raises(PlanError) as error:
        read_budgets({cost: value})
    assert str(error.value) == (
        f"The budget of {cost} must be a number such as {NUMBERS[cost]} (a share of the dense network's); received "
        f"{value}."
    )


SHARE = "A budget as a share of the dense network is greater than 0 and at most 1; received"


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ([], "There is no budget: say what the network may cost, such as macs=0.25 or bytes=100kB."),
        (["macs"], 'A budget is a cost and a number, such as macs=0.25; received "macs".'),
        (["mac=1"], 'A budget is of macs, params, bytes, bops, latency; received "mac"; nearest: "macs".'),
        (["macs=0"], f"{SHARE} 0."),
        (["macs=120%"], f"{SHARE} 120%."),
        (["macs=0.5", "bytes=1kB", "macs=0.2"], "There are two budgets of macs: leave out all but the smallest."),
    ],
)
def test_what_cannot_be_a_budget_is_a_sentence(written, sentence):
    with pytest.raises(PlanError) as error:
        read_budgets(written)
    assert str(error.value) == sentence
