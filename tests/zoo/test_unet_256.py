import torch

from qprune import zoo


def test_unet_256_puts_the_skip_before_what_comes_from_below():
    up = zoo.create("unet_256", width=0.07).eval().up1
    x, skip = torch.randn(2, 16, 3, 5), torch.randn(2, 4, 6, 10)
    assert torch.equal(up(x, skip), torch.cat([skip, torch.relu(up.norm(up.conv(x)))], 1))


def test_unet_256_trains_on_a_single_image():
    zoo.create("unet_256", width=0.07)(torch.randn(1, 3, 256, 256)).sum().backward()
