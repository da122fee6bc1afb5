import pytest

from qprune.errors import PlanError, SpecError
from qprune.spec import mistakes_in, read_spec


def told(source, error):
    with pytest.raises(type(error)) as caught, mistakes_in(source):
        raise error
    return list(caught.value.mistakes)


def test_every_mistake_found_later_gets_the_file(complete):
    path = complete("specs/mine/first.toml")
    lines = ["act.output: it ends at step 12 (2.40 ep).", 'No layer matches "x" (prune[0].sites[1] in mine/first).']
    expected = [
        "act.output: it ends at step 12 (2.40 ep) (specs/mine/first.toml).",
        'No layer matches "x" (prune[0].sites[1] in specs/mine/first.toml).',
    ]
    for source in (path, "mine/first"):
        assert told(source, PlanError("\n".join(lines))) == expected


def test_what_comes_from_no_file_stays_as_it_is(table):
    assert told(table, SpecError("It is wrong.")) == ["It is wrong."]
    assert told(read_spec(table), PlanError("It is late.")) == ["It is late."]


def test_other_errors_pass(complete):
    with pytest.raises(KeyError), mistakes_in(complete("mine.toml")):
        raise KeyError("key")
