"""How quantizers come to their ranges, as values."""

import copy
import inspect
import pickle
from pathlib import Path

import pytest

from qprune.layers import QuantConv2d, make_quant
from qprune.numerics import NUMERICS, RANGES
from qprune.rounding import GRADIENTS
from qprune.schedules import QuantizeFrom
from qprune.spec import QuantizeRule, Selector

ROOT = Path(__file__).parents[2]
EACH = pytest.mark.parametrize("word", RANGES)


@EACH
def test_it_is_a_value_that_can_be_compared_copied_and_pickled(word):
    ranging = RANGES[word]
    assert copy.deepcopy(ranging) == pickle.loads(pickle.dumps(ranging)) == ranging == type(ranging)()


@EACH
def test_it_has_a_file_of_its_own_and_a_word_on_the_page_about_specs(word):
    assert Path(inspect.getfile(type(RANGES[word]))).stem == word
    assert f"\n- `{word}`: " in (ROOT / "docs/reference/specs.md").read_text(encoding="utf-8")


@EACH
def test_rules_and_layers_choose_it_by_its_word(word):
    rule = QuantizeRule([Selector(("Conv2d",), at="weight")], 4, range=word, schedule=QuantizeFrom(3))
    assert rule.range == word
    quant = make_quant(4, ranging=word)
    assert quant.ranging == word
    assert quant.gradient == RANGES[word].gradients[0]
    assert QuantConv2d(2, 3, 1, range=word).weight_quant.ranging == word
    assert bool(list(quant.parameters())) == RANGES[word].learned


@EACH
@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_quantizer_takes_what_it_has_no_problem_with(word, numerics, gradient):
    problem = RANGES[word].problem(numerics, NUMERICS[numerics], gradient)
    if not problem:
        assert make_quant(4, ranging=word, numerics=numerics, gradient=gradient).gradient == gradient
        return
    with pytest.raises(ValueError, match="received") as caught:
        make_quant(4, ranging=word, numerics=numerics, gradient=gradient)
    assert str(caught.value) == problem
