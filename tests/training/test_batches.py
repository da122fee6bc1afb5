"""What cannot be trained on is said in one sentence, before training where it can be known."""

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import qprune
from qprune.data import Splits, eval_loader, train_loader
from qprune.errors import DataError, PlanError
from qprune.flow import trace
from qprune.spec import read_spec
from qprune.tasks import Classification, Segmentation
from qprune.training import Trainer, evaluate
from qprune.training.batches import check_labels, check_output, check_target, fewest_images, part_size
from qprune.training.experiment import prepare
from qprune.training.planning import plan_spec

TASK = Classification(classes=10)


class Items(Dataset[Any]):
    """A data set of somebody's own, which shows its labels only one by one."""

    def __init__(self, *labels: Any, shape: tuple[int, ...] = (1, 4, 4)) -> None:
        self.labels_of_mine, self.shape = labels, shape

    def __len__(self) -> int:
        return len(self.labels_of_mine)

    def __getitem__(self, index: int) -> Any:
        return torch.full(self.shape, float(index)), self.labels_of_mine[index]


def dense(outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, outputs))


def normalized() -> nn.Sequential:
    """Its second normalization sees one value of each image."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(4, 10),
    )


def trainer(net: nn.Module, loader: Any, **options: Any) -> Trainer:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return Trainer(net, TASK, train=loader, optimizer=optimizer, steps=4, **options)


def refused(error: type[Exception], sentence: str) -> Any:
    return pytest.raises(error, match=f"^{re.escape(sentence)}$")


# labels

RULE = "labels must be 0 to 9, one for each of the network's 10 outputs; received"
WHOLE = "labels must be whole numbers (int64), 0 to 9, one for each of the network's 10 outputs; received"


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ((4, 7, 28), f"{RULE} 28"),
        ((4, -1, 7), f"{RULE} -1"),
        ((4.0, 7.0, 1.0), f"{WHOLE} float32"),
        (tuple(torch.tensor([4, 7, 9], dtype=torch.int32)), f"{WHOLE} int32"),
        (([4], [7], [1]), "labels must have shape (N); received (3, 1)"),
    ],
)
def test_labels_that_are_no_classes_are_told_in_training_and_in_scoring(labels: Any, sentence: str) -> None:
    data = Items(*map(torch.as_tensor, labels))
    with refused(DataError, f"Batch 0 of the training data: {sentence}."):
        trainer(dense(), train_loader(data, batch=3)).fit()
    with refused(DataError, f"Batch 0 of the data to score: {sentence}."):
        evaluate(dense(), TASK, eval_loader(data, batch=3))


def test_labels_that_can_be_seen_at_once_are_told_before_training() -> None:
    good, bad = (TensorDataset(torch.zeros(3, 1, 4, 4), torch.tensor(labels)) for labels in ([1, 2, 3], [1, 28, 3]))
    check_labels(Splits(None, train=good, val=DataLoader(good)), TASK)
    for splits in (Splits(None, train=bad), Splits(None, train=DataLoader(bad))):
        with refused(DataError, f'data["train"]: {RULE} 28.'):
            check_labels(splits, TASK)
    with refused(DataError, f'data["test"]: {RULE} 28.'):
        check_labels(Splits(None, train=good, test=bad), TASK)


def test_first_label_of_somebody_s_own_data_is_looked_at_before_training() -> None:
    check_labels(Splits(None, train=Items(4, 28)), TASK)
    for label, sentence in [(28, f"{RULE} 28"), (0.5, f"{WHOLE} float64"), (-1, f"{RULE} -1")]:
        with refused(DataError, f'data["train"]: {sentence}.'):
            qprune.fit("digits/baseline", data=(Items(label, 3), None), model=dense(), verbose=0, runs="nowhere")


def test_pixels_without_a_class_are_none_that_is_wrong() -> None:
    task = Segmentation(classes=5)
    check_target(task, torch.tensor([[[0, 4], [255, 255]]]), "Here")
    check_target(task, torch.tensor([[[0, 4], [255, 255]]], dtype=torch.uint8), "Here")
    with refused(DataError, "Here: labels must be 0 to 4, one for each of the network's 5 outputs, or 255 for none; "
                            "received 7."):  # fmt: skip
        check_target(task, torch.tensor([[[0, 4], [255, 7]]]), "Here")


def test_labels_on_a_device_are_not_read_back() -> None:
    check_target(TASK, torch.tensor([28.0], device="meta"), "Here")


def test_tasks_that_know_no_rule_get_any_target() -> None:
    class Regression:
        pass

    check_target(Regression(), torch.tensor([0.5]), "Here")  # type: ignore[arg-type]
    check_output(Regression(), trace(dense(2), torch.zeros(2, 1, 4, 4)), (1, 4, 4), "mine")  # type: ignore[arg-type]


# no images


def test_data_without_images_is_told_before_training() -> None:
    full, empty = Items(1, 2, 3), Items()
    with refused(DataError, "data['train'] is empty: there is nothing in it to train on. Leave it out, or fill it."):
        qprune.fit("digits/baseline", data=(empty, full), model=dense(), verbose=0, runs="nowhere")


def test_loader_and_batch_without_images_are_told() -> None:
    with refused(DataError, "There is nothing to train on: the loader has no batch."):
        trainer(dense(), DataLoader(Items()))
    nothing = [(torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64))]
    with refused(DataError, "Batch 0 of the data to score: it holds no images."):
        evaluate(dense(), TASK, nothing)


# batch statistics


def test_smallest_batch_is_known_of_any_loader_that_tells() -> None:
    data = Items(*range(9))
    assert fewest_images(train_loader(data, batch=4)) == 1
    assert fewest_images(train_loader(data, batch=3)) == 3
    assert fewest_images(train_loader(data, batch=4, shard=(0, 1))) == 1
    assert fewest_images(train_loader(Items(*range(11)), batch=4, shard=(1, 2))) == 1
    assert fewest_images(DataLoader(data, batch_size=4)) == 1
    assert fewest_images(DataLoader(data, batch_size=4, drop_last=True)) == 4
    assert fewest_images(DataLoader(data, batch_size=20)) == 9

    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield from data

    assert fewest_images(DataLoader(Endless(), batch_size=4)) is None


def test_last_batch_too_small_for_batch_statistics_is_refused_before_training() -> None:
    flow = trace(normalized(), torch.zeros(2, 1, 8, 8))
    assert (part_size(flow, 2), part_size(flow, None)) == (2, 2)
    assert part_size(trace(normalized()[:3], torch.zeros(2, 1, 8, 8)), 1) == 1  # many values of one image
    assert part_size(trace(normalized().eval(), torch.zeros(2, 1, 8, 8)), 1) == 1
    sentence = (
        "3 takes batch statistics, and an epoch has a batch of 1 image (in one process), which gives it a single value "
        "per channel. Choose another train.batch, such as 34; in a loader of your own, drop_last=True leaves a short "
        "last batch out."
    )
    with refused(PlanError, sentence):
        part_size(flow, 1, 34)


@pytest.mark.parametrize("images", [65, 129])
def test_plan_and_training_refuse_the_same_last_batch(images: int) -> None:
    overrides = {"data.train_images": images, "train.batch": 32, "model": {"arch": "preactresnet18", "width": 0.1}}
    spec = read_spec("digits/baseline", overrides)
    for refuse in (plan_spec, prepare):
        with pytest.raises(
            PlanError, match=r"takes batch statistics, and an epoch has a batch of 1 image.*such as 33;"
        ):
            refuse(spec)  # type: ignore[operator]
    assert prepare(read_spec("digits/baseline", overrides | {"train.batch": 33})).trainer.update.part_size == 2


def test_one_value_that_only_training_meets_is_told_there() -> None:
    loader = DataLoader(Items(*range(9), shape=(1, 8, 8)), batch_size=4)
    with pytest.raises(DataError, match=r"^Batch 2 of the training data: it, or the part of it.* has a single image"):
        trainer(normalized(), loader).fit()
    # cut into parts, none has one image
    trainer(normalized(), DataLoader(Items(*range(8), shape=(1, 8, 8)), batch_size=4), accumulate=4, part_size=2).fit()


# outputs


def test_outputs_that_do_not_fit_the_classes_are_refused_by_plan_and_before_training() -> None:
    layers = [{"name": "flat", "type": "Flatten"}, {"name": "last", "type": "Linear", "out_features": 2}]
    spec = read_spec("digits/baseline", {"model": {"layers": layers}})
    for refuse in (plan_spec, prepare):
        with refused(PlanError, "The network does not fit the data (digits): for 2 images its output must have shape "
                                "(N, 10), one value per class; received (2, 2)."):  # fmt: skip
            refuse(spec)  # type: ignore[operator]


def test_segmentation_wants_a_value_per_class_and_pixel() -> None:
    task = Segmentation(classes=5)
    check_output(task, trace(nn.Conv2d(3, 5, 1), torch.zeros(2, 3, 4, 6)), (3, 4, 6), "mine")
    sentence = (
        "The network does not fit the data (mine): for 2 images its output must have shape (N, 5, H, W), one value per "
        "class and pixel, for images of 4x6; received (2, 5, 2, 4)."
    )
    with refused(PlanError, sentence):
        check_output(task, trace(nn.Conv2d(3, 5, 3), torch.zeros(2, 3, 4, 6)), (3, 4, 6), "mine")
