import pytest

from qprune.errors import SpecError
from qprune.spec import TaskSpec
from qprune.tasks import Classification, CycleGAN, Pix2Pix, Segmentation, Task, create, make_task, names

CLASSES = ("sky", "road", "tree")


@pytest.mark.parametrize(
    ("name", "options", "task"),
    [
        ("classification", {"label_smoothing": 0.1}, Classification(3, label_smoothing=0.1)),
        ("segmentation", {"hardest": 0.25}, Segmentation(3, hardest=0.25, names=CLASSES)),
        ("cyclegan", {"pool": 7}, CycleGAN(pool=7)),
        ("pix2pix", {"l1": 10}, Pix2Pix(l1=10)),
    ],
)
def test_tasks_are_made_by_name(name, options, task):
    made = create(name, classes=CLASSES, **options)
    assert made == task
    assert isinstance(made, Task)


def test_names_are_sorted():
    assert names() == ["classification", "cyclegan", "pix2pix", "segmentation"]


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the sentence is compared below
        create("Segmentaton", classes=CLASSES)
    assert str(caught.value) == (
        "unknown task 'Segmentaton'; nearest: 'segmentation'; "
        "there are 'classification', 'cyclegan', 'pix2pix', 'segmentation'"
    )


def test_an_unknown_option_is_told_the_nearest():
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the sentence is compared below
        create("segmentation", classes=CLASSES, hardes=0.25)
    assert (
        str(caught.value)
        == "unknown option 'hardes' of segmentation; nearest: 'hardest'; it has 'hardest', 'class_weights', 'ignore'"
    )


def test_names_of_classes_come_from_the_data_alone():
    with pytest.raises(
        ValueError, match=r"^unknown option 'names' of segmentation; it has 'hardest', 'class_weights', 'ignore'$"
    ):
        create("segmentation", classes=CLASSES, names=("a", "b", "c"))


def test_values_are_checked_by_the_task():
    with pytest.raises(ValueError, match=r"^hardest must be in \(0, 1\]; received 2$"):
        create("segmentation", classes=CLASSES, hardest=2)


def test_a_task_of_a_spec_that_the_data_is_not_for_is_told_the_fitting_ones():
    with pytest.raises(SpecError) as caught:
        make_task(TaskSpec("segmentation"), CLASSES, "translation")
    assert str(caught.value) == (
        'task.name = "segmentation" needs images with a class for every pixel; the data is images to translate '
        "(data.translate). Tasks for it: 'cyclegan', 'pix2pix'."
    )


def test_a_mistake_in_the_task_of_a_spec_is_one_of_the_spec():
    with pytest.raises(SpecError, match=r"^task: hardest must be in \(0, 1\]; received 2\.$"):
        make_task(TaskSpec("segmentation", {"hardest": 2}), CLASSES, "segmentation")


def test_data_of_an_unknown_kind_fits_every_task():
    assert make_task(TaskSpec("segmentation", {"hardest": 0.5}), CLASSES) == Segmentation(3, 0.5, names=CLASSES)
