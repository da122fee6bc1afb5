import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprune.schedules import QuantizeFrom, Timeline


def test_range_is_measured_before_the_start_and_to_the_end():
    assert QuantizeFrom(200).timeline() == Timeline(measure=(100, None), activate=200, end=200)
    assert QuantizeFrom(50).timeline().measure == (0, None)
    assert QuantizeFrom("1ep", measure="0.5ep").timeline(10).measure == (5, None)


@pytest.mark.parametrize(("start", "step"), [("0.5ep", 196), ("0.05ep", 20)])
def test_published_start_in_steps(start, step):
    assert QuantizeFrom(start).timeline(391).activate == step


def test_quantizer_measures_one_step_before_it_acts():
    timeline = QuantizeFrom(0).timeline()
    assert timeline.activate == 1
    assert timeline.measuring(0)


def test_quantize_from_simulates():
    assert QuantizeFrom(2).simulate(4) == [False, False, True, True]
    assert QuantizeFrom("1ep").simulate(4, steps_per_epoch=3) == [False, False, False, True]


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_repr_can_be_pasted_back(start, measure):
    schedule = QuantizeFrom(f"{start}it", measure)
    assert eval(repr(schedule)) == schedule
    assert hash(eval(repr(schedule))) == hash(schedule)


def test_malformed_duration_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^start must be a duration such as .* received 'soon'$"):
        QuantizeFrom("soon")
    with pytest.raises(ValueError, match=r"^measure must be at least one step; received 0$"):
        QuantizeFrom(5, measure=0)
