import pytest

from qprune.errors import SpecError
from qprune.spec import OptimizerSpec, TeacherSpec, TrainSpec, parse_toml, read_spec, spec_to_toml


@pytest.mark.parametrize(
    "teacher",
    [
        {},
        {"run": ""},
        {"run": "digits/baseline"},
        {"run": "runs/it's here", "weight": 0.5, "temperature": 2.5},
        {"weight": 0.0},
        {"weight": 1, "temperature": 1},
        {"layers": ("generator.blocks.3", "generator.blocks.6")},
    ],
)
def test_the_table_is_read_and_written_there_and_back(table, teacher):
    spec = read_spec(table | {"train": table["train"] | {"teacher": teacher}})
    assert spec.train.teacher == TeacherSpec(**teacher)
    assert read_spec(parse_toml(spec_to_toml(spec))) == spec
    assert read_spec(spec.to_dict() | {"name": spec.name}) == spec


def test_no_table_is_no_teacher(table):
    spec = read_spec(table)
    assert spec.train.teacher is None
    assert "teacher" not in spec_to_toml(spec)


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        ("weight = 1.5", r"weight must be a number in \[0, 1\]; received 1.5"),
        ("weight = -0.1", r"weight must be a number in \[0, 1\]; received -0.1"),
        ("temperature = 0", r"temperature must be a number greater than 0; received 0"),
        ("temperature = -4.0", r"temperature must be a number greater than 0; received -4.0"),
        ("run = 3", r'run must be the name or folder of a run, such as "digits/baseline", or "" for a network that is '
         r"handed over; received 3"),
        ('run = "  "', r'run must be the name or folder of a run, .*; received "  "'),
        ("layers = [3]", r"layers must be a list of strings; received \[3\]"),
        ('layers = "generator"', r'layers must be a list of strings; received "generator"'),
        ("temprature = 3.0", r'^Unknown key "temprature"; nearest: "temperature"'),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_place(table, teacher, sentence):
    with pytest.raises(SpecError, match=rf"{sentence}.* \(.*train\.teacher"):
        read_spec(table | {"train": table["train"] | {"teacher": parse_toml(teacher)}})


def test_a_teacher_that_is_no_table_is_refused():
    with pytest.raises(SpecError, match=r'^teacher must be a table; received "digits/baseline"$'):
        TrainSpec(length=3, batch=3, optimizer=OptimizerSpec("sgd", lr=0.1), teacher="digits/baseline")
