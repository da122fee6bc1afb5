"""What networks of other libraries say about images; torchvision's own transforms and timm's are the oracle."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

import qprune
from qprune.data import load_data, train_loader, with_presets
from qprune.data.decode import Photos
from qprune.errors import SpecError
from qprune.spec import read_spec
from qprune.training import Provided

TRAIN = {"length": "3it", "batch": 4, "optimizer": {"name": "sgd", "lr": 0.01}}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIZES = [(40, 60), (61, 37), (50, 50), (90, 33), (33, 33), (35, 80)]  # (height, width)


def draw(path, number, size):
    """A photo with something to see at every scale: noise, blown up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (7, 9, 3), np.uint8)
    image = Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC)
    image.save(path, quality=95)
    return path


@pytest.fixture
def imagenet(tmp_path):
    """Folders train and val, as ImageNet's, with photos of differing sizes."""
    for split, count in (("train", 6), ("val", 3)):
        for label, name in enumerate(("n01440764", "n01443537")):
            for i in range(count):
                draw(tmp_path / "photos" / split / name / f"{split}_{i}.JPEG", 10 * label + i, SIZES[i])
    return tmp_path / "photos"


def spec(arch="torchvision/resnet18", data=None, **model):
    return read_spec(
        {"name": "mine", "data": data or {"name": "folder"}, "model": {"arch": arch, **model}, "train": TRAIN}
    )


def of(arch="torchvision/resnet18", data=None, **model):
    return with_presets(spec(arch, data, **model)).data


def usual(size, interpolation):
    crop = {"name": "RandomResizedCrop", "size": size, "interpolation": interpolation}
    return crop, {"name": "RandomHorizontalFlip"}


@pytest.mark.parametrize(
    ("arch", "weights", "size", "resize", "interpolation"),
    [
        ("torchvision/resnet18", None, 224, 256, "bilinear"),
        ("torchvision/resnet50", "IMAGENET1K_V2", 224, 232, "bilinear"),
        ("torchvision/resnet50", "IMAGENET1K_V1", 224, 256, "bilinear"),
        ("torchvision/efficientnet_b0", None, 224, 256, "bicubic"),
        ("torchvision/inception_v3", None, 299, 342, "bilinear"),
    ],
)
def test_a_folders_images_are_those_of_the_weights(arch, weights, size, resize, interpolation):
    data = of(arch, **({"weights": weights} if weights else {}))
    assert (data.size, data.resize, data.interpolation) == (size, resize, interpolation)
    assert (data.mean, data.std) == IMAGENET
    assert data.augment == usual(size, interpolation)


def test_timm_says_it_in_its_pretrained_cfg():
    timm = pytest.importorskip("timm")
    config = timm.get_pretrained_cfg("mobilenetv4_conv_small")
    data = of("timm/mobilenetv4_conv_small")
    assert (data.size, data.interpolation) == (config.input_size[1], config.interpolation)
    assert (data.mean, data.std) == (config.mean, config.std)
    oracle = timm.data.create_transform(
        config.input_size, interpolation=config.interpolation, crop_pct=config.crop_pct, crop_mode=config.crop_mode
    ).transforms[0]
    assert data.resize == oracle.size


def test_where_timm_resizes_to_less_than_it_cuts_out_all_is_kept():
    """Its `crop_pct` is above 1 there, and it puts black around."""
    timm = pytest.importorskip("timm")
    assert timm.get_pretrained_cfg("volo_d4_448").crop_pct > 1
    data = of("timm/volo_d4_448")
    assert (data.size, data.resize) == (448, 448)


def test_what_the_spec_says_itself_stays():
    own = {"name": "folder", "size": 64, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "nearest"}
    data = of(data=own | {"augment": []})
    assert (data.size, data.resize, data.interpolation, data.augment) == (64, 73, "nearest", ())
    assert (data.mean, data.std) == ((0.5,) * 3, (0.25,) * 3)
    assert of(data=own | {"resize": 64}).resize == 64


def test_images_of_two_sides_are_squeezed_as_for_other_networks():
    data = of(data={"name": "folder", "size": [48, 64]})
    assert (data.size, data.resize, data.augment) == ((48, 64), None, None)
    assert data.mean == IMAGENET[0]


def test_named_sets_keep_their_statistics_unless_weights_have_others():
    plain = {"name": "cifar10", "size": 64}
    assert of(data=plain) == spec(data=plain).data
    data = of(data=plain, weights="DEFAULT")
    assert (data.mean, data.std) == IMAGENET
    assert (data.size, data.resize, data.augment) == (64, None, None)


def test_scenes_have_the_statistics_of_the_network_or_its_backbone():
    scenes = "torchvision/lraspp_mobilenet_v3_large"
    assert of(scenes, data={"name": "segmentation"}).mean == IMAGENET[0]
    assert of(scenes, data={"name": "streets"}).mean is None
    assert of(scenes, data={"name": "streets"}, weights_backbone="DEFAULT").mean == IMAGENET[0]


def test_other_data_and_other_networks_are_left_alone():
    assert of("mobilenetv2") == spec("mobilenetv2").data
    for data in ({"name": "digits"}, {"name": "camvid", "translate": "AtoB"}, {"workers": 2}):
        assert of(data=data, weights="DEFAULT") == spec(data=data).data


def test_a_network_of_the_users_own_takes_nothing_from_the_one_that_it_replaces():
    provided = Provided.of(model=torch.nn.Conv2d(3, 5, 3))
    assert provided.in_place_of(spec()).data == spec().data


def test_a_size_above_resize_is_refused():
    with pytest.raises(SpecError, match=r"^resize must be at least size, .*; received resize = 200 and size = 224$"):
        of(data={"name": "folder", "resize": 200})


@pytest.mark.parametrize("arch", ["torchvision/resnet18", "torchvision/efficientnet_b0"])
def test_evaluation_sees_what_the_weights_transforms_make(arch, imagenet):
    chosen = with_presets(spec(arch, data={"name": "folder", "root": str(imagenet)}))
    test = load_data(chosen.data).test
    transforms = models.get_model_weights(arch.partition("/")[2])["DEFAULT"].transforms()
    files = sorted(imagenet.glob("val/*/*"))
    assert len(test) == len(files) == 6
    for (image, _), file in zip(test, files, strict=True):
        theirs = transforms(Image.open(file))
        assert image.shape == theirs.shape == (3, 224, 224)
        assert torch.allclose(image, theirs, atol=1e-6)


def test_training_sees_crops_of_the_photos_as_they_are_stored(imagenet):
    data = {"name": "folder", "root": str(imagenet), "size": 32, "validation": 0.0}
    splits = load_data(with_presets(spec(data=data)).data, seed=3)
    assert isinstance(splits.train.images, Photos)
    (first, labels), again = (next(iter(train_loader(splits.train, batch=12, seed=3))) for _ in range(2))
    assert first.shape == (12, 3, 32, 32)
    assert torch.equal(first, again[0])
    assert sorted(labels.tolist()) == [0] * 6 + [1] * 6
    plain = torch.stack([splits.train[index][0] for index in range(12)])
    assert torch.equal(plain[0], splits.train[0][0])
    assert not any(torch.equal(image, other) for image in first for other in plain)
    one = [splits.train[epoch, 4][0] for epoch in (0, 1, 0)]
    assert torch.equal(one[0], one[2])
    assert not torch.equal(one[0], one[1])


def test_other_augmentation_acts_on_stored_photos_too_and_the_middle_is_cut_out_after_it(imagenet):
    data = {"name": "folder", "root": str(imagenet), "size": 32, "resize": 38, "validation": 0.0}
    flip = {"augment": [{"name": "RandomHorizontalFlip", "p": 1.0}]}
    flipped = load_data(with_presets(spec(data=data | flip)).data).train
    plain = flipped[2][0]
    assert flipped[0, 2][0].shape == (3, 32, 32)
    assert torch.allclose(flipped[0, 2][0], plain.flip(2), atol=0.02)  # resizing rounds to whole levels


def test_an_imagenet_folder_plans_trains_and_says_in_its_spec_what_its_images_were(imagenet):
    table = {
        "name": "photos", "data": {"name": "folder", "root": str(imagenet), "size": 32, "validation": 0.25},
        "model": {"arch": "torchvision/squeezenet1_1"}, "train": TRAIN,
    }  # fmt: skip
    plan = str(qprune.plan(table))
    assert 'note: images: size = 32, resize = 37, interpolation = "bilinear", augment = [{ name = "RandomResiz' in plan
    history = qprune.fit(table, runs=imagenet.parent / "runs", verbose=0)
    assert history.scores.keys() == {"val", "test"}
    text = (history.run / "spec.toml").read_text()
    for line in ("size = 32", "resize = 37", 'interpolation = "bilinear"', "mean = [0.485, 0.456, 0.406]"):
        assert f"\n{line}\n" in text
    assert read_spec(history.run / "spec.toml").data == with_presets(read_spec(table)).data
    assert qprune.evaluate(history.run) == pytest.approx(history.scores["test"], abs=1e-5)


def test_what_the_library_says_later_does_not_change_a_run(imagenet, monkeypatch):
    table = {
        "name": "photos", "data": {"name": "folder", "root": str(imagenet), "size": 32, "validation": 0.0},
        "model": {"arch": "torchvision/squeezenet1_1"}, "train": TRAIN,
    }  # fmt: skip
    history = qprune.fit(table, runs=imagenet.parent / "runs", verbose=0)
    scores = qprune.evaluate(history.run)
    monkeypatch.setattr("qprune.zoo.torchvision_library._preset", lambda _: qprune.zoo.Preset((0.1,) * 3, (0.9,) * 3))
    assert qprune.evaluate(history.run) == scores
