import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from qprune.tasks.features import INCEPTION, FixedFeatures, distance_name
from qprune.tasks.frechet import FrechetDistance, PartMeans
from qprune.tasks.translation import Translated, translation_metrics


def images(count=60, shift=0.0):
    return (torch.randn(count, 3, 9, 11) * 0.3 + shift).clamp(-1, 1)


def pixels(x):
    return ((x + 1) * 127.5).round().to(torch.uint8)


def distance_of(fake, real, batch=25):
    distance = FrechetDistance("frechet_fixed44")
    for index in range(0, len(fake), batch):
        distance.update(Translated(fake[index : index + batch], {}), real[index : index + batch])
    return distance.compute()


def by_formula(fake, real):
    """|m - n|^2 + tr(S + T - 2 (S^1/2 T S^1/2)^1/2), with symmetric square roots."""
    x, y = (FixedFeatures()(pixels(part)).double().numpy() for part in (fake, real))
    s, t = np.cov(x.T), np.cov(y.T)
    values, vectors = np.linalg.eigh(s)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ t @ root).clip(0)).sum()
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * overlap


def test_distance_follows_the_formula():
    fake, real = images(), images(shift=0.2)
    np.testing.assert_allclose(distance_of(fake, real), by_formula(fake, real), rtol=1e-4)


def test_distance_is_that_of_torchmetrics_whatever_the_batches():
    fake, real = images(), images(shift=0.2)
    expected = FrechetInceptionDistance(feature=FixedFeatures())
    expected.update(pixels(fake), real=False)
    expected.update(pixels(real), real=True)
    torch.testing.assert_close(distance_of(fake, real, batch=7), expected.compute(), rtol=1e-4, atol=1e-4)


def test_distance_grows_with_the_change():
    real = images()
    near, far = (distance_of(images(shift=shift), real) for shift in (0.1, 0.3))
    assert abs(distance_of(real, real)) < 1e-3
    assert 0 < near < far


def test_colour_blur_and_noise_all_count():
    real, others = torch.nn.functional.interpolate(images(120), scale_factor=4, mode="bilinear").split(60)
    redder = real + torch.tensor([0.3, 0, 0]).view(3, 1, 1)
    blurred = torch.nn.functional.avg_pool2d(real, 5, 1, 2)
    noisy = real + torch.randn_like(real) * 0.1
    assert min(distance_of(changed, real) for changed in (redder, blurred, noisy)) > distance_of(others, real)


def test_a_single_image_has_no_distance():
    assert distance_of(images(1), images(1)).isnan()


def test_metrics_without_images_give_no_entry():
    metrics = translation_metrics(("l1",), "frechet_fixed44")
    metrics.update(Translated(images(2), {"l1": torch.tensor(0.5)}), images(2))
    assert metrics.compute() == {"l1": 0.5}
    metrics.reset()
    metrics.update(Translated(images(5), {}), images(5))
    assert metrics.compute().keys() == {"frechet_fixed44"}


def test_features_are_the_same_on_every_machine_and_leave_chance_alone():
    before = torch.get_rng_state()
    features = FixedFeatures()
    assert torch.equal(torch.get_rng_state(), before)
    picture = (torch.arange(2 * 3 * 9 * 11) * 37 % 256).view(2, 3, 9, 11).to(torch.uint8)
    totals = [float(part.sum()) for part in features(picture).split([6, 6, 32], dim=1)]
    assert totals == pytest.approx([37.68285, -35.62584, -133.12764], rel=1e-4)  # measured; a new rule, a new name


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (32, 17)])
def test_features_are_numbers_at_any_size(size):
    picture = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    result = FixedFeatures()(picture)
    assert result.shape == (2, FixedFeatures.num_features)
    assert result.isfinite().all()


def test_features_of_an_image_do_not_depend_on_its_neighbours():
    picture = torch.randint(0, 256, (4, 3, 9, 11), dtype=torch.uint8)
    torch.testing.assert_close(FixedFeatures()(picture)[1:2], FixedFeatures()(picture[1:2]))


def test_only_inception_features_at_hand_are_called_fid(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("qprune.tasks.features.find_spec", lambda _: None)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / INCEPTION).touch()
    assert distance_name() == "frechet_fixed44"
    monkeypatch.setattr("qprune.tasks.features.find_spec", lambda name: name == "torch_fidelity" or None)
    assert distance_name() == "fid"
    (tmp_path / "checkpoints" / INCEPTION).unlink()
    assert distance_name() == "frechet_fixed44"


def test_part_means_do_not_need_a_fixed_batch_size():
    means = PartMeans(["generator", "l1"])
    for count, value in ((2, 1.0), (3, 6.0)):
        parts = {"l1": torch.tensor(value), "generator": torch.tensor(-value)}
        means.update(Translated(images(count), parts), images(count))
    assert means.compute() == {"generator": -4.0, "l1": 4.0}
