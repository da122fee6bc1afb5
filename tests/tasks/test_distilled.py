import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics import MetricCollection

from qprune.errors import PlanError
from qprune.tasks import (
    Classification,
    CycleGAN,
    Distilled,
    Pix2Pix,
    Segmentation,
    Task,
    softened_divergence,
)
from qprune.training.evaluation import evaluate
from qprune.training.meter import Meter


def frozen(net):
    return net.eval().requires_grad_(False)


@pytest.fixture
def nets():
    """A student and a teacher of 7 classes for images of 3x4x5."""
    torch.manual_seed(2)
    student, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(60, 7)) for _ in range(2))
    return student.train(), frozen(teacher)


@pytest.fixture
def batch():
    torch.manual_seed(4)
    return torch.randn(5, 3, 4, 5), torch.tensor([0, 6, 3, 3, 1])


@pytest.mark.parametrize("temperature", [1.0, 2.5, 4.0])
def test_the_divergence_is_that_of_torch_times_the_square_of_the_temperature(temperature):
    ours, theirs = torch.randn(5, 7), torch.randn(5, 7)
    logs = (F.log_softmax(logits / temperature, 1) for logits in (ours, theirs))
    expected = temperature**2 * F.kl_div(*logs, reduction="batchmean", log_target=True)
    torch.testing.assert_close(softened_divergence(ours, theirs, temperature).mean(), expected)


def test_equal_outputs_do_not_diverge():
    logits = torch.randn(5, 7)
    assert softened_divergence(logits, logits, 3.0).abs().max() < 1e-6


def test_a_class_that_the_teacher_rules_out_counts_for_nothing():
    theirs = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert softened_divergence(torch.zeros(1, 3), theirs, 1.0).item() == pytest.approx(torch.tensor(1.5).log().item())


def test_half_precision_is_compared_in_float32():
    ours, theirs = torch.randn(5, 7).bfloat16(), torch.randn(5, 7).bfloat16()
    result = softened_divergence(ours, theirs, 4.0)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, softened_divergence(ours.float(), theirs.float(), 4.0))


def test_the_loss_shares_out_the_weight(nets, batch):
    student, teacher = nets
    plain, output = Classification(7, label_smoothing=0.1).step(student, batch)
    logs = (F.log_softmax(logits / 2, 1) for logits in (output, teacher(batch[0])))
    divergence = 4 * F.kl_div(*logs, reduction="batchmean", log_target=True)
    loss, taught = Distilled(Classification(7, label_smoothing=0.1), teacher, 0.7, 2.0).step(student, batch)
    torch.testing.assert_close(loss, 0.3 * plain + 0.7 * divergence)
    torch.testing.assert_close(taught.parts["distillation"], divergence.detach())
    assert torch.equal(taught.output, output)


def test_only_the_student_gets_gradients(nets, batch):
    student, teacher = nets
    before = copy.deepcopy(teacher.state_dict())
    loss, taught = Distilled(Classification(7), teacher, 1.0, 4.0).step(student, batch)
    loss.backward()
    assert student[1].weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not taught.parts["distillation"].requires_grad
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_the_gradient_of_a_high_temperature_pulls_logits_together(nets, batch):
    """Hinton et al., section 2.1: in the limit it is that of half the squared distance of centred logits."""
    ours, theirs = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    softened_divergence(ours, theirs, 1000.0).sum().backward()
    centred = ours.detach() - theirs - (ours.detach() - theirs).mean(1, keepdim=True)
    torch.testing.assert_close(ours.grad, centred / 7, rtol=0.01, atol=1e-3)


def test_evaluation_knows_no_teacher(nets, batch):
    student, teacher = nets
    task = Classification(7)
    scores = [evaluate(student, each, [batch]) for each in (task, Distilled(task, teacher, 0.9, 4.0))]
    assert scores[0] == scores[1]


def test_the_meter_gives_the_mean_of_the_term_beside_the_loss(nets):
    student, teacher = nets
    task = Distilled(Classification(7), teacher, 0.9, 4.0)
    meter, plain = Meter(task, "cpu"), Meter(Classification(7), "cpu")
    images, labels = torch.randn(9, 3, 4, 5), torch.arange(9) % 7
    for part in (slice(0, 4), slice(4, 9)):
        loss, output = task.step(student, (images[part], labels[part]))
        meter.update(loss.detach(), output, labels[part])
        plain.update(loss.detach(), output.output, labels[part])
    result = meter.result()
    expected = softened_divergence(student(images), teacher(images), 4.0).mean().item()
    assert result.pop("distillation") == pytest.approx(expected, rel=1e-6)
    assert result == plain.result()
    again = Meter(task, "cpu")
    again.load_state_dict(meter.state_dict())
    assert again.result() == meter.result()


def test_what_a_task_has_beside_is_still_there(nets):
    task = Distilled(Segmentation(7), nets[1], 0.9, 4.0)
    assert isinstance(task, Task)
    assert (task.monitor, task.mode, task.ignore) == ("miou", "max", 255)
    assert hasattr(task, "panels")
    assert not hasattr(task, "state_dict")
    assert hasattr(Distilled(CycleGAN(), nets[1], 0.9, 4.0), "state_dict")
    assert copy.deepcopy(task).weight == 0.9


def test_an_output_in_another_shape_is_refused(nets, batch):
    student, _ = nets
    with pytest.raises(
        PlanError,
        match=r"^The teacher must give one tensor .* shape of the network's output, \(5, 7\); received \(5, 60\)\.$",
    ):
        Distilled(Classification(7), nn.Flatten(), 0.9, 4.0).step(student, batch)


def test_pixels_without_a_class_teach_nothing():
    torch.manual_seed(5)
    student, teacher = nn.Conv2d(3, 4, 1), frozen(nn.Conv2d(3, 4, 1))
    images, target = torch.randn(2, 3, 5, 6), torch.randint(4, (2, 5, 6))
    target[0, :3] = 9
    loss, _ = Distilled(Segmentation(4, ignore=9), teacher, 1.0, 3.0).step(student, (images, target))
    rows = [net(images).permute(0, 2, 3, 1)[target != 9] for net in (student, teacher)]
    logs = (F.log_softmax(row / 3, 1) for row in rows)
    torch.testing.assert_close(loss, 9 * F.kl_div(*logs, reduction="batchmean", log_target=True))
    nothing = Distilled(Segmentation(4, ignore=9), teacher, 1.0, 3.0)
    assert nothing.step(student, (images, torch.full_like(target, 9)))[0].item() == 0


def test_generators_are_compared_by_their_images(cyclegan_net, pair):
    teacher = frozen(copy.deepcopy(cyclegan_net))
    with torch.no_grad():
        teacher.generator_ab.bias += 0.25
        teacher.generator_ba.bias -= 0.5
    loss, taught = Distilled(CycleGAN(), teacher, 1.0, 4.0).step(cyclegan_net.train(), pair)
    assert taught.parts["distillation"].item() == pytest.approx(0.75, rel=1e-5)
    loss.backward()
    assert cyclegan_net.generator_ba.weight.grad.abs().max() > 0
    assert not cyclegan_net.discriminator_a.weight.grad.any()


def test_the_generator_of_pix2pix_is_compared_by_its_images(pix2pix_net, pair):
    teacher = frozen(copy.deepcopy(pix2pix_net))
    with torch.no_grad():
        teacher.generator.bias += 0.25
    loss, _ = Distilled(Pix2Pix(), teacher, 0.5, 4.0).step(pix2pix_net.train(), pair)
    plain, _ = Pix2Pix().step(pix2pix_net, pair)
    torch.testing.assert_close(loss, 0.5 * plain + 0.5 * torch.tensor(0.25))


def test_no_generator_runs_more_often_for_a_teacher(cyclegan_net, pair, calls):
    teacher = frozen(copy.deepcopy(cyclegan_net))
    seen, taught = (
        calls(cyclegan_net, "generator_ab"),
        calls(teacher, "generator_ab", "generator_ba", "discriminator_a"),
    )
    Distilled(CycleGAN(), teacher, 0.9, 4.0).step(cyclegan_net.train(), pair)
    assert seen == {"generator_ab": 3}
    assert taught == {"generator_ab": 1, "generator_ba": 1, "discriminator_a": 0}


@pytest.mark.parametrize("task", [Classification(7), Segmentation(7, names="abcdefg"), CycleGAN(), Pix2Pix()])
def test_metrics_are_those_of_the_task_and_one_more(task, nets):
    metrics = Distilled(task, nets[1], 0.9, 4.0).metrics()
    assert isinstance(metrics, MetricCollection)
    assert metrics.keys() == {*task.metrics().keys(), "distillation"}
