"""What is written reads back as the same spec."""

import tomllib
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprune.errors import SpecError
from qprune.schedules import Inherited, Layerwise, OneShot, QuantizeFrom, Stepwise
from qprune.spec import (
    DataSpec,
    LayerSpec,
    LrSpec,
    ModelSpec,
    OptimizerSpec,
    PruneRule,
    QuantizeRule,
    Selector,
    Spec,
    TaskSpec,
    TrainSpec,
    read_spec,
    spec_to_toml,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
LINE = TEXT.filter(lambda text: "\n" not in text)
WORD = TEXT.filter(lambda text: text.strip())
NAME = st.from_regex(r"[a-z][a-z0-9_@]{0,5}(/[a-z][a-z0-9_]{0,5})?", fullmatch=True)
OPTION = st.from_regex(r"opt_[a-z]{1,4}", fullmatch=True) | st.just("odd key ß\x7f")
VALUE = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(OPTION, inner, max_size=2),
    max_leaves=4,
)
OPTIONS = st.dictionaries(OPTION, VALUE, max_size=2)
DURATION = st.integers(1, 999) | st.integers(1, 99).map("{}it".format) | st.sampled_from(["0.5ep", "3ep", "0.125ep"])
SHARE = st.floats(0, 1, exclude_max=True)
ABOVE = st.floats(1e-8, 1)
STRINGS = st.lists(TEXT.filter(bool), max_size=2).map(tuple)


def chosen(*values):
    return st.sampled_from(values)


def selectors(*places):
    types = st.lists(chosen("Conv2d", "ReLU", "*.äö"), min_size=1, max_size=2).map(tuple)
    skip = st.lists(st.integers(-2, 2), max_size=2).map(tuple)
    return st.builds(Selector, types, STRINGS, at=chosen(*places), skip=skip, exclude=STRINGS)


def sites(*places):
    return st.lists(selectors(*places), min_size=1, max_size=3).map(tuple)


def numbers(number):
    """A number, or a table of them from patterns on module paths."""
    return number | st.dictionaries(chosen("stage1.*", "*", "stem", "*.äö"), number, min_size=1)


prunings = (
    st.builds(OneShot, numbers(SHARE), DURATION, DURATION)
    | st.builds(Stepwise, numbers(SHARE), DURATION, DURATION, st.integers(1, 6))
    | st.builds(Layerwise, numbers(SHARE), DURATION, DURATION, DURATION, chosen("flow", "reversed"))
    | st.just(Inherited())
)
quantizings = st.builds(QuantizeFrom, DURATION, DURATION)


def prune_rules(places, importances):
    return st.builds(
        PruneRule, sites(*places), prunings, chosen(*importances), st.integers(1, 9), STRINGS, st.booleans()
    )


prune = prune_rules(("input", "output"), ("activation-l1", "activation-l0", "random")) | prune_rules(
    ("weight",), ("weight-l1", "random")
)


def quantize_rules(range, *gradients):
    return st.builds(
        QuantizeRule,
        sites("input", "weight", "output"),
        numbers(st.integers(2, 8)),
        chosen("tensor", "channel"),
        chosen(None, True, False),
        chosen(None, *gradients),
        range=st.just(range),
        schedule=quantizings,
        exclude=STRINGS,
    )


quantize = quantize_rules("measured", "straight", "clipped") | quantize_rules("learned", "clipped")
options = st.tuples(OPTIONS, st.dictionaries(chosen("schedule", "quant_schedule"), prunings | quantizings, max_size=1))
layer = st.builds(
    LayerSpec,
    chosen("Conv2d", "Add"),
    sources=st.none() | STRINGS,
    repeat=st.integers(1, 3),
    options=options.map(lambda pair: pair[0] | pair[1]),
)
block = st.builds(LayerSpec, name=st.none() | WORD, layers=st.lists(layer, min_size=1, max_size=2).map(tuple))
START = st.fixed_dictionaries({}, optional={"weights": WORD}) | st.fixed_dictionaries({"weights_backbone": WORD})
named = st.builds(lambda arch, width, start, options: ModelSpec(arch, width, options=options, **start),
                  WORD, ABOVE, START, OPTIONS)  # fmt: skip
model = named | st.builds(ModelSpec, layers=st.lists(layer | block, min_size=1, max_size=1).map(tuple))
data = st.builds(
    DataSpec,
    WORD,
    st.none() | WORD,
    st.none() | st.integers(1, 99) | st.tuples(st.integers(1, 99), st.integers(1, 99)),
    st.none() | st.lists(st.builds(lambda name, rest: {"name": name} | rest, TEXT, OPTIONS), max_size=2).map(tuple),
    *[st.just((0.25, 0.5)) | st.just((1, 2.0))] * 2,
    SHARE,
    st.none() | st.integers(1, 99),
    st.integers(0, 3),
    st.booleans(),
    chosen("AtoB", "BtoA"),
    st.booleans(),
    resize=st.none() | st.integers(99, 999),
    interpolation=st.none() | chosen("nearest", "bilinear", "bicubic"),
)
optimizer = st.builds(OptimizerSpec, st.just("sgd"), ABOVE, SHARE, SHARE) | st.builds(
    OptimizerSpec, chosen("adam", "adamw"), ABOVE, weight_decay=SHARE, betas=st.tuples(SHARE, SHARE)
)
lr_schedule = (
    st.builds(LrSpec, warmup=DURATION)
    | st.builds(LrSpec, st.just("multistep"), st.lists(DURATION, min_size=1, max_size=3).map(tuple), ABOVE)
    | st.builds(LrSpec, st.just("linear"), decay_from=DURATION, final=SHARE)
)
train = st.builds(
    TrainSpec,
    length=DURATION,
    batch=st.integers(1, 999),
    validate_every=DURATION,
    optimizer=optimizer,
    lr_schedule=lr_schedule,
    channels_last=st.booleans(),
)
specs = st.builds(
    Spec,
    name=NAME,
    about=LINE,
    init=st.none() | WORD.filter(lambda text: "\0" not in text and PurePosixPath(text).parts),
    published=st.booleans(),
    aka=st.none() | WORD,
    seed=st.integers(0, 2**40),
    numerics=chosen("default", "paper", "exact"),
    data=data,
    task=st.builds(TaskSpec, WORD, OPTIONS),
    model=model,
    train=train,
    prune=st.lists(prune, max_size=2).map(tuple),
    quantize=st.lists(quantize, max_size=2).map(tuple),
)


@given(spec=specs)
def test_what_is_written_reads_back_as_the_same_spec(spec):
    assert read_spec(tomllib.loads(spec_to_toml(spec))) == spec
    assert read_spec(spec.to_dict()) == spec


@pytest.fixture
def spec(table):
    rule = {"sites": [{"types": ["ReLU"], "at": "output"}, {"paths": ["*.x"], "at": "input"}], "sparsity": 0.75}
    rule["schedule"] = {"kind": "one-shot", "at": "2ep", "measure": 3}
    bits = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "start": "0.5ep"}
    return read_spec(table | {"name": "net/mine", "prune": [rule], "quantize": [bits]})


def test_the_text_reads_like_a_hand_written_file(spec):
    assert (
        spec_to_toml(spec)
        == """\
format = 1
name = "net/mine"

[data]
name = "digits"

[model]
arch = "mobilenetv2"

[train]
length = "3ep"
batch = 7
optimizer = { name = "sgd", lr = 0.1 }

[[prune]]
sites = [
    { types = ["ReLU"], at = "output" },
    { paths = ["*.x"], at = "input" },
]
sparsity = 0.75
schedule = { kind = "one-shot", at = "2ep", measure = 3 }

[[quantize]]
sites = [{ types = ["Conv2d"], at = "weight" }]
bits = 4
start = "0.5ep"
"""
    )


def test_a_finish_is_written_into_the_schedule(table):
    rule = {"sites": [{"types": ["ReLU"], "at": "output"}], "sparsity": 0.5, "finish": "35%"}
    spec = read_spec(table | {"prune": [rule | {"schedule": {"kind": "layerwise"}}]})
    text = spec_to_toml(spec)
    assert 'schedule = { kind = "layerwise", finish = "35%" }' in text.splitlines()
    assert read_spec(tomllib.loads(text)) == spec


def test_tables_from_patterns_are_written_in_one_line(table):
    rule = {"sites": [{"types": ["ReLU"], "at": "output"}], "sparsity": {"stage1.*": 0.3, "*": 0.5}}
    rule["schedule"] = {"kind": "one-shot", "at": "2ep"}
    bits = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": {"stem": 8, "*": 4}, "start": "0.5ep"}
    lines = spec_to_toml(read_spec(table | {"prune": [rule], "quantize": [bits]})).splitlines()
    assert 'sparsity = { "stage1.*" = 0.3, "*" = 0.5 }' in lines
    assert 'bits = { stem = 8, "*" = 4 }' in lines


def test_a_written_file_reads_back_under_its_own_name(spec, write):
    path = write("runs/net/mine/spec.toml", spec_to_toml(spec), head="")
    assert read_spec(path) == spec


def test_a_table_of_a_spec_shares_nothing_with_it(table):
    spec = read_spec(table | {"model": {"arch": "unet", "sizes": [[3]]}})
    spec.to_dict()["model"]["sizes"][0].append(5)
    assert spec.model.options == {"sizes": [[3]]}


def test_none_cannot_be_written(table):
    spec = read_spec(table | {"model": {"layers": [{"type": "ReLU", "inplace": None}]}})
    with pytest.raises(SpecError, match="TOML cannot hold None: leave the option out"):
        spec_to_toml(spec)
