import pickle
from functools import cache

import pytest
import torch
from attrs import evolve
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from qprune.data import load_data, train_loader
from qprune.data.batchwise import batchwise
from qprune.data.colour_jitter import FUNCTIONS, grey
from qprune.data.street import draw_street
from qprune.spec import read_spec

ODD = (33, 47)
ALL = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.5}
JITTERS = [v2.ColorJitter(**{name: reach}) for name, reach in ALL.items()] + [
    v2.ColorJitter(**ALL),
    v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
    v2.ColorJitter(brightness=(2, 9), saturation=(0, 5)),
    v2.ColorJitter(),
]
each_jitter = pytest.mark.parametrize("transform", JITTERS, ids=str)


@cache
def streets(count=12, size=ODD):
    """Images of drawn scenes, with texture, haze and noise."""
    drawn = [torch.from_numpy(draw_street(0, "train", i, *size)[0]) for i in range(count)]
    return torch.stack(drawn).permute(0, 3, 1, 2).contiguous()


def every_colour():
    """All of 18 x 18 x 18 colours, with the darkest and the lightest, and all greys."""
    levels = torch.arange(18) * 15
    greys = torch.arange(256).expand(3, 256)
    return torch.cat([torch.cartesian_prod(levels, levels, levels).T, greys], 1).to(torch.uint8).view(1, 3, -1, 2)


def drawn_for(ours, images, seed=0):
    numbers = []
    for place, image in enumerate(images):
        torch.manual_seed(seed + place)
        numbers.append(ours.draw(image))
    return numbers


def made(transform, images, seed=0):
    ours = batchwise(transform)
    return ours.apply(images, ours.stack(drawn_for(ours, images, seed)))


def by_torchvision(transform, images, seed=0):
    results = []
    for place, image in enumerate(images):
        torch.manual_seed(seed + place)
        results.append(transform(tv_tensors.Image(image)).as_subclass(torch.Tensor))
    return torch.stack(results)


def differences(ours, theirs):
    """The largest, and the share of all values that differ."""
    apart = (ours.int() - theirs.int()).abs()
    return int(apart.max()), float((apart > 0).float().mean())


@each_jitter
@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_is_the_same_alone_and_in_batches_of_any_order(transform, channels):
    images, ours = streets()[:, :channels].contiguous(), batchwise(transform)
    drawn = drawn_for(ours, images)
    batch = ours.apply(images, ours.stack(drawn))
    for place in range(len(images)):
        assert torch.equal(ours.apply(images[place : place + 1], ours.stack([drawn[place]]))[0], batch[place])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    shuffled = ours.apply(images[order], ours.stack([drawn[place] for place in order]))
    assert torch.equal(shuffled, batch[order])
    assert (batch.shape, batch.dtype, batch.is_contiguous()) == (images.shape, torch.uint8, True)


@pytest.mark.parametrize("name", ["brightness", "saturation", "hue"])
def test_a_pixel_does_not_depend_on_where_vectors_end(name):
    """Vectors of a CPU may fuse what their remainder rounds twice."""
    images = streets(4)
    numbers = drawn_for(batchwise(v2.ColorJitter(**{name: ALL[name]})), images)
    whole = _adjusted(name, images, numbers)
    for width in (1, 2, 5, 46):
        assert torch.equal(_adjusted(name, images[..., :width].contiguous(), numbers), whole[..., :width])


def test_contrast_does_not_depend_on_the_order_of_pixels():
    images = streets(4)
    numbers = drawn_for(batchwise(v2.ColorJitter(contrast=0.4)), images)
    whole = _adjusted("contrast", images, numbers)
    for columns in (1, 2, 5):
        assert torch.equal(_adjusted("contrast", images.roll(columns, 3), numbers), whole.roll(columns, 3))


def _adjusted(name, images, numbers):
    (adjust,) = [function for function in FUNCTIONS if name in function.__name__]
    return adjust(images, torch.tensor([rows[0][1:] for rows in numbers]))


@pytest.mark.parametrize("transform", JITTERS[:6], ids=str)
def test_colours_are_those_of_torchvision_but_for_a_level_of_few_values(transform):
    images = streets().repeat(20, 1, 1, 1)  # 240 draws
    apart = (made(transform, images).int() - by_torchvision(transform, images).int()).abs()
    one_function = sum(getattr(transform, name) is not None for name in ALL) == 1
    assert int(apart.max()) <= (1 if one_function else 6)  # later functions stretch what one of them made
    assert float((apart > 0).float().mean()) < 1.5e-3
    assert float((apart > 1).float().mean()) < 1.5e-4


@pytest.mark.parametrize("name", ALL)
def test_each_function_alone_is_that_of_torchvision_for_every_colour(name):
    transform = v2.ColorJitter(**{name: ALL[name]})
    images = every_colour().expand(100, -1, -1, -1)
    largest, share = differences(made(transform, images), by_torchvision(transform, images))
    assert largest <= (0 if name == "brightness" else 1)
    assert share < 2e-3


@pytest.mark.parametrize("transform", JITTERS[4:6], ids=str)
def test_of_one_channel_saturation_and_hue_stay(transform):
    images = streets()[:, :1]
    largest, share = differences(made(transform, images), by_torchvision(transform, images))
    assert largest <= 1
    assert share < 2e-3
    alone = v2.ColorJitter(saturation=0.5, hue=0.3)
    assert torch.equal(made(alone, images), images)


@each_jitter
def test_the_generator_is_left_where_torchvision_leaves_it(transform):
    image = streets(1)[0]
    for seed in range(5):
        torch.manual_seed(seed)
        transform(tv_tensors.Image(image))
        expected = torch.get_rng_state()
        torch.manual_seed(seed)
        batchwise(transform).draw(image)
        assert torch.equal(torch.get_rng_state(), expected)


def test_it_is_pickled_for_loader_processes_that_are_started_anew():
    images, ours = streets(4), batchwise(v2.ColorJitter(**ALL))
    copy = pickle.loads(pickle.dumps(ours))
    assert drawn_for(ours, images) == drawn_for(copy, images)


def test_every_order_of_the_functions_is_drawn_and_kept():
    transform, images = v2.ColorJitter(**ALL), streets(1).expand(200, -1, -1, -1)
    ours = batchwise(transform)
    orders = {tuple(int(row[0]) for row in rows) for rows in drawn_for(ours, images)}
    assert len(orders) == 24
    assert differences(made(transform, images), by_torchvision(transform, images))[1] < 1.5e-3


def test_labels_and_stored_images_stay():
    images, labels = streets(), torch.arange(12).to(torch.uint8).view(12, 1, 1).expand(12, *ODD)
    ours, before = batchwise(v2.ColorJitter(**ALL)), images.clone()
    drawn = ours.stack(drawn_for(ours, images))
    assert ours.apply(labels, drawn) is labels
    assert not torch.equal(ours.apply(images, drawn), images)
    assert torch.equal(images, before)


def test_grey_is_the_whole_part_of_the_weighted_sum_of_integers():
    colours = every_colour().long()
    red, green, blue = colours.unbind(1)
    assert torch.equal(grey(colours.float())[:, 0].long(), (2989 * red + 5870 * green + 1140 * blue) // 10_000)
    sums = torch.arange(255 * 9999 + 1)
    assert torch.equal((sums.float() / 10_000).floor().long(), sums // 10_000)


def test_grey_is_that_of_torchvision_but_where_the_sum_is_whole():
    colours = every_colour()
    theirs = functional.rgb_to_grayscale(colours).float()
    red, green, blue = colours.long().unbind(1)
    apart = (grey(colours.float()) != theirs)[:, 0]
    assert ((2989 * red + 5870 * green + 1140 * blue)[apart] % 10_000 == 0).all()


def test_a_full_turn_of_six_hues_by_hand():
    pixel = torch.tensor([200, 80, 20], dtype=torch.uint8).view(1, 3, 1, 1)
    turned = [made(v2.ColorJitter(hue=(turn, turn)), pixel).flatten().tolist() for turn in (-1 / 3, 1 / 6, 1 / 3, 0.5)]
    assert turned == [[80, 20, 200], [140, 200, 20], [20, 200, 80], [20, 140, 200]]


@pytest.fixture(scope="module")
def train():
    """Few scenes by a spec whose colours vary."""
    spec = read_spec("camvid/unet/weighted")
    assert "ColorJitter" in [table["name"] for table in spec.data.augment]
    return load_data(evolve(spec.data, name="streets", size=list(ODD), train_images=8)).train


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_samples_of_a_spec_are_the_same_in_batches_of_any_size(train, batch):
    loader = train_loader(train, batch=batch, seed=2, workers=0)
    loader.sampler.epoch = 3
    made = [torch.cat(side) for side in zip(*loader, strict=True)]
    expected = [torch.stack(side) for side in zip(*(train[key] for key in loader.sampler), strict=True)]
    assert all(map(torch.equal, made, expected))
    assert len(train.fetch([(3, 0)]).drawn[0]) == 2  # what is left for whole batches: the flip and the colours
