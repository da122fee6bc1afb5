import pytest
import torch
from torch import nn

from qprune import zoo


def on_meta(name, **options):
    with torch.device("meta"):
        return zoo.create(name, **options).eval()


def test_patchgan_judges_patches_of_70_pixels():
    net, image = zoo.create("patchgan", width=0.07), torch.randn(1, 3, 128, 160, requires_grad=True)
    # a normalization would tie every pixel to every patch
    net.layer2.norm = net.layer3.norm = net.layer4.norm = nn.Identity()
    logits = net(image)
    assert logits.shape == (1, 1, 14, 18)
    logits[0, 0, 6, 8].backward()
    rows, columns = (image.grad.abs().sum((0, 1, axis)) > 0 for axis in (3, 2))
    assert (int(rows.sum()), int(columns.sum())) == (70, 70)


def test_patchgan_needs_24_pixels():
    net = on_meta("patchgan")
    assert net(torch.zeros(2, 3, 24, 31, device="meta")).shape == (2, 1, 1, 1)
    with pytest.raises(RuntimeError):
        net(torch.zeros(2, 3, 23, 31, device="meta"))
