import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparing import same
from few_streets import draw_few_streets
from torch import nn

from qprune.layers import sites
from qprune.spec import read_spec
from qprune.tasks import CycleGAN, Task, View
from qprune.tasks.features import FixedFeatures
from qprune.training import Callback, ModelCheckpoint, Trainer, prepare
from qprune.training.checkpoint import load
from qprune.training.evaluation import evaluate
from qprune.training.meter import Meter


def generator_loss(net, a, b):
    """The generators' part as published, from the formula."""
    fake_b, fake_a = net.generator_ab(a), net.generator_ba(b)
    on_b, on_a = net.discriminator_b(fake_b), net.discriminator_a(fake_a)
    fooling = ((on_b - 1) ** 2).mean() + ((on_a - 1) ** 2).mean()
    cycle = F.l1_loss(net.generator_ba(fake_b), a) + F.l1_loss(net.generator_ab(fake_a), b)
    identity = F.l1_loss(net.generator_ab(b), b) + F.l1_loss(net.generator_ba(a), a)
    return fooling + 10 * cycle + 5 * identity, fake_a.detach(), fake_b.detach()


def discriminator_loss(discriminator, real, fake):
    return (((discriminator(real) - 1) ** 2).mean() + (discriminator(fake) ** 2).mean()) / 2


def train_in_two_phases(net, a, b, generators, discriminators):
    """One step in the published order, with two optimizers: generators first."""
    loss, fake_a, fake_b = generator_loss(net, a, b)
    generators.zero_grad()
    loss.backward()
    generators.step()
    discriminators.zero_grad()  # of what the generators' loss left there
    discriminator_loss(net.discriminator_a, a, fake_a).backward()
    discriminator_loss(net.discriminator_b, b, fake_b).backward()
    discriminators.step()


def test_cyclegan_is_a_task():
    task = CycleGAN()
    assert isinstance(task, Task)
    assert task.mode == "min"
    assert (task.cycle, task.identity, task.pool) == (10.0, 0.5, 50)


def test_one_backward_gives_the_gradients_of_the_two_phases(cyclegan_net, pair):
    net, expected = cyclegan_net.train(), copy.deepcopy(cyclegan_net)
    CycleGAN().step(net, pair)[0].backward()
    loss, fake_a, fake_b = generator_loss(expected, *pair)
    loss.backward()
    for discriminator, real, fake in (
        (expected.discriminator_a, pair[0], fake_a),
        (expected.discriminator_b, pair[1], fake_b),
    ):
        discriminator.zero_grad()
        discriminator_loss(discriminator, real, fake).backward()
    for ours, theirs in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_one_adam_makes_the_updates_of_the_published_order(cyclegan_net):
    net, expected, task = cyclegan_net.train().double(), copy.deepcopy(cyclegan_net).double(), CycleGAN(pool=0)
    adam = torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.5, 0.999))
    halves = [
        torch.optim.Adam(
            [p for name, p in expected.named_parameters() if name.startswith(half)], lr=0.01, betas=(0.5, 0.999)
        )
        for half in ("generator", "discriminator")
    ]
    for _ in range(3):
        a, b = torch.rand(2, 2, 3, 9, 11, dtype=torch.float64) * 2 - 1
        adam.zero_grad()
        task.step(net, (a, b))[0].backward()
        adam.step()
        train_in_two_phases(expected, a, b, *halves)
    for ours, theirs in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_training_loss_is_the_weighted_sum_of_its_parts(cyclegan_net, pair):
    loss, output = CycleGAN(cycle=7.0, identity=0.3).step(cyclegan_net.train(), pair)
    parts = output.parts
    expected = parts["generator"] + 7 * parts["cycle"] + 2.1 * parts["identity"] + parts["discriminator"]
    torch.testing.assert_close(loss, expected)
    assert not any(part.requires_grad for part in parts.values())
    assert torch.equal(output.image, cyclegan_net.generator_ab(pair[0]))


@pytest.mark.parametrize(("identity", "runs"), [(0.5, 3), (0.0, 2)])
def test_a_training_step_runs_each_generator_so_often(cyclegan_net, pair, calls, identity, runs):
    seen = calls(cyclegan_net, "generator_ab", "generator_ba", "discriminator_a", "discriminator_b")
    _, output = CycleGAN(identity=identity).step(cyclegan_net.train(), pair)
    assert seen == {"generator_ab": runs, "generator_ba": runs, "discriminator_a": 3, "discriminator_b": 3}
    assert ("identity" in output.parts) == (identity > 0)


def test_evaluation_only_translates_and_reconstructs(cyclegan_net, pair, calls):
    seen = calls(cyclegan_net, "generator_ab", "generator_ba", "discriminator_a", "discriminator_b")
    loss, output = CycleGAN().step(cyclegan_net.eval(), pair)
    assert seen == {"generator_ab": 1, "generator_ba": 1, "discriminator_a": 0, "discriminator_b": 0}
    assert torch.equal(loss, F.l1_loss(cyclegan_net.generator_ba(output.image), pair[0]))
    assert torch.equal(output.image, cyclegan_net.generator_ab(pair[0]))
    assert output.parts == {}


def test_parameters_are_as_free_after_a_step_as_before(cyclegan_net, pair):
    cyclegan_net.discriminator_a.bias.requires_grad_(False)
    before = [p.requires_grad for p in cyclegan_net.parameters()]
    CycleGAN().step(cyclegan_net.train(), pair)
    assert [p.requires_grad for p in cyclegan_net.parameters()] == before


def test_training_is_scored_by_its_parts_and_evaluation_by_distance(cyclegan_net, pair):
    task = CycleGAN()
    meter = Meter(task, "cpu")
    meter.update(*task.step(cyclegan_net.train(), pair), pair[1])
    assert meter.result().keys() == {"loss", "generator", "discriminator", "cycle", "identity"}
    assert evaluate(cyclegan_net, task, [pair]).keys() == {"loss", task.monitor}


def test_training_does_not_run_the_feature_network(cyclegan_net, pair, monkeypatch):
    monkeypatch.setattr(FixedFeatures, "forward", None)
    task = CycleGAN()
    Meter(task, "cpu").update(*task.step(cyclegan_net.train(), pair), pair[1])


def test_discriminators_learn_from_pooled_images(cyclegan_net, pair):
    task, old = CycleGAN(pool=2), torch.zeros(2, 3, 9, 11)
    task.pool_b.exchange(old)
    seen = []
    cyclegan_net.discriminator_b.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    torch.manual_seed(5)
    task.step(cyclegan_net.train(), pair)
    learnt = seen[-1]
    fresh = cyclegan_net.generator_ab(pair[0])
    origins = [
        "old" if torch.equal(image, old[0]) else "new" if torch.equal(image, new) else "neither"
        for image, new in zip(learnt, fresh, strict=True)
    ]
    assert sorted(origins) == ["new", "old"]  # with this seed


def test_training_goes_on_from_the_saved_pools(cyclegan_net):
    batches = [tuple(torch.rand(2, 2, 3, 9, 11)) for _ in range(5)]
    task = CycleGAN(pool=3)
    for batch in batches[:3]:
        task.step(cyclegan_net.train(), batch)
    file, rng = io.BytesIO(), torch.get_rng_state()
    torch.save(task.state_dict(), file)
    expected = [task.step(cyclegan_net, batch)[0] for batch in batches[3:]]
    file.seek(0)
    other = CycleGAN(pool=3)
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.set_rng_state(rng)
    assert [other.step(cyclegan_net, batch)[0] for batch in batches[3:]] == expected


def test_a_generator_that_changes_the_size_is_refused(cyclegan_net, pair):
    cyclegan_net.generator_ab = nn.Conv2d(3, 3, 3)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the sentence is compared below
        CycleGAN().step(cyclegan_net.eval(), pair)
    assert str(caught.value) == (
        "generated images must have the shape of those they are compared with, (2, 3, 9, 11); received "
        "(2, 3, 7, 9): choose image sizes that the generator keeps"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cycle": -1}, "cycle must be a number of at least 0; received -1"),
        ({"identity": "0.5"}, "identity must be a number of at least 0; received '0.5'"),
        ({"pool": 2.5}, "pool must be a whole number of at least 0; received 2.5"),
    ],
)
def test_values_out_of_range_are_refused(options, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the sentence is compared below
        CycleGAN(**options)
    assert str(caught.value) == sentence


def test_panels_show_an_image_its_translation_and_its_reconstruction(cyclegan_net, pair):
    a = pair[0]
    for generator, shift in ((cyclegan_net.generator_ab, 1.0), (cyclegan_net.generator_ba, -1.0)):
        nn.init.dirac_(generator.weight)
        nn.init.constant_(generator.bias, shift)
    panels = CycleGAN().panels(cyclegan_net.eval(), (a - 0.5, pair[1]), View())
    assert [panel.shape for panel in panels] == [(3, 9, 33)] * 2
    image, translated, reconstructed = panels[0].split(11, dim=-1)
    assert (image.int() - reconstructed.int()).abs().max() <= 1
    assert (translated >= image).all()


# ---- training: several forwards, one step, one tick; and resuming in the middle


SMALL = [
    "model.width=0.07", "model.width_ba=0.07", "model.width_discriminators=0.07", "data.size=32", "data.train_images=6",
    "train.length=9it", "train.validate_every=9it", 'train.lr_schedule={name="constant"}', "task.pool=2",
]  # fmt: skip
MASKS = [{"sites": [{"types": ["Conv2d"], "paths": ["generator_*.blocks.*"], "at": "input"}], "sparsity": 0.5,
          "schedule": {"kind": "layerwise", "start": 0, "interval": 3, "refresh": 3}}]  # fmt: skip


def trainer(**tables: Any) -> Trainer:
    table = read_spec("streets/cyclegan/baseline", SMALL).to_dict() | tables
    return prepare(read_spec(table)).trainer


class Stop(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        if self.trainer.step == self.step:
            self.trainer.stop_training = self.trainer.history.interrupted = True


def test_resumed_gan_equals_the_unbroken_one_to_the_bit_with_its_pools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_few_streets(monkeypatch)
    (tmp_path / "whole").mkdir()
    whole = trainer()
    whole.use([ModelCheckpoint(tmp_path / "whole")])
    whole.fit()
    first = trainer()
    first.use([Stop(5), ModelCheckpoint(tmp_path)])
    assert first.fit().interrupted
    second = trainer()
    second.use([ModelCheckpoint(tmp_path)])
    second.resume_from(load(tmp_path / "last.pt"))
    torch.manual_seed(99)
    second.fit()
    assert same(load(tmp_path / "last.pt"), load(tmp_path / "whole/last.pt"))
    assert len(load(tmp_path / "last.pt")["ranks"][0]["task"]["pool_b"]["images"]) == 2


def test_masks_of_both_generators_follow_the_data_and_one_step_is_one_tick() -> None:
    trained = trainer(prune=MASKS, train={"length": "99it", "batch": 1, "optimizer": {"name": "adam", "lr": 0.0002}})
    assert trained.driver is not None
    order = [entry.site for entry in sorted(trained.driver.plan.sites, key=lambda entry: entry.timeline.freeze)]
    assert [site.split(".")[0] for site in order] == ["generator_ab"] * 12 + ["generator_ba"] * 12
    trained.use([Stop(4)])
    trained.fit()
    assert trained.driver.steps_done == trained.step == 4
    masks = {site.name: site.mask for site in sites(trained.net)}
    assert [event["site"] for event in trained.history.events if event["frozen"]] == order[:1]
    # generator_ab ran three times in each of the three steps that the first mask measured, all before one commit
    assert int(masks[order[0]].seen) == 3
