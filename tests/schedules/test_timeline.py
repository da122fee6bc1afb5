from qprune.schedules import Inherited, Layerwise, OneShot, QuantizeFrom, Stepwise, Timeline


def test_measuring_is_half_open():
    timeline = Timeline(measure=(3, 5))
    assert [timeline.measuring(step) for step in range(2, 7)] == [False, True, True, False, False]


def test_measuring_without_a_last_step_goes_on():
    assert Timeline(measure=(3, None)).measuring(10**9)
    assert not Timeline(measure=(3, None)).measuring(2)


def test_sparsity_holds_until_the_next_refresh():
    timeline = Timeline(refreshes=((2, 0.25), (4, 0.5)))
    assert [timeline.sparsity_at(step) for step in range(6)] == [0, 0, 0.25, 0.25, 0.5, 0.5]
    assert timeline.freeze == 4


def test_steps_are_the_moments_at_which_something_happens():
    assert OneShot(0.5, at=9, measure=4).timeline().steps() == (5, 9)
    assert Stepwise(0.5, start=4, every=2, times=3).timeline().steps() == (2, 4, 6, 8)
    assert Layerwise(0.5, start=1, interval=4, refresh=2).timeline().steps() == (1, 3, 5)
    assert QuantizeFrom(200).timeline().steps() == (100, 200)


def test_inherited_has_no_moment():
    assert Inherited().timeline().steps() == ()
