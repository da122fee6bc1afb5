import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qprune.tasks import run_padded


class Seen(nn.Module):
    """Gives what it gets, and remembers it."""

    def forward(self, images):
        self.images = images
        return images


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("width", [1, 3, 7, 8])
def test_images_of_any_size_come_back_in_that_size(height, width):
    net, images = Seen(), torch.randn(2, 3, height, width)
    assert torch.equal(run_padded(net, images, 4), images)
    assert [side % 4 for side in net.images.shape[-2:]] == [0, 0]
    assert net.images.shape[-2] - height < 4
    assert net.images.shape[-1] - width < 4


def test_images_of_fitting_size_pass_as_they_are():
    net, images = Seen(), torch.randn(2, 3, 8, 12)
    assert run_padded(net, images, 4) is images
    assert net.images is images


def test_long_sides_are_reflected_and_short_ones_repeated():
    net, images = Seen(), torch.randn(2, 3, 5, 2)
    run_padded(net, images, 8)
    expected = F.pad(F.pad(images, (0, 0, 0, 3), "reflect"), (0, 6, 0, 0), "replicate")
    assert torch.equal(net.images, expected)


def test_a_network_that_halves_twice_runs_on_odd_sizes():
    net = nn.Sequential(nn.MaxPool2d(4), nn.Conv2d(3, 5, 1), nn.Upsample(scale_factor=4))
    assert run_padded(net, torch.randn(2, 3, 9, 7), 4).shape == (2, 5, 9, 7)


def test_a_network_that_changes_the_size_is_refused():
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the sentence is compared below
        run_padded(nn.MaxPool2d(2), torch.zeros(2, 3, 5, 7), 4)
    assert str(caught.value) == (
        "the network must keep height and width to be run on padded images; (8, 8) became (4, 4)"
    )


def test_a_multiple_below_1_is_refused():
    with pytest.raises(ValueError, match=r"^multiple must be at least 1; received 0$"):
        run_padded(nn.Identity(), torch.zeros(2, 3, 5, 7), 0)
