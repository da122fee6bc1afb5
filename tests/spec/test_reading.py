"""Sources of a spec, and files that build on each other."""

from pathlib import Path

import pytest

from qprune.errors import PlanError, SpecError
from qprune.spec import mistakes_in, read_rules, read_spec


def test_a_path_and_its_text_give_the_same_spec(complete):
    path = complete("mine.toml")
    assert read_spec(path) == read_spec("mine.toml")


def test_a_file_below_specs_is_named_by_its_path(complete):
    assert read_spec(complete("some/specs/net/a75.toml")).name == "net/a75"


def test_another_file_is_named_by_its_stem(complete):
    assert read_spec(complete("some/a75.toml")).name == "a75"


def test_a_name_in_the_file_wins(complete):
    assert read_spec(complete("run/spec.toml", 'name = "digits/a75@seed3"\n')).name == "digits/a75@seed3"


def test_a_table_is_unnamed_unless_it_has_a_name(table):
    assert read_spec(table).name == "unnamed"
    assert read_spec(table | {"name": "mine"}).name == "mine"


def test_reading_leaves_the_table_alone(table):
    before = repr(table)
    read_spec(table, ["train.batch=3"])
    assert repr(table) == before


def test_a_spec_reads_as_itself(table):
    spec = read_spec(table)
    assert read_spec(spec) is spec
    assert read_spec(spec, ["name=other"]).name == "other"


def test_a_byte_order_mark_and_windows_lines_are_read(write, complete):
    text = complete("mine.toml").read_text()
    write("mine.toml", b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_spec("mine.toml").train.batch == 7


@pytest.mark.parametrize("found", [2, '"1"', "true"])
def test_another_format_is_refused(told, write, complete, found):
    text = complete("mine.toml").read_text().replace("format = 1", f"format = {found}")
    write("mine.toml", text, head="")
    assert told("mine.toml") == [
        f"format must be 1, the only one this version reads; received {found} (format in mine.toml)."
    ]


class TestExtends:
    def test_tables_merge_key_by_key_and_arrays_replace(self, complete, write):
        complete(
            "base.toml",
            tail='[[prune]]\nsites = [{ paths = ["*"], at = "output" }]\nschedule = { kind = "inherited" }\n',
        )
        write("mine.toml", 'extends = "base.toml"\nprune = []\n[train]\nbatch = 3\noptimizer = { lr = 0.5 }\n')
        spec = read_spec("mine.toml")
        assert (spec.prune, spec.train.batch, spec.train.length) == ((), 3, "3ep")
        assert (spec.train.optimizer.name, spec.train.optimizer.lr) == ("sgd", 0.5)

    def test_chains_are_followed_from_each_files_own_folder(self, complete, write):
        complete("a/b/base.toml")
        write("a/middle.toml", 'extends = "b/base.toml"\nseed = 3\n')
        write("c/mine.toml", 'extends = "../a/middle.toml"\n[data]\nsize = 5\n')
        spec = read_spec("c/mine.toml")
        assert (spec.seed, spec.data.size, spec.data.name) == (3, 5, "digits")

    def test_arch_replaces_inherited_layers(self, write, complete):
        complete("base.toml")
        write("layers.toml", 'extends = "base.toml"\n[[model.layers]]\ntype = "ReLU"\n')
        write("arch.toml", 'extends = "layers.toml"\n[model]\narch = "unet"\n')
        assert read_spec("arch.toml").model.layers == ()
        assert read_spec("arch.toml").model.arch == "unet"

    def test_layers_replace_inherited_arch_width_and_options(self, write, complete):
        complete("base.toml", tail="[model.extra]\nx = 1\n")
        write("wide.toml", 'extends = "base.toml"\n[model]\nwidth = 0.5\n')
        write("layers.toml", 'extends = "wide.toml"\n[[model.layers]]\ntype = "ReLU"\n')
        model = read_spec("layers.toml").model
        assert (model.arch, model.width, model.options, len(model.layers)) == (None, 1.0, {}, 1)

    def test_a_table_of_another_name_replaces_the_inherited_one(self, write, complete):
        complete("base.toml", tail='[train.lr_schedule]\nname = "multistep"\nmilestones = ["1ep"]\n')
        write("mine.toml", 'extends = "base.toml"\n[train]\nlr_schedule = { name = "cosine" }\n')
        assert read_spec("mine.toml").train.lr_schedule.milestones == ()

    def test_what_describes_one_file_is_not_inherited(self, write, complete):
        complete("base.toml", 'name = "b"\nabout = "base"\naka = "x"\npublished = true\ninit = "first"\n')
        write("mine.toml", 'extends = "base.toml"\n')
        spec = read_spec("mine.toml")
        assert (spec.name, spec.about, spec.aka, spec.published) == ("mine", "", None, False)
        assert spec.init == "first"

    def test_a_mistake_names_the_file_that_its_value_came_from(self, told, write, complete):
        complete("specs/base/all.toml", "seed = -1\n", '[train.lr_schedule]\nname = "cosine"\nfinal = 2\n')
        write("specs/mine.toml", 'extends = "base/all.toml"\n[train]\nbatch = 0\nlr_schedule = { warmup = "soon" }\n')
        places = [line[line.rindex("(") :] for line in told("specs/mine.toml")]
        assert places == [
            "(seed in specs/base/all.toml).",
            "(train.batch in specs/mine.toml).",
            "(train.lr_schedule.warmup in specs/mine.toml).",
            "(train.lr_schedule.final in specs/base/all.toml).",
        ]

    def test_a_circle_is_shown(self, told, write):
        write("a.toml", 'extends = "below/b.toml"\n')
        write("below/b.toml", 'extends = "../a.toml"\n')
        assert told("a.toml") == ["extends goes in a circle: a.toml -> below/b.toml -> a.toml."]

    def test_a_file_that_extends_itself_is_a_circle(self, told, write):
        write("a.toml", 'extends = "a.toml"\n')
        assert told("a.toml") == ["extends goes in a circle: a.toml -> a.toml."]

    def test_a_missing_base_names_who_asked_and_the_nearest(self, told, write):
        write("base.toml", "")
        write("mine.toml", 'extends = "bse.toml"\n')
        assert told("mine.toml") == ['bse.toml does not exist; nearest: "base.toml" (extends in mine.toml).']

    def test_extends_must_be_text(self, told, complete):
        complete("mine.toml", "extends = 3\n")
        assert told("mine.toml") == ["extends must be the relative path of a file; received 3 (extends in mine.toml)."]

    def test_a_table_extends_a_file_below_the_current_folder(self, complete):
        complete("base.toml")
        assert read_spec({"extends": "base.toml", "seed": 3}).train.batch == 7


def test_a_missing_format_is_told_with_the_other_mistakes(told, write):
    write("mine.toml", "seed = -1\n", head="")
    assert told(Path("mine.toml"))[:2] == [
        "A spec must begin with format = 1 (mine.toml).",
        "seed must be a whole number of at least 0; received -1 (seed in mine.toml).",
    ]


def test_the_error_is_a_spec_error_and_a_value_error():
    with pytest.raises(SpecError) as error:
        read_spec({})
    assert isinstance(error.value, ValueError)
    assert str(error.value) == "\n".join(error.value.mistakes)


@pytest.mark.parametrize(("rules", "written"), [(3, "3"), ({"sparsity": 0.5}, "{ sparsity = 0.5 }"), ("a", '"a"')])
def test_rules_that_are_no_list_are_refused(rules, written):
    for kind in ("prune", "quantize"):
        with pytest.raises(SpecError) as error:
            read_rules(**{kind: rules})
        assert str(error.value) == f"{kind} must be a list of rules, each a table; received {written}."


# ---- mistakes that are found later


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
