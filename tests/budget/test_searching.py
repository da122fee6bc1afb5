"""A search on trained digits: budgets hold in the network itself, and what was measured is not measured again."""

import io
import re
import sys

import pytest
import torch
import torchvision
from torch import nn

import qprune
from qprune import zoo
from qprune.budget import Overhead, changing, find_groups, latency, read_budgets, searching
from qprune.budget.changing import masked, pruned, renormalized
from qprune.budget.costs import counted
from qprune.budget.divergence import divergence, outputs_of
from qprune.budget.searching import search_network
from qprune.costs import summarize
from qprune.errors import ExportError, PlanError
from qprune.layers import sites

RATIOS = (0.25, 0.5, 0.75)


def search(net, images, budgets, **options):
    known = {"compare": "classes", "ratios": RATIOS, "verbose": 0} | options
    return search_network(net, images, read_budgets(budgets), **known)


def carried_out(net, images, found):
    """The network with what was found, by the masks of its own rules."""
    ratios = {group: choice.dropped / group.channels for group, choice in found.choices.items() if group.members}
    return pruned(masked(net, images, list(ratios), "activation-l1"), images, ratios)


@pytest.fixture(scope="module")
def found(net, images):
    return search(net, images, {"macs": 0.3})


def test_the_budget_holds_in_the_network_itself(net, images, found):
    macs = counted(carried_out(net, images, found), images[0][:1])["macs"]
    assert macs == found.costs["macs"]
    assert 0.98 * 0.3 <= macs / found.dense["macs"] <= 0.3


def test_what_was_found_changes_the_network_less_than_the_same_share_everywhere_and_chance(net, images, found):
    dense = outputs_of(renormalized(net, images), images)
    others = [search(net, images, {"macs": 0.3}, method="uniform")]
    others += [search(net, images, {"macs": 0.3}, method="random", seed=seed) for seed in range(3)]
    moved = [divergence(carried_out(net, images, each), images, dense, "classes") for each in (found, *others)]
    assert moved[0] < min(moved[1:])


def test_it_measures_again_in_a_network_of_which_half_is_dropped(net, images, monkeypatch):
    taken = []

    def noting(*arguments, **options):
        taken.append(options.get("around", {}))
        return searching_measure(*arguments, **options)

    searching_measure = searching.measure_sensitivity
    monkeypatch.setattr(searching, "measure_sensitivity", noting)
    search(net, images, {"macs": 0.3})
    first, second = taken
    assert first == {}
    assert {group.name for group in second} == {g.name for g in find_groups(net, images[0][:1]) if g.members}
    assert 0 < max(second.values()) < 0.5


def test_the_other_methods_measure_nothing(net, images, monkeypatch):
    monkeypatch.setattr(searching, "measure_sensitivity", None)
    assert search(net, images, {"macs": 0.3}, method="uniform").harm == {}


def test_a_search_that_was_interrupted_goes_on(net, images, tmp_path, monkeypatch):
    file, count = tmp_path / "sensitivity.json", []

    def interrupted(*arguments):
        count.append(1)
        if len(count) > 20:  # of 15 in the dense network, and 20 half-way
            raise KeyboardInterrupt
        return divergence(*arguments)

    monkeypatch.setattr("qprune.budget.measuring.divergence", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(net, images, {"macs": 0.3}, file=file)
    count[:] = [1] * -100
    left = []
    monkeypatch.setattr("qprune.budget.measuring.divergence", lambda *each: left.append(1) or divergence(*each))
    again = search(net, images, {"macs": 0.3}, file=file)
    assert len(left) == 15 + 20 - 20
    assert again == search(net, images, {"macs": 0.3})


def test_bits_and_channels_are_chosen_together(net, images):
    found = search(net, images, {"bops": 0.01, "bytes": "20kB"}, bits=(2, 4, 8))
    assert found.costs["bops"] <= 0.01 * found.dense["bops"]
    assert found.costs["bytes"] <= 20_000
    assert {choice.bits for choice in found.choices.values()} <= {2, 4, 8}
    assert [rule["sites"][0]["at"] for rule in found.quantize()] == ["weight", "output"]


def test_what_is_used_after_training_is_searched_with_paths_of_the_whole():
    torch.manual_seed(0)
    net = zoo.create("pix2pix", width=0.125, width_discriminator=0.125)
    images = [torch.randn(2, 3, 256, 256)]
    found = search(net, images, {"macs": 0.5}, compare="values", method="uniform")
    paths = found.prune()[0]["sites"][0]["paths"]
    assert all(path.startswith(f"{net.deployed}.") for path in paths)
    assert [site.name for site in sites(qprune.swap(net, images[0], prune=found.prune({"kind": "one-shot", "at": 0})))]


def test_a_group_that_cannot_be_pruned_is_told_and_stays(net, images, monkeypatch):
    def problem(net, example, groups):
        return "No mask can be here." if any("mix" in group.name for group in groups) else ""

    monkeypatch.setattr(changing, "_problem", problem)
    found = search(net, images, {"macs": 0.5}, method="uniform")
    assert found.notes == ("mix.act.output is not pruned: No mask can be here.",)
    assert next(choice.dropped for group, choice in found.choices.items() if "mix" in group.name) == 0


def test_the_network_stays_as_it_is(net, images, found):
    assert not list(sites(net))
    assert not any(isinstance(module, nn.Identity) and module.training for module in net.modules())


def test_the_cost_is_told_before_each_measurement(net, images):
    out = io.StringIO()
    search(net, images, {"macs": 0.3}, verbose=2, out=out)
    told = [line.split(",")[0] for line in out.getvalue().splitlines()]
    assert told == ["15 measurements of 5 groups", "20 measurements of 5 groups"]


def test_an_unknown_method_is_a_sentence(net, images):
    with pytest.raises(PlanError) as error:
        search(net, images, {"macs": 0.3}, method="uniforme")
    assert (
        str(error.value)
        == 'method must be one of sensitivity, uniform, random; received "uniforme"; nearest: "uniform".'
    )


def test_bits_that_no_rule_can_have_are_a_sentence(net, images):
    with pytest.raises(PlanError, match="bits must be whole numbers from 2 to 8"):
        search(net, images, {"macs": 0.3}, bits=(16,))


def test_a_share_to_keep_that_cannot_be_is_a_sentence(net, images):
    with pytest.raises(PlanError) as error:
        search(net, images, {"macs": 0.3}, least=1.0)
    assert (
        str(error.value)
        == "least is the share of its channels that each group keeps, from 0 to less than 1; received 1.0."
    )


def test_a_ranking_by_chance_is_that_of_the_seed(net, images, monkeypatch):
    seeds = []
    measure = searching.measure_sensitivity

    def noting(*arguments, **options):
        seeds.append(options["seed"])
        return measure(*arguments, **options)

    monkeypatch.setattr(searching, "measure_sensitivity", noting)
    search(net, images, {"macs": 0.3}, importance="random", seed=3)
    assert seeds == [3, 3]


def test_a_budget_at_the_least_that_can_be_is_met(net, images):
    least = search(net, images, {"macs": 0.5}, method="uniform", least=0.5).dense
    with pytest.raises(PlanError) as error:
        search(net, images, {"macs": 1e-6}, least=0.5)
    share = float(str(error.value).split(", ")[1].split(" %")[0]) / 100
    found = search(net, images, {"macs": 1.01 * share}, least=0.5)
    assert found.costs["macs"] <= 1.01 * share * least["macs"]


BESIDE = 1e-4  # seconds of a file besides its layers, which the table does not know


@pytest.fixture
def timed(monkeypatch):
    """A clock by which a layer takes as long as it has weights, and a file a quarter longer, and some more."""

    def of_layers(shape, counts, overhead, threads):
        return {each: 1e-9 * sum(p.numel() for p in shape.layer(each).parameters()) for each in counts}

    def of_a_file(net, example, threads):
        files.append(net)
        return BESIDE + 1.25e-9 * summarize(net, tuple(example.shape[1:])).total.parameters_kept

    files = []
    monkeypatch.setattr(latency, "time_layers", of_layers)
    monkeypatch.setattr(latency, "measure_overhead", lambda threads: Overhead(run=5e-6))
    monkeypatch.setattr(latency, "time_network", of_a_file)
    return files


@pytest.mark.parametrize(("method", "bits"), [("sensitivity", ()), ("uniform", (4, 8)), ("random", ())])
def test_a_budget_of_latency_holds_in_the_file(net, images, timed, method, bits):
    found = search(net, images, {"latency": 0.7}, method=method, bits=bits)
    assert found.dense["latency"] == BESIDE + 1.25e-9 * found.dense["params"]
    assert found.costs["latency"] == pytest.approx(BESIDE + 1.25e-9 * found.costs["params"])
    assert 0.95 * 0.7 <= found.costs["latency"] / found.dense["latency"] <= 0.7
    assert len(timed) <= 7  # dense, the same with bits, smallest, and a few choices


def test_what_the_file_takes_and_the_table_expected_is_told(net, images, timed):
    *_, note = search(net, images, {"latency": 0.7}, method="uniform").notes
    told = re.fullmatch(
        r"The exported file takes (\S+) ms on one thread of this machine; from the table of its layers (\S+) ms were "
        r"expected \((\S+) %\)\.",
        note,
    )
    seconds, expected, deviation = map(float, told.groups())
    assert deviation == pytest.approx(100 * (expected / seconds - 1), abs=0.6)


def test_latency_is_a_row_only_where_it_was_asked_for(net, images, found, timed):
    timely = search(net, images, {"latency": 0.8, "macs": 0.5}, method="uniform")
    assert re.search(r"\nlatency +0\.\d+ ms +0\.\d+ ms ", str(timely))
    assert timely.costs["macs"] <= 0.5 * timely.dense["macs"]
    assert "latency" not in str(found)


def test_where_no_choice_is_fast_enough_the_smallest_is_taken(net, images, timed, monkeypatch):
    taken = iter([1e-3, 1e-4])  # by the dense file and the smallest one; all others are slow
    monkeypatch.setattr(latency, "time_network", lambda *each: next(taken, 9e-4))
    found = search(net, images, {"latency": 0.5}, method="random")
    assert (found.dense["latency"], found.costs["latency"]) == (1e-3, 1e-4)


def test_a_latency_that_cannot_be_met_is_a_sentence_with_what_the_smallest_file_takes(net, images, timed, monkeypatch):
    taken = iter([1e-3, 6e-4])
    monkeypatch.setattr(latency, "time_network", lambda *each: next(taken))
    with pytest.raises(PlanError, match=r"latency = 50 % cannot be met: .* costs 0\.6 ms, 60 % of the dense"):
        search(net, images, {"latency": 0.5}, method="uniform")


def test_the_table_is_kept_beside_the_measurements_of_divergences(net, images, timed, tmp_path):
    search(
        net,
        images,
        {"latency": 0.8},
        method="uniform",
        file=tmp_path / "sensitivity.json",
        verbose=2,
        out=io.StringIO(),
    )
    out = io.StringIO()
    search(net, images, {"latency": 0.8}, method="uniform", file=tmp_path / "sensitivity.json", verbose=2, out=out)
    assert (tmp_path / "latency.json").is_file()
    assert out.getvalue() == ""


def test_without_the_packages_of_export_a_sentence_says_how_to_get_them(net, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r'^A budget of latency is one of the exported file\. .*pip install "qprune'):
        search(net, images, {"latency": 0.8}, method="uniform")


def test_a_network_that_cannot_be_exported_is_told(images):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.linear = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Linear(8, 10)

        def forward(self, x):
            return self.linear(torch.special.bessel_j0(self.act(self.conv(x))).mean((2, 3)))

    with pytest.raises(ExportError, match=r"^A budget of latency is one of the exported file\. "):
        search(Odd().eval(), images, {"latency": 0.8}, method="uniform")


@pytest.mark.slow
def test_the_file_of_a_network_from_elsewhere_is_measured():
    torch.manual_seed(0)
    net = torchvision.models.mobilenet_v3_small(num_classes=7).eval()
    found = search(net, [torch.randn(2, 3, 64, 64)], {"latency": 0.9}, method="uniform", least=0.25)
    assert 0 < found.costs["latency"] < 1
    assert found.costs["macs"] < found.dense["macs"]
