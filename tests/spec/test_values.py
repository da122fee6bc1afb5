"""Specs made in Python are checked by the same rules as those in TOML."""

import pickle

import pytest

from qprune.errors import SpecError
from qprune.schedules import OneShot
from qprune.spec import DataSpec, LayerSpec, ModelSpec, OptimizerSpec, PruneRule, Selector, TrainSpec, read_spec
from qprune.spec.values import listed, shown


def test_lists_become_tuples_and_ints_floats():
    site = Selector(["ReLU"], at="output", skip=[0, -1])
    assert (site.types, site.skip) == (("ReLU",), (0, -1))
    assert repr(OptimizerSpec("sgd", lr=1).lr) == "1.0"
    assert DataSpec("x", mean=[0, 1], std=(1, 2)).mean == (0.0, 1.0)


def test_values_are_checked_where_they_are_made():
    with pytest.raises(SpecError, match=r"^lr must be a number greater than 0; received \"0.1\"$"):
        OptimizerSpec("sgd", lr="0.1")
    with pytest.raises(SpecError, match=r"^optimizer must be a table; received "):
        TrainSpec(length=3, batch=3, optimizer="sgd")


def test_an_importance_that_does_not_fit_is_refused():
    with pytest.raises(SpecError, match='for a site at = "weight"'):
        PruneRule([Selector(["Conv2d"], at="weight")], OneShot(0.5, 3))


def test_a_block_with_a_name_twice_is_refused():
    with pytest.raises(SpecError, match='"a" appears 2 times'):
        LayerSpec(layers=(LayerSpec("ReLU", name="a"), LayerSpec("ReLU", name="a")))


def test_specs_compare_hash_and_pickle(table):
    spec = read_spec(table)
    assert spec == read_spec(table)
    assert hash(spec) == hash(read_spec(table))
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_specs_never_change():
    model = ModelSpec("unet")
    with pytest.raises(AttributeError):
        model.arch = "frrn_b"


def test_long_values_are_cut():
    assert len(shown("x" * 999)) == 80


def test_one_word_is_listed_alone():
    assert listed(["a"]) == '"a"'


def test_the_error_survives_pickling():
    with pytest.raises(SpecError) as error:
        read_spec({})
    assert pickle.loads(pickle.dumps(error.value)).mistakes == error.value.mistakes
