"""What is told of a measurement."""

import io

import pytest

from qprune.budget import Shown


@pytest.mark.parametrize(("seconds", "told"), [(0.1, "2 seconds"), (89, "89 seconds"), (100, "2 minutes")])
def test_the_cost_is_told_in_seconds_or_minutes(seconds, told):
    Shown(2, out := io.StringIO()).cost("7 layers", seconds)
    assert out.getvalue() == f"7 layers: about {told}.\n"


def test_nothing_is_told_to_whoever_wants_silence():
    shown = Shown(0, out := io.StringIO())
    shown.cost("7 layers", 1.0)
    with shown.bar(3) as bar:
        bar.update()
    assert out.getvalue() == ""


def test_another_verbosity_is_refused():
    with pytest.raises(ValueError, match='verbose must be "auto", 0'):
        Shown(3, io.StringIO())
