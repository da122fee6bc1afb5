import attrs
import pytest

from qprune import spec
from qprune.errors import SpecError
from qprune.schedules.tables import KINDS
from qprune.spec import DataSpec, LayerSpec, LrSpec, ModelSpec, QuantizeRule, TrainSpec
from qprune.spec.keys import keys_of

CLASSES = [*(cls for cls in vars(spec).values() if isinstance(cls, type) and attrs.has(cls)), *KINDS.values()]
JUDGED = [
    pytest.param(key, id=f"{cls.__name__}.{key.name}")
    for cls in CLASSES
    for key in keys_of(cls).values()
    if key.words and "duration" not in key.words  # of durations sentences say what is wrong with one
]


def test_keys_are_named_as_in_toml_and_come_in_the_order_of_the_fields():
    assert [*keys_of(LayerSpec)] == ["type", "name", "from", "repeat", "layers", "options"]


def test_a_key_without_a_default_is_needed():
    assert [key.name for key in keys_of(TrainSpec).values() if key.needed] == ["length", "batch", "optimizer"]


def test_the_default_is_the_value_that_a_table_without_the_key_gets():
    assert keys_of(LrSpec)["gamma"].default == LrSpec().gamma == 0.1
    assert keys_of(TrainSpec)["lr_schedule"].default == LrSpec()


def test_one_key_stands_for_all_that_have_no_field():
    assert [key.name for key in keys_of(ModelSpec).values() if key.free] == ["options"]
    assert not any(key.free for key in keys_of(DataSpec).values())


def test_words_are_those_of_the_error_also_where_a_key_may_be_left_out():
    assert keys_of(TrainSpec)["clip_norm"].words == "a number greater than 0"
    assert keys_of(QuantizeRule)["per"].words == '"tensor" or "channel"'
    assert keys_of(DataSpec)["size"].words == "a whole number from 1 to 16384, or [height, width]"


@pytest.mark.parametrize("key", JUDGED)
def test_a_value_of_no_known_type_is_refused_in_the_words_of_the_key(key):
    with pytest.raises(SpecError) as error:
        key.attribute.validator(None, key.attribute, object())
    assert str(error.value).startswith(f"{key.name} must be ")
    assert key.words.split(",")[0] in str(error.value)


def test_the_meaning_is_one_line_of_the_docstring():
    assert keys_of(TrainSpec)["batch"].about == "images per step, of all processes together."
    assert keys_of(DataSpec)["mean"].about == (
        "per channel, subtracted from images in [0, 1]; by default the data set's own."
    )
