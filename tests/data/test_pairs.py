import tarfile
from pathlib import Path

import pytest
import torch

from qprune.data import NAMED, describe, load_data, train_loader
from qprune.errors import DataError
from qprune.spec import DataSpec

CAMVID = Path(__file__).parents[2].parent / "shared" / "data" / "camvid.tar.gz"


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    if not CAMVID.exists():
        pytest.skip("CamVid is not on this machine")
    root = tmp_path_factory.mktemp("sets")
    with tarfile.open(CAMVID) as archive:
        archive.extractall(root, filter="data")
    return root


def test_real_scenes_train_with_their_labels(camvid, monkeypatch):
    monkeypatch.setenv("QPRUNE_DATA", str(camvid))
    spec = DataSpec("camvid", size=[60, 80])
    splits = load_data(spec)
    assert splits.info == describe(spec)
    images, labels = next(iter(train_loader(splits.train, batch=64)))
    assert (images.shape, labels.shape) == ((64, 3, 60, 80), (64, 60, 80))
    pixels = torch.stack([splits.train[i][0] for i in range(367)])
    assert abs(pixels.mean((0, 2, 3))).max() < 0.02
    counted = torch.stack([splits.test[i][1] for i in range(233)]).flatten().bincount(minlength=256) / (233 * 4800)
    # as counted over the stored labels: sky, building, pole, road ... bicyclist, void
    stored = [0.171, 0.246, 0.012, 0.258, 0.093, 0.113, 0.010, 0.012, 0.040, 0.006, 0.002]
    assert abs(counted[:11] - torch.tensor(stored)).max() < 0.003
    assert counted[255] == pytest.approx(0.038, abs=0.003)


def test_real_labels_become_photos(camvid):
    crop = ({"name": "Resize", "size": [36, 36]}, {"name": "RandomCrop", "size": 32}, {"name": "RandomHorizontalFlip"})
    spec = DataSpec("camvid", root=str(camvid), size=32, augment=crop, translate="BtoA", unpaired=True, train_images=50)
    splits = load_data(spec)
    source, target = splits.train[(1, 7)]
    colours = {tuple(c) for c in ((source + 1) * 127.5).round().int().flatten(1).T.unique(dim=0).tolist()}
    assert colours <= {(0, 0, 0), *NAMED["camvid"].palette}
    assert (target.shape, splits.info.shape) == ((3, 32, 32), (3, 32, 32))


def test_streets_take_no_root():
    with pytest.raises(DataError, match=r"data\.root must be left out for streets, which are drawn; received 'here'"):
        describe(DataSpec("streets", root="here"))


def test_streets_are_drawn_at_their_size():
    assert describe(DataSpec("streets", size=[48, 80])).shape == (3, 48, 80)
    assert describe(DataSpec("streets")).shape == (3, 64, 96)


@pytest.mark.parametrize("name", ["segmentation", "translation"])
def test_folders_need_a_root(name):
    with pytest.raises(DataError, match=f'data.root must say where the images of data.name = "{name}" are'):
        describe(DataSpec(name, translate="AtoB"))


def test_statistics_of_scenes_can_be_set(scenes):
    splits = load_data(DataSpec("segmentation", root=str(scenes), mean=(0.1, 0.2, 0.3), std=(1, 2, 3)))
    assert (splits.info.mean, splits.info.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    with pytest.raises(DataError, match=r"data.mean must have one number per channel, 3; received \[0.5\]"):
        describe(DataSpec("segmentation", root=str(scenes), mean=(0.5,), std=(0.5,)))


def test_augmentation_is_checked_before_the_data_is_read():
    crop = ({"name": "RandomCrop", "size": 300},)
    with pytest.raises(
        DataError, match=r"data.augment\[0\]: RandomCrop fails on pictures of shape \(3, 240, 320\) and"
    ):
        load_data(DataSpec("camvid", root="none", augment=crop))
