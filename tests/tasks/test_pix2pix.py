import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qprune.tasks import Pix2Pix, Task, View
from qprune.training.evaluation import evaluate
from qprune.training.meter import Meter


def test_pix2pix_is_a_task():
    assert isinstance(Pix2Pix(), Task)
    assert (Pix2Pix().mode, Pix2Pix().l1) == ("min", 100.0)


def test_one_backward_gives_the_gradients_of_both_parts(pix2pix_net, pair):
    net, expected, (a, b) = pix2pix_net.train(), copy.deepcopy(pix2pix_net), pair
    Pix2Pix().step(net, pair)[0].backward()
    fake = expected.generator(a)
    verdict = expected.discriminator(torch.cat([a, fake], 1))
    (F.softplus(-verdict).mean() + 100 * F.l1_loss(fake, b)).backward()
    expected.discriminator.zero_grad()
    on_real = F.softplus(-expected.discriminator(torch.cat([a, b], 1))).mean()
    on_fake = F.softplus(expected.discriminator(torch.cat([a, fake.detach()], 1))).mean()
    ((on_real + on_fake) / 2).backward()
    for ours, theirs in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_training_loss_is_the_weighted_sum_of_its_parts(pix2pix_net, pair):
    loss, output = Pix2Pix(l1=7.0).step(pix2pix_net.train(), pair)
    torch.testing.assert_close(loss, output.parts["generator"] + 7 * output.parts["l1"] + output.parts["discriminator"])
    assert torch.equal(output.image, pix2pix_net.generator(pair[0]))


def test_a_training_step_runs_the_generator_once(pix2pix_net, pair, calls):
    seen = calls(pix2pix_net, "generator", "discriminator")
    Pix2Pix().step(pix2pix_net.train(), pair)
    assert seen == {"generator": 1, "discriminator": 3}


def test_evaluation_only_translates(pix2pix_net, pair, calls):
    seen = calls(pix2pix_net, "generator", "discriminator")
    loss, output = Pix2Pix().step(pix2pix_net.eval(), pair)
    assert seen == {"generator": 1, "discriminator": 0}
    assert torch.equal(loss, F.l1_loss(output.image, pair[1]))


def test_training_is_scored_by_its_parts_and_evaluation_by_distance(pix2pix_net, pair):
    task = Pix2Pix()
    meter = Meter(task, "cpu")
    meter.update(*task.step(pix2pix_net.train(), pair), pair[1])
    assert meter.result().keys() == {"loss", "generator", "discriminator", "l1"}
    assert evaluate(pix2pix_net, task, [pair]).keys() == {"loss", task.monitor}


def test_parts_are_averaged_over_images(pix2pix_net, pair):
    task, alone = Pix2Pix(), tuple(images[:1] / 2 for images in pair)
    meter = Meter(task, "cpu")
    steps = [(task.step(pix2pix_net.train(), batch), batch[1]) for batch in (pair, alone)]
    for step, target in steps:
        meter.update(*step, target)
    (first, _), (second, _) = steps
    expected = (2 * first[1].parts["l1"] + second[1].parts["l1"]) / 3
    assert meter.result()["l1"] == pytest.approx(float(expected))


def test_a_meter_goes_on_from_its_checkpoint(pix2pix_net, pair):
    task = Pix2Pix()
    meter, other = Meter(task, "cpu"), Meter(task, "cpu")
    meter.update(*task.step(pix2pix_net.train(), pair), pair[1])
    other.load_state_dict(meter.state_dict())
    assert other.result() == meter.result()
    assert set(meter.state_dict()["metrics"]) == {"parts.total", "parts.count"}


def test_a_generator_that_changes_the_size_is_refused(pix2pix_net, pair):
    pix2pix_net.generator = nn.Conv2d(3, 3, 3)
    with pytest.raises(ValueError, match=r"^generated images must have the shape .* \(2, 3, 9, 11\); received "):
        Pix2Pix().step(pix2pix_net.train(), pair)


def test_a_weight_below_0_is_refused():
    with pytest.raises(ValueError, match=r"^l1 must be a number of at least 0; received -1$"):
        Pix2Pix(l1=-1)


def test_panels_show_an_image_its_translation_and_its_partner(pix2pix_net):
    nn.init.zeros_(pix2pix_net.generator.weight)
    nn.init.zeros_(pix2pix_net.generator.bias)
    a, b = -torch.ones(2, 3, 5, 7), torch.ones(2, 3, 5, 7)
    panels = Pix2Pix().panels(pix2pix_net.eval(), (a, b), View())
    assert [panel.shape for panel in panels] == [(3, 5, 21)] * 2
    assert panels[0][0, 0, ::7].tolist() == [0, 128, 255]
