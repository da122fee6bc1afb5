import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qprune.tasks import Classification, Task


def outputs(count=11, classes=7):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, classes, generator=generator), torch.randint(0, classes, (count,), generator=generator)


def test_classification_is_a_task():
    task = Classification(classes=7)
    assert isinstance(task, Task)
    assert (task.monitor, task.mode) == ("accuracy", "max")


def test_loss_is_cross_entropy_without_smoothing():
    output, target = outputs()
    task = Classification(classes=7, label_smoothing=0.2)
    assert torch.equal(task.loss(output, target), F.cross_entropy(output, target))


def test_a_training_step_smooths_labels_and_an_evaluation_does_not():
    net, task = nn.Linear(3, 7), Classification(classes=7, label_smoothing=0.2)
    images, target = torch.randn(5, 3), torch.tensor([0, 6, 2, 3, 3])
    loss, output = task.step(net.train(), (images, target))
    assert torch.equal(output, net(images))
    assert torch.equal(loss, F.cross_entropy(output, target, label_smoothing=0.2))
    loss, output = task.step(net.eval(), (images, target))
    assert torch.equal(loss, F.cross_entropy(output, target))


def test_loss_is_computed_in_float32():
    output, target = outputs()
    loss = Classification(classes=7).loss(output.bfloat16(), target)
    assert loss.dtype == torch.float32


def test_metrics_are_shares_of_the_images():
    output, target = outputs()
    metrics = Classification(classes=7).metrics()
    for part in (slice(0, 4), slice(4, 11)):
        metrics.update(output[part], target[part])
    top5 = output.topk(5).indices.eq(target[:, None]).any(1).float().mean()
    results = metrics.compute()
    torch.testing.assert_close(results["accuracy"], output.argmax(1).eq(target).float().mean())
    torch.testing.assert_close(results["top5"], top5)


@pytest.mark.parametrize(("classes", "names"), [(5, {"accuracy"}), (6, {"accuracy", "top5"})])
def test_top5_needs_more_than_five_classes(classes, names):
    assert set(Classification(classes).metrics().keys()) == names


def test_metrics_are_fresh_each_time():
    task = Classification(classes=7)
    first = task.metrics()
    first.update(*outputs())
    assert task.metrics() is not first


@pytest.mark.parametrize("shape", [(5, 8), (5, 7, 2)])
def test_an_output_without_one_value_per_class_is_refused(shape):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the sentence is compared below
        Classification(classes=7).loss(torch.zeros(shape), torch.zeros(5, dtype=torch.int64))
    assert str(caught.value) == f"output must have shape (N, 7), one value per class; received {shape}"


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"^classes must be a whole number of at least 2; received 1$"):
        Classification(classes=1)
    with pytest.raises(ValueError, match=r"^label_smoothing must be in \[0, 1\); received 1.0$"):
        Classification(classes=7, label_smoothing=1.0)


def test_a_task_of_ones_own_needs_five_names():
    class Regression:
        monitor, mode = "loss", "min"

        def loss(self, output, target):
            return F.mse_loss(output, target)

        def step(self, net, batch):
            output = net(batch[0])
            return self.loss(output, batch[1]), output

        def metrics(self):
            return {}

    assert isinstance(Regression(), Task)
    assert not isinstance(nn.Linear(3, 2), Task)
