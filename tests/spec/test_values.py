"""Specs made in Python are checked by the same rules as those in TOML."""

import json
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


@pytest.mark.parametrize("interval", ["500it", "0.5ep", "10min", "0.5min", 500])
def test_checkpoints_are_written_every_so_many_steps_epochs_or_minutes(interval: int | str) -> None:
    assert (
        read_spec("digits/baseline", {"train.checkpoint_every": json.dumps(interval)}).train.checkpoint_every
        == interval
    )


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("checkpoint_every", '"10 minutes"', r'received .10 minutes.; or give minutes, such as "10min"'),
        ("checkpoint_every", '"0min"', r'received .0min.; or give minutes, such as "10min"'),
        ("ema", "1.0", r"ema must be a number greater than 0 and less than 1; received 1.0"),
        ("clip_norm", "0", r"clip_norm must be a number greater than 0; received 0"),
        ("precision", '"half"', r'precision must be "float32", "bfloat16" or "float16"; received "half"'),
        ("accumulate", "0", r"accumulate must be a whole number of at least 1; received 0"),
    ],
)
def test_training_options_out_of_range_are_refused(key: str, value: str, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        read_spec("digits/baseline", {f"train.{key}": value})
