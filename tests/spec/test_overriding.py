"""Overrides reach any key, and lead nowhere without saying so."""

import pytest

from qprune.spec import read_spec

SITE = {"types": ["ReLU"], "at": "output"}
PRUNE = [{"sites": [SITE], "sparsity": 0.75, "schedule": {"kind": "one-shot", "at": "2ep"}}]


@pytest.mark.parametrize("overrides", [["train.batch=3"], {"train.batch": "3"}, {"train.batch": 3}, "train.batch = 3"])
def test_overrides_are_text_or_a_mapping(table, overrides):
    assert read_spec(table, overrides).train.batch == 3


def test_text_that_is_no_toml_is_a_string(table):
    assert read_spec(table, ["train.length=5ep", "init=digits/base"]).init == "digits/base"


def test_text_cannot_smuggle_in_other_keys(told, table):
    (line,) = told(table, {"seed": "1\nabout = 2"})
    assert line.startswith('seed must be a whole number of at least 0; received "1\\nabout = 2" (seed in override ')


@pytest.mark.parametrize("key", ["prune.0.sparsity", "prune[0].sparsity"])
def test_entries_of_lists_are_counted_from_0(table, key):
    assert read_spec(table | {"prune": PRUNE}, [f"{key}=0.5"]).prune[0].schedule.sparsity == 0.5


def test_tables_that_are_not_there_are_made(table):
    assert read_spec(table, ["train.lr_schedule.warmup=1ep"]).train.lr_schedule.warmup == "1ep"


def test_a_whole_table_can_be_given(table):
    spec = read_spec(table, ['train.optimizer={name="adam", lr=1e-3}'])
    assert (spec.train.optimizer.name, spec.train.optimizer.lr) == ("adam", 0.001)


def test_arch_replaces_layers(table):
    declared = table | {"model": {"layers": [{"type": "ReLU"}]}}
    assert read_spec(declared, ["model.arch=unet"]).model.layers == ()


def test_a_misspelt_key_is_told_with_its_neighbour(told, table):
    assert told(table, ["train.lenght=3ep"]) == [
        'Unknown key "lenght"; nearest: "length" (train.lenght in override train.lenght=3ep).'
    ]
    assert told(table, ["trian.length=3ep"]) == [
        'Unknown key "trian"; nearest: "train" (trian in override trian.length=3ep).'
    ]


def test_a_bad_value_names_its_override(told, table):
    assert told(table, ["train.batch=0"]) == [
        "batch must be a whole number of at least 1; received 0 (train.batch in override train.batch=0)."
    ]


def test_an_override_blames_only_what_it_wrote(told, table):
    rule = PRUNE[0] | {"multiple_of": 0}
    assert told(table | {"prune": [rule]}, ["prune.0.sparsity=2"]) == [
        "sparsity must be in [0, 1); received 2 (prune[0].sparsity in override prune.0.sparsity=2).",
        "multiple_of must be a whole number of at least 1; received 0 (prune[0].multiple_of).",
    ]


def test_paths_that_lead_nowhere_are_all_told(told, table):
    overrides = ["seed.x=1", "prune.1.sparsity=0.5", "prune.first.sparsity=0.5"]
    assert told(table | {"prune": PRUNE, "seed": 3}, overrides) == [
        'seed is no table and has no "x" (override seed.x=1).',
        'prune has 1 entry, counted from 0, and none is "1" (override prune.1.sparsity=0.5).',
        'prune has 1 entry, counted from 0, and none is "first" (override prune.first.sparsity=0.5).',
    ]


def test_an_override_without_a_value_is_told(told, table):
    assert told(table, ["train.batch"]) == ['An override must read key.path=value; received "train.batch".']
