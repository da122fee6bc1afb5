"""What a search found, as people see it: a table, HTML, a picture, rules, and a spec that plans and trains."""

from html.parser import HTMLParser

import pytest
from attrs import evolve

import qprune
from qprune.budget import Budget, Choice, Found, Group
from qprune.errors import SpecError
from qprune.spec import read_spec
from qprune.training import Callback

ONE = Group("stem.act.output", members=("stem.act", "add"), weights=("stem.conv",), channels=32, coupled=True)
TWO = Group("deep.act.output", members=("deep.act",), weights=("deep.conv",), channels=64)
LAST = Group("classifier.weight", members=(), weights=("classifier",), channels=10)


def found(bits=None, **changed):
    costs = {"macs": 551_900.0, "bytes": 69_200.0}
    known = {
        "choices": {ONE: Choice(8, bits), TWO: Choice(56, bits), LAST: Choice(0, bits)},
        "harm": {ONE: 0.25, TWO: 0.5, LAST: 0.0},
        "method": "sensitivity",
        "budgets": (Budget("macs", 0.25, share=True), Budget("bytes", 7e4, share=False)),
        "costs": costs,
        "dense": {"macs": 2_215_000.0, "bytes": 333_700.0},
        "importance": "activation-l1",
    }
    return Found(**known | changed)


def test_it_prints_as_tables():
    assert str(found(4)) == "\n".join([
        "Found for macs = 25 %, bytes = 70 kB, by sensitivity; channels ranked by activation-l1.",
        "",
        "channels            of  kept  bits  divergence",
        "----------------------------------------------",
        "stem.act.output +1  32    24     4      0.2500",
        "deep.act.output     64     8     4      0.5000",
        "classifier.weight   10    10     4           0",
        "",
        "                 dense    found  of dense   budget",
        "--------------------------------------------------",
        "MACs           2.215 M  551.9 k    24.9 %  553.8 k",
        "packed bytes  333.7 kB  69.2 kB    20.7 %    70 kB",
    ])  # fmt: skip


def test_what_was_not_measured_or_chosen_is_left_empty():
    assert "stem.act.output +1  32    24" in str(found(harm={})).splitlines()


def test_notes_are_told():
    assert str(found(notes=("mix is not pruned: no mask can be there.",))).endswith(
        "\n\nmix is not pruned: no mask can be there."
    )


def test_a_notebook_shows_escaped_tables():
    class Cells(HTMLParser):
        texts = ()

        def handle_data(self, data):
            self.texts += (data,)

    group = evolve(ONE, name="<script>.output")
    html = found(choices={group: Choice(8)}, harm={})._repr_html_()
    reader = Cells()
    reader.feed(html)
    assert "<script>" not in html
    assert {"<script>.output +1", "24", "24.9 %", "MACs"} <= set(reader.texts)


def test_a_picture_shows_every_group(tmp_path):
    figure = found(4).plot(tmp_path / "found.png")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "classifier.weight",
        "deep.act.output",
        "stem.act.output +1",
    ]
    assert [text.get_text() for text in axes.texts] == ["10 of 10, 4 bits", "8 of 64, 4 bits", "24 of 32, 4 bits"]
    assert (tmp_path / "found.png").stat().st_size > 1000


def test_plain_data_has_all_that_was_chosen():
    plain = found(4).to_dict()
    assert plain["groups"][1] == {"group": "deep.act.output", "channels": 64, "dropped": 56, "bits": 4}
    assert plain["budgets"] == {"macs": 553_750.0, "bytes": 7e4}


@pytest.fixture(scope="module")
def searched(runs):
    return qprune.search(
        "digits/baseline", {"macs": 0.3}, bits=(4, 8), ratios=(0.5, 0.75), images=64, runs=runs, verbose=0
    )


def test_the_spec_starts_from_the_dense_run_and_trains_as_long(searched):
    spec, dense = searched.spec(), searched.base
    assert (spec.name, spec.init) == ("digits/baseline_macs30", "digits/baseline")
    assert (spec.train.length, spec.train.optimizer, spec.train.lr_schedule) == (
        dense.train.length, dense.train.optimizer, dense.train.lr_schedule,
    )  # fmt: skip
    assert [rule.schedule.start for rule in spec.quantize] == ["1.8ep", "1.6ep"]


def test_the_file_says_the_same_as_the_spec(searched, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(searched.to_toml("mine"))
    assert read_spec(file) == searched.spec("mine")


def test_the_plan_of_the_spec_meets_the_budget(searched, runs):
    plan = str(qprune.plan(searched.spec(), runs=runs))
    macs = searched.costs["macs"]
    assert macs <= 0.3 * searched.dense["macs"]
    assert f"MACs: 2.215 M -> {macs / 1e3:.4g} k" in plan


def test_training_it_leaves_a_network_of_these_costs(searched, runs):
    history = qprune.fit(searched.spec(), runs=runs, verbose=0)
    total = qprune.summary(history.run).total
    assert {"macs": total.macs_kept, "params": total.parameters_kept, "bytes": total.packed_bytes,
            "bops": total.bit_operations} == searched.costs  # fmt: skip


def test_from_scratch_the_network_is_small_before_its_first_step_and_the_dense_one_teaches_it(searched, runs):
    spec = searched.spec(scratch=True)
    assert (spec.name, spec.init) == ("digits/baseline_macs30_scratch", None)
    assert spec.about == "Found for macs = 30 %, by sensitivity, from scratch."
    assert spec.train.teacher.run == "digits/baseline"
    assert read_spec(searched.spec().to_dict() | {"name": spec.name}).train.teacher is None

    class Watching(Callback):
        def on_train_batch_begin(self, step, logs):
            parameters.append(sum(p.numel() for p in self.trainer.net.parameters()))

    parameters = []
    history = qprune.fit(spec, runs=runs, verbose=0, callbacks=[Watching()])
    total = qprune.summary(history.run).total
    assert set(parameters) == {total.parameters_kept}
    assert total.macs_kept == searched.costs["macs"]


def test_other_methods_and_numbers_have_their_word_in_the_name(runs):
    options = {"images": 64, "runs": runs, "verbose": 0, "method": "uniform"}
    other = qprune.search("digits/baseline", {"bytes": "100kB"}, **options)
    assert other.spec().name == "digits/baseline_bytes100kB_uniform"


def test_a_network_of_no_run_has_rules_and_no_spec():
    with pytest.raises(SpecError) as error:
        found().spec()
    assert str(error.value) == (
        "There is no spec: the network that was searched is of no run. Its rules are found.prune() and "
        "found.quantize(); write them into a spec of yours, or hand them to qprune.swap."
    )
