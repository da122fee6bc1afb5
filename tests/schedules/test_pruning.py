import re

import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from qprune.schedules import Inherited, Layerwise, OneShot, Stepwise, Timeline

CIFAR = 391  # steps per epoch at batch 128


def test_one_shot_measures_then_prunes_once():
    timeline = OneShot(sparsity=0.75, at=500, measure=50).timeline()
    assert timeline == Timeline(measure=(450, 500), refreshes=((500, 0.75),), end=500)


def test_one_shot_measures_from_step_0_where_there_is_no_more_time():
    assert OneShot(sparsity=0.5, at=3, measure=9).timeline().measure == (0, 3)


def test_one_shot_simulates():
    assert OneShot(sparsity=0.5, at="1ep").simulate(6, steps_per_epoch=4) == [0, 0, 0, 0, 0.5, 0.5]


def test_stepwise_rises_along_the_published_cubic():
    schedule = Stepwise(sparsity=0.75, start=0, every=1)
    values = [sparsity for _, sparsity in schedule.timeline().refreshes]
    assert values == pytest.approx([0.75 * share for share in (0.488, 0.784, 0.936, 0.992, 1)])
    assert values == pytest.approx([0.366, 0.588, 0.702, 0.744, 0.75])
    assert values[-1] == 0.75


def test_stepwise_simulates():
    schedule = Stepwise(sparsity=0.5, start=2, every=2, times=2)
    assert schedule.simulate(7) == [0, 0, 0.4375, 0.4375, 0.5, 0.5, 0.5]


def test_stepwise_measures_from_one_interval_before_its_start_to_its_last_refresh():
    assert Stepwise(sparsity=0.5, start=10, every=4, times=3).timeline().measure == (6, 18)


def test_layerwise_site_measures_for_an_interval_and_freezes_at_its_last_refresh():
    schedule = Layerwise(sparsity=0.5, start=10, interval=7, refresh=3)
    first = schedule.timeline()
    assert first.measure == (10, 16)
    assert first.refreshes == ((13, 0.5), (16, 0.5))
    assert (first.freeze, first.end) == (16, 18)


def test_layerwise_site_begins_where_the_one_before_it_ended():
    schedule = Layerwise(sparsity=0.5, start="0.5ep", interval="0.125ep", refresh="0.025ep")
    for index in range(5):
        before, after = (schedule.slot(i, CIFAR).timeline() for i in (index, index + 1))
        assert before.freeze < before.end == after.measure[0]


def test_layerwise_simulates_its_first_site():
    assert Layerwise(sparsity=0.5, start=1, interval=2, refresh=2).simulate(5) == [0, 0, 0, 0.5, 0.5]


def test_inherited_does_nothing():
    assert Inherited().timeline() == Timeline()
    assert Inherited().simulate(3) == [0, 0, 0]
    assert Inherited().timeline().freeze is None


LAYERWISE = {
    # start, interval, refresh, steps per epoch, sites, first step and end of the sequence
    "densenet121": ("0.5ep", "0.125ep", "0.025ep", CIFAR, 120, 196, 6196),
    "mobilenetv2": ("0.5ep", "0.125ep", "0.025ep", CIFAR, 53, 196, 2846),
    "preactresnet18_activations": ("0.5ep", "0.125ep", "0.025ep", CIFAR, 17, 196, 1046),
    "preactresnet18_weights": ("0.5ep", "0.125ep", "0.025ep", CIFAR, 20, 196, 1196),
    "unet": (10, 175, 10, None, 22, 10, 3882),
    "frrn_b": (10, 175, 10, None, 77, 10, 13562),
    "cyclegan": ("0.1ep", "0.5ep", "0.1ep", 2975, 17, 298, 25611),
    "pix2pix": ("0.1ep", "0.5ep", "0.1ep", 992, 15, 99, 7554),
    "pix2pix_without_its_output_layer": ("0.1ep", "0.5ep", "0.1ep", 992, 14, 99, 7057),
}


@pytest.mark.parametrize(
    ("start", "interval", "refresh", "epoch", "sites", "first", "end"), LAYERWISE.values(), ids=LAYERWISE
)
def test_layerwise_ends_where_the_published_experiment_did(start, interval, refresh, epoch, sites, first, end):
    schedule = Layerwise(sparsity=0.75, start=start, interval=interval, refresh=refresh)
    assert schedule.slot(0, epoch).timeline().measure[0] == first
    assert schedule.slot(sites - 1, epoch).timeline().end == end


def test_published_layerwise_refreshes_every_10_of_49_steps():
    schedule = Layerwise(sparsity=0.75, start="0.5ep", interval="0.125ep", refresh="0.025ep")
    assert schedule.timeline(CIFAR).refreshes == tuple((196 + t, 0.75) for t in (10, 20, 30, 40))


@pytest.mark.parametrize("end", [6196, 2846, 1046, 1196, 3882, 13562, 25611, 7057])
def test_one_shot_fires_where_layerwise_ends(end):
    timeline = OneShot(sparsity=0.75, at=end, measure="0.125ep").timeline(CIFAR)
    assert timeline.freeze == timeline.end == end
    assert timeline.measure == (end - 49, end)


STEPWISE = {
    "densenet121": ("36ep", "0.5ep", CIFAR, 14076, 14860),
    "mobilenetv2": ("6ep", "0.5ep", CIFAR, 2346, 3130),
    "preactresnet18": ("0.5ep", "0.5ep", CIFAR, 196, 980),
    "citys": (12000, 500, None, 12000, 14000),
    "cyclegan": ("6ep", "0.5ep", 2975, 17850, 23802),
}


@pytest.mark.parametrize(("start", "every", "epoch", "first", "end"), STEPWISE.values(), ids=STEPWISE)
def test_stepwise_ends_where_the_published_experiment_did(start, every, epoch, first, end):
    timeline = Stepwise(sparsity=0.75, start=start, every=every).timeline(epoch)
    assert timeline.refreshes[0][0] == first
    assert timeline.freeze == timeline.end == end


durations = st.one_of(
    st.integers(1, 10**6),
    st.integers(1, 10**6).map("{}it".format),
    st.decimals("0.001", "400", places=3).map("{}ep".format),
)
finishes = st.one_of(durations, st.decimals("0.001", "100", places=3).map("{}%".format))
sparsities = st.floats(0, 1, exclude_max=True)
schedules = st.one_of(
    st.builds(OneShot, sparsity=sparsities, at=durations, measure=durations),
    st.builds(Stepwise, sparsity=sparsities, start=durations, every=durations, times=st.integers(1, 9)),
    st.builds(
        Layerwise,
        sparsity=sparsities,
        start=durations,
        interval=durations,
        refresh=durations,
        order=st.sampled_from(["flow", "registration", "reversed"]),
    ),
    st.builds(Inherited),
    st.builds(OneShot, sparsity=sparsities, measure=durations, finish=finishes),
    st.builds(Stepwise, sparsity=sparsities, times=st.integers(1, 9), finish=finishes),
    st.builds(Layerwise, sparsity=sparsities, finish=finishes),
)


@given(schedules)
def test_repr_can_be_pasted_back(schedule):
    assert eval(repr(schedule)) == schedule


def test_repr_reads_like_the_call():
    assert repr(Stepwise(0.75, "1ep", 200)) == "Stepwise(sparsity=0.75, start='1ep', every=200, times=5)"


@given(schedules)
def test_equal_schedules_are_one_value(schedule):
    twin = evolve(schedule)
    assert twin == schedule
    assert hash(twin) == hash(schedule)
    assert len({twin, schedule}) == 1


def test_schedules_with_another_value_differ():
    schedule = Layerwise(0.5, 10, 7, 3)
    assert schedule != evolve(schedule, order="reversed")
    assert schedule != evolve(schedule, start=11)
    assert OneShot(0.5, 10) != Stepwise(0.5, 10, 1)


def test_schedule_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        OneShot(0.5, 10).sparsity = 0.7


@given(sparsities, st.integers(0, 50), st.integers(1, 9), st.integers(1, 9))
def test_stepwise_never_falls_and_ends_at_its_sparsity(sparsity, start, every, times):
    values = Stepwise(sparsity, start, every, times).simulate(start + every * times)
    assert values == sorted(values)
    assert values[-1] == sparsity


@pytest.mark.parametrize("sparsity", [1, 1.5, -0.1, float("nan"), "0.5", True, None])
def test_sparsity_outside_its_range_is_refused(sparsity):
    for make in (lambda s: OneShot(s, 1), lambda s: Stepwise(s, 1, 1), lambda s: Layerwise(s, 1, 1, 1)):
        with pytest.raises(ValueError, match=r"^sparsity must be in \[0, 1\); received ") as error:
            make(sparsity)
        assert str(error.value).endswith(repr(sparsity))


def test_malformed_duration_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r'^start must be a duration such as "0.5ep", "800it" or 800; received \'2 ep\'$'
    ):
        Stepwise(0.5, "2 ep", 1)
    with pytest.raises(ValueError, match=r'^at must be a duration such as "0.5ep", "800it" or 800; received -1$'):
        OneShot(0.5, -1)


@pytest.mark.parametrize("nothing", [0, "0it", "00it"])
def test_interval_of_no_steps_is_refused(nothing):
    for name, make in {
        "measure": lambda d: OneShot(0.5, 1, measure=d),
        "every": lambda d: Stepwise(0.5, 1, every=d),
        "interval": lambda d: Layerwise(0.5, 1, interval=d, refresh=1),
        "refresh": lambda d: Layerwise(0.5, 1, interval=1, refresh=d),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} must be at least one step; received {nothing!r}$"):
            make(nothing)


@pytest.mark.parametrize("times", [0, -1, 2.0, True, "3"])
def test_times_that_is_no_count_is_refused(times):
    with pytest.raises(ValueError, match=f"^times must be a whole number of at least 1; received {times!r}$"):
        Stepwise(0.5, 1, 1, times=times)


def test_unknown_order_is_refused():
    with pytest.raises(ValueError, match=r"^order must be \"flow\", \"registration\" or \"reversed\"; received 'up'$"):
        Layerwise(0.5, 1, 2, 1, order="up")


def test_refresh_longer_than_interval_is_refused():
    schedule = Layerwise(0.5, start=1, interval="0.1ep", refresh=8)
    with pytest.raises(ValueError, match=r"^refresh \(8 steps\) must not be longer than interval \(5 steps\)$"):
        schedule.timeline(steps_per_epoch=50)


TABLE = {"stage1.*": 0.25, "*": 0.5}


@pytest.mark.parametrize(
    "make",
    [
        lambda sparsity: OneShot(sparsity, at=3),
        lambda sparsity: Stepwise(sparsity, start=3, every=2, times=3),
        lambda sparsity: Layerwise(sparsity, start=1, interval=3, refresh=3),
    ],
)
def test_a_table_of_sparsities_gives_each_layer_its_schedule(make):
    schedule = make(TABLE)
    assert schedule.for_layer("stage1.0.conv") == make(0.25)
    assert schedule.for_layer("stem") == make(0.5)
    assert make(0.5).for_layer("stem") == make(0.5)
    assert hash(schedule) == hash(make(dict(reversed(TABLE.items()))))
    with pytest.raises(ValueError, match=r"^sparsity is a table from patterns on module paths, which a rule"):
        schedule.timeline()


@pytest.mark.parametrize("value", [{"a": 1.5}, {"a": True}, {"a": "0.5"}, {}, "0.5", {"a": {"b": 0.5}}, {3: 0.5}])
def test_a_table_of_what_is_no_sparsity_is_refused(value):
    with pytest.raises(ValueError, match=r"^sparsity must be in \[0, 1\); received "):
        OneShot(value, at=3)


def test_an_inherited_schedule_is_the_same_for_every_layer():
    assert Inherited().for_layer("stem") == Inherited()


# finish


def test_layerwise_sites_are_over_by_the_finish_and_share_the_time_evenly():
    spread = Layerwise(0.5, finish="35%").spread(sites=7, steps=1000)
    assert spread == Layerwise(0.5, start=0, interval=49, refresh=9)
    assert spread.slot(6).timeline().end == 350
    assert spread.slot(6).timeline().freeze == 345


def test_stepwise_ends_at_the_finish_and_measures_before_its_first_refresh_as_long_as_between_them():
    timeline = Stepwise(0.5, times=4, finish="40%").timeline(steps=50)
    assert [step for step, _ in timeline.refreshes] == [5, 10, 15, 20]
    assert timeline.measure == (0, 20)


def test_one_shot_prunes_at_the_finish():
    assert OneShot(0.5, finish="50%", measure=3).timeline(steps=30) == OneShot(0.5, at=15, measure=3).timeline()


def test_a_finish_may_be_a_duration():
    assert OneShot(0.5, finish="2ep").timeline(10) == OneShot(0.5, at=20).timeline()
    assert Layerwise(0.5, finish="30it").spread(sites=3) == Layerwise(0.5, start=0, interval=9, refresh=1)


def test_simulating_takes_the_run_to_be_as_long_as_what_is_simulated():
    assert OneShot(0.5, finish="50%").simulate(6) == [0, 0, 0, 0.5, 0.5, 0.5]
    assert Layerwise(0.5, finish="50%").simulate(4) == [0, 0.5, 0.5, 0.5]  # a sequence of one


def test_a_schedule_with_moments_is_spread_already():
    for schedule in (OneShot(0.5, 3), Stepwise(0.5, 1, 2), Layerwise(0.5, 1, 2, 1), Inherited()):
        assert schedule.spread(sites=5) is schedule


def test_a_share_without_the_length_of_the_run_is_refused():
    for schedule in (OneShot(0.5, finish="35%"), Stepwise(0.5, finish="35%"), Layerwise(0.5, finish="35%")):
        with pytest.raises(
            ValueError, match=r"^'35%' is a share of the run, whose length is not known here: pass steps"
        ):
            schedule.timeline(steps_per_epoch=10)


def test_a_place_in_a_sequence_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match=r"^finish = '35%' is shared by all sites of a sequence: call spread\("):
        Layerwise(0.5, finish="35%").slot(2)


def test_more_than_fits_before_the_finish_is_refused():
    sentence = (
        r"^finish = '35%' is step 7, and 4 sites one after the other take at least 8 steps; train longer "
        r"\(train.length\) or finish later$"
    )
    with pytest.raises(ValueError, match=sentence):
        Layerwise(0.5, finish="35%").spread(sites=4, steps=20)
    assert Layerwise(0.5, finish="40%").spread(sites=4, steps=20).slot(3).timeline().end == 8
    sentence = r"^finish = '10%' is step 2, and 3 refreshes take at least 3 steps; train longer \(train.length\) or "
    with pytest.raises(ValueError, match=sentence):
        Stepwise(0.5, times=3, finish="10%").timeline(steps=20)


@pytest.mark.parametrize(
    ("make", "names", "received"),
    [
        (lambda: OneShot(0.5, 3, finish="35%"), "at", "at and finish"),
        (lambda: Stepwise(0.5, 1, 2, finish="35%"), "start and every", "start, every and finish"),
        (
            lambda: Layerwise(0.5, 1, 2, 1, finish="35%"),
            "start, interval and refresh",
            "start, interval, refresh and finish",
        ),
        (lambda: Layerwise(0.5, start=1, finish="35%"), "start, interval and refresh", "start and finish"),
        (lambda: Layerwise(0.5, start=1), "start, interval and refresh", "start"),
        (lambda: Stepwise(0.5, every=1), "start and every", "every"),
        (lambda: OneShot(0.5), "at", "neither"),
    ],
)
def test_a_schedule_has_either_its_moments_or_a_finish(make, names, received):
    sentence = f'give {names}, or finish = "35%" (a share of the run) instead; received {received}'
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        make()


def test_a_malformed_finish_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^finish must be a share of the run such as \"35%\", .*; received '35'$"):
        Layerwise(0.5, finish="35")


def test_repr_says_nothing_of_what_is_not_given():
    assert repr(Layerwise(0.5, finish="35%")) == "Layerwise(sparsity=0.5, order='flow', finish='35%')"


@given(st.integers(1, 60), st.integers(1, 5000), st.decimals("0.1", "100", places=1))
def test_every_sequence_that_fits_is_over_by_its_finish(sites, steps, share):
    end = max(1, round(steps * float(share) / 100))
    schedule = Layerwise(0.5, finish=f"{share}%")
    if end < 2 * sites:
        with pytest.raises(ValueError, match=r"train longer"):
            schedule.spread(sites, steps=steps)
        return
    spread = schedule.spread(sites, steps=steps)
    last = spread.slot(sites - 1).timeline()
    assert end - sites < last.end <= end + 1  # the float above may round a half to the other side
    assert 1 <= spread.refresh <= spread.interval
    assert len(last.refreshes) <= 9
