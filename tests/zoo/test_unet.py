import torch

from qprune import zoo


def test_unet_puts_the_skip_before_what_comes_from_below():
    torch.manual_seed(0)
    up = zoo.create("unet", width=0.07).eval().up1
    x, skip = torch.randn(2, 8, 3, 5), torch.randn(2, 4, 6, 10)
    assert torch.equal(up(x, skip), up.convs(torch.cat([skip, up.grow(x)], 1)))
