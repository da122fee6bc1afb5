"""Every kind of mistake inside a spec has its sentence, and all are told at once."""

import re
import tomllib
from copy import deepcopy

import pytest
import toml
from hypothesis import given
from hypothesis import strategies as st

from qprune.errors import SpecError
from qprune.per_path import per_path
from qprune.schedules import Inherited, Layerwise, OneShot, QuantizeFrom, Stepwise, to_table
from qprune.spec import DataSpec, read_rules, read_spec, spec_to_toml, values
from qprune.spec.values import shown

SITE = {"types": ["ReLU"], "at": "output"}
AT_ONCE = {"kind": "one-shot", "at": "2ep"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": "3"}, 'seed must be a whole number of at least 0; received "3" (seed).'),
        ({"seed": 1.5}, "seed must be a whole number of at least 0; received 1.5 (seed)."),
        ({"seed": True}, "seed must be a whole number of at least 0; received true (seed)."),
        ({"seed": -1}, "seed must be a whole number of at least 0; received -1 (seed)."),
        ({"published": 1}, "published must be true or false; received 1 (published)."),
        ({"about": "a\nb"}, 'about must be one line of text; received "a\\nb" (about).'),
        (
            {"init": 3},
            'init must be the name of a run, such as "digits/baseline", with up to 255 bytes between slashes; received '
            "3 (init).",
        ),
        ({"name": "../up"}, 'name must be a relative path such as "digits/baseline"; received "../up" (name).'),
        (
            {"numerics": "papers"},
            'numerics must be "default", "paper" or "exact"; received "papers"; nearest: "paper" (numerics).',
        ),
        ({"prune": 3}, "prune must be a list of tables ([[prune]]); received 3 (prune)."),
        ({"prune": [3]}, "An entry of this list must be a table; received 3 (prune[0])."),
        ({"data": "digits"}, 'data must be a table; received "digits" (data).'),
        ({"sed": 3}, 'Unknown key "sed"; nearest: "seed" (sed).'),
    ],
)
def test_a_mistake_at_the_top_has_its_sentence(told, table, change, line):
    assert told(table | change) == [line]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"size": 0}, "size must be a whole number from 1 to 16384, or [height, width]; received 0 (data.size)."),
        (
            {"size": [64, 96, 3]},
            "size must be a whole number from 1 to 16384, or [height, width]; received [64, 96, 3] (data.size).",
        ),
        (
            {"translate": "BtoC"},
            'translate must be "AtoB" or "BtoA"; received "BtoC"; nearest: "BtoA" (data.translate).',
        ),
        (
            {"unpaired": True},
            'unpaired has no effect without translate = "AtoB" or "BtoA": leave it out; received true (data).',
        ),
        ({"validation": 1}, "validation must be a number in [0, 1); received 1 (data.validation)."),
        ({"validation": float("nan")}, "validation must be a number in [0, 1); received nan (data.validation)."),
        ({"workers": -1}, "workers must be a whole number of at least 0; received -1 (data.workers)."),
        (
            {"mean": [0.5]},
            "mean and std must have one number per channel each; received [0.5] and nothing (data).",
        ),
        (
            {"mean": [0.5], "std": [0]},
            "std must be a list of numbers greater than 0, one per channel; received [0] (data.std).",
        ),
        (
            {"augment": [{"size": 3}]},
            'augment must be a list of tables with a name, such as [{ name = "RandomHorizontalFlip" }]; '
            "received [{ size = 3 }] (data.augment).",
        ),
    ],
)
def test_a_mistake_in_the_data_has_its_sentence(told, table, change, line):
    table["data"] |= change
    assert told(table) == [line]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"batch": 0}, "batch must be a whole number of at least 1; received 0 (train.batch)."),
        (
            {"length": "0.5 epochs"},
            'length must be a duration such as "0.5ep", "800it" or 800; received \'0.5 epochs\' (train.length).',
        ),
        ({"length": "0ep"}, 'length must be at least one step; received "0ep" (train.length).'),
        ({"optimizer": {"lr": 1}}, 'An optimizer needs "name" (train.optimizer).'),
        (
            {"optimizer": {"name": "sgd", "lr": 0}},
            "lr must be a number greater than 0; received 0 (train.optimizer.lr).",
        ),
        (
            {"optimizer": {"name": "sgd", "lr": float("inf")}},
            "lr must be a number greater than 0; received inf (train.optimizer.lr).",
        ),
        (
            {"optimizer": {"name": "adam", "lr": 1, "momentum": 0.9}},
            'momentum has no effect with name = "adam": leave it out; received 0.9 (train.optimizer).',
        ),
        (
            {"optimizer": {"name": "adam", "lr": 1, "betas": [0.9, 1]}},
            "betas must be two numbers in [0, 1); received [0.9, 1] (train.optimizer.betas).",
        ),
        (
            {"optimizer": {"name": "sgd", "lr": 1, "nesterov": True}},
            "nesterov needs a momentum greater than 0; received momentum = 0.0 (train.optimizer).",
        ),
        (
            {"lr_schedule": {"name": "multistep"}},
            'A multistep schedule needs "milestones", such as ["60ep", "120ep"] (train.lr_schedule).',
        ),
        (
            {"lr_schedule": {"name": "multistep", "milestones": ["5 ep"]}},
            'milestones must be a duration such as "0.5ep", "800it" or 800; received \'5 ep\' '
            "(train.lr_schedule.milestones).",
        ),
        (
            {"lr_schedule": {"name": "multistep", "milestones": "5ep"}},
            'milestones must be a list of durations such as ["60ep"]; received "5ep" (train.lr_schedule.milestones).',
        ),
        (
            {"lr_schedule": {"name": "cosine", "gamma": 0.5}},
            'gamma has no effect with name = "cosine": leave it out; received 0.5 (train.lr_schedule).',
        ),
        (
            {"lr_schedule": {"name": "cosine", "final": 2}},
            "final must be a number in [0, 1]; received 2 (train.lr_schedule.final).",
        ),
    ],
)
def test_a_mistake_in_the_training_has_its_sentence(told, table, change, line):
    table["train"] |= change
    assert told(table) == [line]


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (
            {"arhc": "unet", "width": 0.5},
            'A model with "width" and "arhc" needs "arch", a name of the zoo (model).',
        ),
        (
            {"arch": "unet", "layers": [{"type": "ReLU"}]},
            'A model has either "arch", a name of the zoo, or "layers"; received both (model).',
        ),
        (
            {"arch": "unet", "width": 0},
            "width must be a number in (0, 1]; received 0 (model.width).",
        ),
        (
            {"width": 0.5, "layers": [{"type": "ReLU"}]},
            'A net declared by layers states its own channels; it has no "width" (model).',
        ),
        (
            {"layers": [{"typ": "ReLU"}]},
            'A layer needs either "type" or, as a block, "layers"; received "typ" (model.layers[0]).',
        ),
        (
            {"layers": [{"layers": [{"type": "ReLU"}], "bias": False}]},
            'A block of layers has no options of its own; received "bias" (model.layers[0]).',
        ),
        (
            {"layers": [{"layers": [{"type": "ReLU", "repeat": 0}]}]},
            "repeat must be a whole number of at least 1; received 0 (model.layers[0].layers[0].repeat).",
        ),
        (
            {"layers": [{"type": "Add", "from": 3}]},
            "from must be the name of a layer, or a list of them; received 3 (model.layers[0].from).",
        ),
        (
            {"layers": [{"type": "ReLU", "name": "a"}, {"type": "Tanh", "name": "a"}]},
            'Names of layers must differ; "a" appears 2 times (model).',
        ),
        (
            {"layers": [{"type": "PrunedConv2d", "schedule": {"kind": "one-shot", "sparsity": 2, "at": 3}}]},
            "sparsity must be in [0, 1); received 2 (model.layers[0].schedule.sparsity).",
        ),
    ],
)
def test_a_mistake_in_the_model_has_its_sentence(told, table, model, line):
    assert told(table | {"model": model}) == [line]


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (
            {"sites": [SITE], "sparsity": 1.5, "schedule": AT_ONCE},
            "sparsity must be in [0, 1); received 1.5 (prune[0].sparsity).",
        ),
        (
            {"sites": [SITE], "sparcity": 0.5, "schedule": AT_ONCE},
            'Unknown key "sparcity"; nearest: "sparsity" (prune[0].sparcity).',
        ),
        ({"sites": [SITE], "schedule": AT_ONCE}, 'A one-shot schedule needs "sparsity" (prune[0].schedule).'),
        ({"sites": [SITE], "sparsity": 0.5}, 'A prune rule needs "schedule" (prune[0]).'),
        (
            {"sites": [SITE], "sparsity": 0.5, "schedule": "one-shot"},
            'schedule must be a table such as { kind = "layerwise", ... }; received "one-shot" (prune[0].schedule).',
        ),
        (
            {"sites": [SITE], "sparsity": 0.5, "schedule": {"at": 3}},
            'kind must be "inherited", "layerwise", "one-shot" or "stepwise"; received nothing '
            "(prune[0].schedule.kind).",
        ),
        (
            {"sites": [SITE], "sparsity": 0.5, "schedule": AT_ONCE | {"atx": 3}},
            'Unknown key "atx"; nearest: "at" (prune[0].schedule.atx).',
        ),
        (
            {"sites": [SITE], "sparsity": 0.5, "schedule": {"kind": "oneshot"}},
            'kind must be "inherited", "layerwise", "one-shot" or "stepwise"; received "oneshot"; '
            'nearest: "one-shot" (prune[0].schedule.kind).',
        ),
        (
            {"sites": [SITE], "sparsity": 0.5, "schedule": {"kind": ["a"]}},
            'kind must be "inherited", "layerwise", "one-shot" or "stepwise"; received ["a"] (prune[0].schedule.kind).',
        ),
        (
            {"sites": [SITE], "sparsity": 0.5, "schedule": {"kind": "inherited"}},
            'Unknown key "sparsity"; an inherited schedule has no options (prune[0].sparsity).',
        ),
        (
            {"sites": [SITE], "sparsity": 0.5, "schedule": AT_ONCE | {"sparsity": 0.5}},
            "sparsity must be given once; received one on the rule and one in its schedule (prune[0]).",
        ),
        (
            {"sites": [SITE], "sparsity": 0.5, "start": "1 ep", "schedule": {"kind": "stepwise", "every": "1ep"}},
            'start must be a duration such as "0.5ep", "800it" or 800; received \'1 ep\' (prune[0].start).',
        ),
        (
            {"sites": [], "sparsity": 0.5, "schedule": AT_ONCE},
            "sites must name at least one selector; received [] (prune[0].sites).",
        ),
        (
            {"sites": ["ReLU"], "sparsity": 0.5, "schedule": AT_ONCE},
            'An entry of this list must be a table; received "ReLU" (prune[0].sites[0]).',
        ),
        (
            {"sites": [{"types": "ReLU", "at": "output"}], "sparsity": 0.5, "schedule": AT_ONCE},
            'types must be a list of strings; received "ReLU" (prune[0].sites[0].types).',
        ),
        (
            {"sites": [{"types": ["ReLU"]}], "sparsity": 0.5, "schedule": AT_ONCE},
            'A site needs "at" (prune[0].sites[0]).',
        ),
        (
            {"sites": [{"at": "output"}], "sparsity": 0.5, "schedule": AT_ONCE},
            'A site needs "types" or "paths"; paths = ["*"] selects every module (prune[0].sites[0]).',
        ),
        (
            {"sites": [{"types": ["ReLU"], "at": "outputs"}], "sparsity": 0.5, "schedule": AT_ONCE},
            'at must be "input", "weight" or "output"; received "outputs"; nearest: "output" (prune[0].sites[0].at).',
        ),
        (
            {"sites": [SITE | {"skip": [0.5]}], "sparsity": 0.5, "schedule": AT_ONCE},
            "skip must be a list of whole numbers; received [0.5] (prune[0].sites[0].skip).",
        ),
        (
            {"sites": [SITE], "sparsity": 0.5, "multiple_of": 0, "schedule": AT_ONCE},
            "multiple_of must be a whole number of at least 1; received 0 (prune[0].multiple_of).",
        ),
        (
            {"sites": [SITE], "sparsity": 0.5, "importance": "weight-l1", "schedule": AT_ONCE},
            'importance must be "activation-l1", "activation-l0", "taylor", "bn-scale" or "random" '
            'for a site at = "output"; received "weight-l1" (prune[0]).',
        ),
        (
            {"sites": [SITE], "sparsity": 0.5, "couple": "yes", "schedule": AT_ONCE},
            'couple must be true or false; received "yes" (prune[0].couple).',
        ),
        (
            {"sites": [SITE], "sparsity": {"stage1.*": 0.3, "*": 1}, "schedule": AT_ONCE},
            'sparsity must be in [0, 1); received 1 for "*" (prune[0].sparsity).',
        ),
        (
            {"sites": [SITE], "schedule": AT_ONCE | {"sparsity": {"stage1": {"*": 0.3}}}},
            "sparsity must be in [0, 1); received a table for stage1; a pattern with dots stands in quotes "
            "(prune[0].schedule.sparsity).",
        ),
        (
            {"sites": [SITE], "sparsity": {}, "schedule": AT_ONCE},
            "sparsity must be in [0, 1); received a table without entries; give it patterns on module paths, such as "
            '"stage1.*" (prune[0].sparsity).',
        ),
        (
            {"sites": [{"types": ["Conv2d"], "at": "weight"}], "sparsity": 0.5, "schedule": AT_ONCE},
            'importance must be "weight-l1" or "random" for a site at = "weight"; received "activation-l1" (prune[0]).',
        ),
    ],
)
def test_a_mistake_in_a_prune_rule_has_its_sentence(told, table, rule, line):
    assert told(table | {"prune": [rule]}) == [line]


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ({"bits": 1, "start": 3}, "bits must be a whole number from 2 to 8; received 1 (quantize[0].bits)."),
        ({"bits": 9, "start": 3}, "bits must be a whole number from 2 to 8; received 9 (quantize[0].bits)."),
        ({"bits": 4.0, "start": 3}, "bits must be a whole number from 2 to 8; received 4.0 (quantize[0].bits)."),
        (
            {"bits": {"stem": 8, "*": 16}, "start": 3},
            'bits must be a whole number from 2 to 8; received 16 for "*" (quantize[0].bits).',
        ),
        ({"bits": 4}, 'A quantize-from schedule needs "start" (quantize[0]).'),
        (
            {"bits": 4, "start": -3},
            'start must be a duration such as "0.5ep", "800it" or 800; received -3 (quantize[0].start).',
        ),
        (
            {"bits": 4, "schedule": {"kind": "layerwise"}},
            'kind must be "quantize-from"; received "layerwise" (quantize[0].schedule.kind).',
        ),
        (
            {"bits": 4, "start": 3, "per": "chanel"},
            'per must be "tensor" or "channel"; received "chanel"; nearest: "channel" (quantize[0].per).',
        ),
        (
            {"bits": 4, "start": 3, "symmetric": "yes"},
            'symmetric must be true or false; received "yes" (quantize[0].symmetric).',
        ),
        (
            {"bits": 4, "start": 3, "gradient": "clip"},
            'gradient must be "straight" or "clipped"; received "clip"; nearest: "clipped" (quantize[0].gradient).',
        ),
    ],
)
def test_a_mistake_in_a_quantize_rule_has_its_sentence(told, table, rule, line):
    assert told(table | {"quantize": [{"sites": [SITE]} | rule]}) == [line]


def test_all_mistakes_are_told_at_once_with_file_and_key_path(told, complete):
    tail = """
        [[prune]]
        sites = [{ types = ["ReLU"], at = "outputs" }, { at = "input" }]
        sparsity = 1.5
        schedule = { kind = "layerwise", start = "1 epoch", interval = "1ep", refrsh = "1it" }
        [[quantize]]
        sites = "all"
        bits = 9
    """
    complete("specs/mine.toml", 'seed = "3"\nbogus = 1\n', tail)
    paths = [line[line.rindex("(") :] for line in told("specs/mine.toml")]
    assert paths == [
        "(seed in specs/mine.toml).",
        "(prune[0].sites[0].at in specs/mine.toml).",
        "(prune[0].sites[1] in specs/mine.toml).",
        "(prune[0].sparsity in specs/mine.toml).",
        "(prune[0].schedule.start in specs/mine.toml).",
        "(prune[0].schedule.refrsh in specs/mine.toml).",
        "(quantize[0].sites in specs/mine.toml).",
        "(quantize[0].bits in specs/mine.toml).",
        "(quantize[0] in specs/mine.toml).",
        "(bogus in specs/mine.toml).",
    ]


def test_what_is_missing_is_named(told):
    assert told({}) == ['A spec needs "train".']


def test_network_and_data_of_ones_own_are_left_out(table):
    spec = read_spec({"train": table["train"], "data": {"workers": 2}})
    assert spec.model.is_own
    assert spec.data == DataSpec(workers=2)
    assert read_spec(tomllib.loads(spec_to_toml(spec))) == spec


def test_what_is_about_a_data_set_needs_its_name(told, table):
    assert told(table | {"data": {"validation": 0.5}}) == [
        "validation has no effect without the name of a data set: add name, or leave it out; received 0.5 (data)."
    ]


def test_an_unknown_key_without_a_neighbour_shows_the_known_ones(told, table):
    table["data"]["zzz"] = 1
    (line,) = told(table)
    assert line.startswith('Unknown key "zzz"; a [data] table has "name", "root", ')


def test_an_int_is_fine_where_a_number_is_wanted(table):
    table["train"]["optimizer"]["lr"] = 1
    assert read_spec(table).train.optimizer.lr == 1.0


@pytest.mark.parametrize(
    "rule", [{"finish": "35%", "schedule": {"kind": "layerwise"}}, {"schedule": {"kind": "layerwise", "finish": "35%"}}]
)
def test_a_finish_stands_on_the_rule_or_in_its_schedule(table, rule):
    (made,) = read_spec(table | {"prune": [{"sites": [SITE], "sparsity": 0.5} | rule]}).prune
    assert made.schedule == Layerwise(sparsity=0.5, finish="35%")


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (
            {"finish": "35%", "schedule": {"kind": "layerwise", "start": 1, "interval": 3}},
            'give start, interval and refresh, or finish = "35%" (a share of the run) instead; '
            "received start, interval and finish (prune[0].schedule).",
        ),
        (
            {"start": 1, "schedule": {"kind": "stepwise"}},
            'give start and every, or finish = "35%" (a share of the run) instead; received start (prune[0].schedule).',
        ),
        (
            {"schedule": {"kind": "one-shot", "at": "1ep", "finish": "35%"}},
            'give at, or finish = "35%" (a share of the run) instead; received at and finish (prune[0].schedule).',
        ),
        (
            {"finish": "135%", "schedule": {"kind": "layerwise"}},
            'finish must be a share of the run such as "35%", above "0%" and at most "100%", or a duration of at least '
            'one step such as "7ep", "800it" or 800; received \'135%\' (prune[0].finish).',
        ),
        (
            {"schedule": {"kind": "layerwise", "start": "35%", "interval": 3, "refresh": 1}},
            'start must be a duration such as "0.5ep", "800it" or 800; received \'35%\' (prune[0].schedule.start).',
        ),
        (
            {"finsh": "35%", "schedule": {"kind": "layerwise"}},
            'Unknown key "finsh"; nearest: "finish" (prune[0].finsh).',
        ),
        (
            {"strat": 1, "schedule": {"kind": "stepwise", "every": 3}},
            'Unknown key "strat"; nearest: "start" (prune[0].strat).',
        ),
    ],
)
def test_a_schedule_has_its_moments_or_a_finish(told, table, rule, line):
    assert told(table | {"prune": [{"sites": [SITE], "sparsity": 0.5} | rule]}) == [line]


def test_sparsity_and_start_on_the_rule_reach_the_schedule(table):
    rule = {"sites": [SITE], "sparsity": 0.5, "start": "1ep"}
    rule["schedule"] = {"kind": "layerwise", "interval": "2it", "refresh": 1}
    (made,) = read_spec(table | {"prune": [rule]}).prune
    assert made.schedule == Layerwise(sparsity=0.5, start="1ep", interval="2it", refresh=1)


def test_a_table_of_sparsities_or_bits_is_read(table):
    rule = {"sites": [SITE], "sparsity": {"stage1.*": 0.3, "*": 0.5}, "schedule": AT_ONCE}
    bits = {"sites": [SITE], "bits": {"stem": 8, "*": 4}, "start": 3}
    spec = read_spec(table | {"prune": [rule], "quantize": [bits]})
    assert spec.prune[0].schedule == OneShot(sparsity={"stage1.*": 0.3, "*": 0.5}, at=AT_ONCE["at"])
    assert spec.prune[0].for_layer("stage1.act").schedule.sparsity == 0.3
    assert spec.quantize[0].bits == per_path({"*": 4, "stem": 8})
    assert spec.quantize[0].for_layer("stem").bits == 8


def test_an_inherited_rule_needs_no_sparsity(table):
    (rule,) = read_spec(table | {"prune": [{"sites": [SITE], "schedule": {"kind": "inherited"}}]}).prune
    assert rule.schedule == Inherited()


def test_a_quantize_rule_takes_start_or_a_schedule(table):
    rules = [{"start": "2it"}, {"schedule": {"kind": "quantize-from", "start": "2it", "measure": 3}}]
    read = read_spec(table | {"quantize": [{"sites": [SITE], "bits": 4} | rule for rule in rules]}).quantize
    assert [rule.schedule for rule in read] == [QuantizeFrom("2it"), QuantizeFrom("2it", measure=3)]


def test_every_other_key_of_a_model_or_a_layer_is_an_option(table):
    schedule = {"kind": "one-shot", "sparsity": 0.5, "at": 3}
    layer = {"type": "PrunedConv2d", "from": "input", "out_channels": 5, "schedule": schedule}
    (read,) = read_spec(table | {"model": {"layers": [layer]}}).model.layers
    assert read.sources == ("input",)
    assert read.options == {"out_channels": 5, "schedule": OneShot(0.5, 3)}
    assert read_spec(table | {"model": {"arch": "unet", "chained": False}}).model.options == {"chained": False}


@pytest.mark.parametrize("at", ["input", "output", "weight"])
def test_random_importance_fits_every_site(table, at):
    rule = {"sites": [{"types": ["Conv2d"], "at": at}], "importance": "random", "sparsity": 0.5, "schedule": AT_ONCE}
    assert read_spec(table | {"prune": [rule]}).prune[0].importance == "random"


WORDS = """data model train prune quantize sites types paths at skip schedule kind sparsity start optimizer name lr
    layers lr_schedule milestones betas mean std augment from repeat type arch width length batch bits options zzz"""
KEYS = st.sampled_from(sorted(set(WORDS.split())))
SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.sampled_from(["sgd", "1ep", "layerwise", "at"])
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=9
)
TABLE = st.dictionaries(KEYS, ANYTHING, max_size=5)
TABLES = st.fixed_dictionaries(
    {"model": TABLE, "train": TABLE, "prune": st.lists(TABLE, max_size=3)},
    optional={"data": TABLE, "quantize": st.lists(TABLE, max_size=3), "seed": ANYTHING},
)


@given(found=TABLES)
def test_any_table_gives_sentences(found):
    with pytest.raises(SpecError) as error:
        read_spec(found | {"numerics": "none"})
    assert all(re.fullmatch(r"\S.* .*\S\.", line) for line in str(error.value).split("\n"))


def test_a_table_without_an_end_is_told(told, table):
    table["model"] = table
    assert told(table) == ["A spec is nested a few levels deep; received tables or lists that go on and on."]


def test_repeats_of_repeats_are_counted(told, table):
    block = {"repeat": 10**6, "layers": [{"type": "ReLU", "repeat": 10**6}, {"type": "ReLU"}]}
    (line,) = told(table | {"model": {"layers": [block]}})
    assert line.startswith('A net has at most 5,000 layers; received 1,000,001,000,000; lower "repeat" (model')


BIG = 10**400


def test_a_whole_number_that_no_float_holds_is_told_with_the_other_mistakes(told, table):
    table["train"] |= {"batch": 0, "optimizer": {"name": "sgd", "lr": BIG}}
    assert told(table) == [
        "batch must be a whole number of at least 1; received 0 (train.batch).",
        f"lr must be a number greater than 0; received {shown(BIG)} (train.optimizer.lr).",
    ]


SCHEDULES = [
    OneShot(0.5, "2ep"), OneShot(0.5, 9, measure=3), Stepwise(0.75, "1ep", "200it"), Stepwise(0.75, 1, 2, times=3),
    Layerwise(0.5, 1, 3, 2), Layerwise(0.5, 1, 3, 2, order="reversed"), Inherited(),
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_pruning_schedule_comes_back_from_its_table(schedule):
    written = tomllib.loads(toml.dumps({"schedule": to_table(schedule)}))
    assert read_rules([{"sites": [SITE]} | written]).prune[0].schedule == schedule


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10**6), st.integers(1, 99), st.integers(1, 99))
def test_every_stepwise_comes_back_from_its_table(sparsity, start, every, times):
    schedule = Stepwise(sparsity, start, every, times)
    assert read_rules([{"sites": [SITE], "schedule": to_table(schedule)}]).prune[0].schedule == schedule


def test_reading_the_table_of_a_schedule_leaves_it_as_it_is():
    rule = {"sites": [SITE], "schedule": {"kind": "one-shot", "sparsity": 0.5, "at": 3}}
    before = deepcopy(rule)
    read_rules([rule])
    assert rule == before


def test_each_field_is_judged_once_where_nothing_is_wrong(table, monkeypatch):
    judged = []
    monkeypatch.setattr(values, "is_whole", lambda value: judged.append(value) or isinstance(value, int))
    read_spec(table | {"seed": 12345})
    assert judged.count(12345) == 2  # at least 0, and at most 2**63 - 1


@pytest.mark.parametrize("key", ["init", "name"])
@pytest.mark.parametrize("value", ["", " ", ".", "a\0b", "a" * 256, "runs/" + "ü" * 128, "a/" * 600 + "b" * 500])
def test_names_that_no_file_system_takes_are_refused(key: str, value: str) -> None:
    with pytest.raises(SpecError, match=rf"^{key} must be (the name of a run|a relative path)"):
        read_spec("digits/baseline", {key: value})
