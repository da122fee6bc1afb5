import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from qprune.errors import SpecError
from qprune.spec import DataSpec, read_spec
from qprune.training import Provided

TRAIN = {"length": "1ep", "batch": 4, "optimizer": {"name": "sgd", "lr": 0.05}}


def table(**tables):
    return read_spec({"train": TRAIN} | tables)


def net(outputs=3):
    return nn.Sequential(nn.Conv2d(2, outputs, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def pairs(count=10, **attributes):
    made = TensorDataset(torch.zeros(count, 2, 5, 7), torch.arange(count) % 3)
    vars(made).update(attributes)
    return made


def test_a_spec_forgets_what_others_take_the_place_of():
    spec = read_spec("digits/a75_w4a4", {"data.workers": 2})
    known = Provided.of(model=net(), data=(pairs(), None)).in_place_of(spec)
    assert known.model.is_own
    assert known.data == DataSpec(workers=2)
    assert Provided().in_place_of(spec) == spec


def test_a_folder_is_not_data_of_ones_own():
    assert Provided.of(data="photos").data is None


def test_classes_are_named_by_the_data_else_counted_by_the_network():
    named = Provided.of(net(), {"train": pairs(classes=["ant", "bee", "cat"])})
    assert named.describe(table()).classes == ("ant", "bee", "cat")
    info = Provided.of(net(4), {"train": pairs()}).describe(table())
    assert (info.classes, info.shape, info.sizes) == (("0", "1", "2", "3"), (2, 5, 7), {"train": 10})
    assert info.kind is None


def test_names_that_are_not_those_of_pixels_are_left_alone():
    data = {"train": pairs(classes=["ant", "bee"])}
    segmentation = table(task={"name": "segmentation"})
    pixels = nn.Sequential(nn.Conv2d(2, 5, 1))
    assert len(Provided.of(pixels, data).describe(segmentation).classes) == 5
    with pytest.raises(SpecError, match="The network gives 5 values per image, and the data has 2 classes"):
        Provided.of(pixels, data).describe(table())


def test_images_to_translate_have_no_classes():
    assert Provided.of(net(), {"train": pairs()}).describe(table(task={"name": "pix2pix"})).classes == ()


def test_steps_of_an_epoch_are_those_of_the_loader_or_of_the_batches():
    for data, steps in ((pairs(), 3), (DataLoader(pairs(), batch_size=5), 2)):
        provided = Provided.of(net(), {"train": data})
        assert provided.steps_per_epoch(table(), provided.describe(table())) == steps
