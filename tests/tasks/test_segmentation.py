import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from qprune.tasks import Segmentation, Task, View
from qprune.training.meter import Meter

VOID = 255


def outputs(count=3, classes=5, height=7, width=11):
    output = torch.randn(count, classes, height, width)
    target = torch.randint(0, classes, (count, height, width))
    target[torch.rand(target.shape) < 0.2] = VOID
    return output, target


def trained(task, output, target):
    return task.step(nn.Identity().train(), (output, target))[0]


def hardest_by_hand(output, target, count):
    losses = F.cross_entropy(output, target, ignore_index=VOID, reduction="none")
    valid = [np.sort(loss[labels != VOID].numpy()) for loss, labels in zip(losses, target, strict=True)]
    return np.mean([loss[-count:].mean() if len(loss) else 0.0 for loss in valid])


def test_segmentation_is_a_task():
    task = Segmentation(classes=5)
    assert isinstance(task, Task)
    assert (task.monitor, task.mode) == ("miou", "max")


def test_reported_loss_is_cross_entropy_over_the_pixels_with_a_class():
    output, target = outputs()
    loss = Segmentation(classes=5, hardest=0.25).loss(output, target)
    torch.testing.assert_close(loss, F.cross_entropy(output, target, ignore_index=VOID))


def test_training_without_bootstrapping_minimizes_the_reported_loss():
    output, target = outputs()
    task = Segmentation(classes=5)
    assert torch.equal(trained(task, output, target), task.loss(output, target))


def test_training_learns_from_the_hardest_pixels_of_each_image():
    output, target = outputs()
    loss = trained(Segmentation(classes=5, hardest=0.25), output, target)
    np.testing.assert_allclose(loss.numpy(), hardest_by_hand(output, target, 77 // 4), rtol=1e-6)


WEIGHTS = (0.5, 1.0, 4.0, 0.0, 2.0)


def test_training_weighs_pixels_by_their_class_as_torch_does():
    output, target = outputs()
    loss = trained(Segmentation(classes=5, class_weights=WEIGHTS), output, target)
    torch.testing.assert_close(loss, F.cross_entropy(output, target, weight=torch.tensor(WEIGHTS), ignore_index=VOID))


def test_the_hardest_pixels_are_those_of_highest_weighted_loss():
    output, target = outputs()
    task = Segmentation(classes=5, hardest=0.25, class_weights=WEIGHTS)
    losses = F.cross_entropy(output, target, ignore_index=VOID, reduction="none")
    means = []
    for loss, labels in zip(losses.numpy(), target.numpy(), strict=True):
        weights = np.array([*WEIGHTS, *[0] * (VOID - 4)])[labels]
        first = np.argsort(-np.where(labels == VOID, -1, loss * weights), axis=None)[: 77 // 4]
        means.append((loss * weights).flat[first].sum() / weights.flat[first].sum())
    np.testing.assert_allclose(trained(task, output, target).numpy(), np.mean(means), rtol=1e-5)


def test_reported_losses_are_not_weighted():
    output, target = outputs()
    task = Segmentation(classes=5, class_weights=WEIGHTS)
    assert torch.equal(
        task.step(nn.Identity().eval(), (output, target))[0], Segmentation(classes=5).loss(output, target)
    )


def test_evaluation_does_not_bootstrap():
    output, target = outputs()
    task = Segmentation(classes=5, hardest=0.25)
    loss, returned = task.step(nn.Identity().eval(), (output, target))
    assert torch.equal(loss, task.loss(output, target))
    assert returned is output


def test_the_published_share_is_32768_of_131072_pixels():
    output, target = torch.randn(1, 2, 256, 512), torch.randint(0, 2, (1, 256, 512))
    loss = trained(Segmentation(classes=2, hardest=0.25), output, target)
    np.testing.assert_allclose(loss.numpy(), hardest_by_hand(output, target, 32768), rtol=1e-6)


def test_hardest_pixels_are_counted_from_all_but_never_void():
    output, target = outputs()
    target[1] = VOID
    target[1, 2, 3:6] = torch.tensor([4, 0, 1])
    loss = trained(Segmentation(classes=5, hardest=0.25), output, target)
    np.testing.assert_allclose(loss.numpy(), hardest_by_hand(output, target, 77 // 4), rtol=1e-6)


@pytest.mark.parametrize("weights", [(), WEIGHTS])
@pytest.mark.parametrize("hardest", [0.25, 1.0])
def test_an_image_without_classes_adds_nothing(hardest, weights):
    output, target = outputs()
    target[:] = VOID
    output.requires_grad_()
    loss = trained(Segmentation(classes=5, hardest=hardest, class_weights=weights), output, target)
    loss.backward()
    assert loss == 0
    assert not output.grad.any()


def test_only_the_hardest_pixels_have_a_gradient():
    output, target = outputs()
    output.requires_grad_()
    trained(Segmentation(classes=5, hardest=0.1), output, target).backward()
    assert (output.grad.abs().sum(1) > 0).sum((1, 2)).tolist() == [7, 7, 7]


def test_a_loss_that_is_no_number_shows():
    output, target = outputs()
    output[1, :, 2, 3], target[1, 2, 3] = torch.nan, 0
    assert trained(Segmentation(classes=5, hardest=0.25), output, target).isnan()


def test_loss_is_computed_in_float32():
    output, target = outputs()
    assert trained(Segmentation(classes=5, hardest=0.25), output.bfloat16(), target).dtype == torch.float32


def confusion(output, target, classes):
    valid = target != VOID
    counts = np.zeros((classes, classes))
    np.add.at(counts, (target[valid].numpy(), output.argmax(1)[valid].numpy()), 1)
    return counts


def test_scores_come_from_the_confusion_matrix_of_all_images():
    output, target = outputs(classes=6)
    target[target == 4] = 2
    output[:, 4] = -torch.inf  # class 4 occurs nowhere
    target[target == 5] = 1  # class 5 is only predicted
    metrics = Segmentation(classes=6, names="abcdef").metrics()
    for part in (slice(0, 2), slice(2, 3)):
        metrics.update(output[part], target[part])
    scores, counts = metrics.compute(), confusion(output, target, 6)
    right, union = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    shares = np.divide(right, union, out=np.full(6, np.nan), where=union > 0)
    np.testing.assert_allclose(scores["miou"], np.nanmean(shares), rtol=1e-6)
    np.testing.assert_allclose(scores["accuracy"], right.sum() / counts.sum(), rtol=1e-6)
    np.testing.assert_allclose([scores[f"iou_{name}"] for name in "abcdef"], shares, rtol=1e-6)
    assert shares[5] == 0
    assert np.isnan(shares[4])


def test_scores_are_those_of_torchmetrics():
    output, target = outputs()
    metrics = Segmentation(classes=5).metrics()
    metrics.update(output, target)
    options = {"num_classes": 5, "ignore_index": VOID}
    expected = {
        "miou": multiclass_jaccard_index(output, target, **options),
        "accuracy": multiclass_accuracy(output, target, average="micro", **options),
    }
    torch.testing.assert_close(metrics.compute(), expected)


def test_the_confusion_matrix_is_made_once():
    metrics = Segmentation(classes=5, names="abcde").metrics()
    metrics.update(*outputs())
    matrices = [metric.confmat for _, metric in metrics.items(copy_state=False)]
    assert len(matrices) == 3
    assert len({matrix.data_ptr() for matrix in matrices}) == 1


def test_a_meter_goes_on_from_its_checkpoint():
    task, parts = Segmentation(classes=5, names="abcde"), [outputs(), outputs(2)]
    whole, first, second = (Meter(task, "cpu") for _ in range(3))
    for output, target in parts:
        whole.update(torch.tensor(0.5), output, target)
    first.update(torch.tensor(0.5), *parts[0])
    second.load_state_dict(first.state_dict())
    second.update(torch.tensor(0.5), *parts[1])
    assert second.result() == whole.result()


@pytest.mark.parametrize("shape", [(3, 4, 7, 11), (3, 5, 7, 12), (3, 5)])
def test_an_output_without_one_value_per_class_and_pixel_is_refused(shape):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the sentence is compared below
        Segmentation(classes=5).loss(torch.zeros(shape), torch.zeros(3, 7, 11, dtype=torch.int64))
    assert str(caught.value) == (
        "output must have shape (N, 5, H, W), one value per class and pixel, and target (N, H, W); "
        f"received {shape} and (3, 7, 11)"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"classes": 1}, "classes must be a whole number of at least 2; received 1"),
        ({"hardest": 0}, "hardest must be in (0, 1]; received 0"),
        ({"hardest": 1.5}, "hardest must be in (0, 1]; received 1.5"),
        (
            {"class_weights": 3},
            "class_weights must be 5 numbers of at least 0, one per class and not all 0, or none; received 3",
        ),
        (
            {"class_weights": (1, 2)},
            "class_weights must be 5 numbers of at least 0, one per class and not all 0, or none; received (1, 2)",
        ),
        (
            {"class_weights": (1, -1, 1, 1, 1)},
            "class_weights must be 5 numbers of at least 0, one per class and not all 0, or none; "
            "received (1, -1, 1, 1, 1)",
        ),
        ({"ignore": 3}, "ignore must be a whole number outside 0..4; received 3"),
        (
            {"names": ("sky", "road")},
            "names must be 5 different ones, one per class, or none; received ('sky', 'road')",
        ),
    ],
)
def test_values_out_of_range_are_refused(options, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the sentence is compared below
        Segmentation(**({"classes": 5} | options))
    assert str(caught.value) == sentence


def test_panels_show_image_truth_and_prediction():
    images, labels = torch.zeros(2, 3, 5, 7), torch.full((2, 5, 7), VOID)
    labels[1] = 0
    net = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(net.weight)
    net.bias.data = torch.tensor([0.0, 1.0])  # always class 1
    panels = Segmentation(classes=2).panels(net, (images, labels), View(palette=((200, 0, 0), (0, 100, 0))))
    assert [panel.shape for panel in panels] == [(3, 5, 21)] * 2
    image, truth, predicted = panels[1].split(7, dim=-1)
    assert [part[:, 0, 0].tolist() for part in (image, truth, predicted)] == [[128] * 3, [164, 64, 64], [64, 114, 64]]
    assert panels[0][:, 0, 7].tolist() == [64, 64, 64]
