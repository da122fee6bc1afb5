"""Features for the Fréchet distance: Inception's if its weights are on this machine, else fixed ones of our own."""

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # the file that torch-fidelity caches


def inception_weights() -> Path | None:
    """The file with Inception's weights, if torch-fidelity is installed and has cached it; never a download."""
    path = Path(torch.hub.get_dir(), "checkpoints", INCEPTION)
    return path if find_spec("torch_fidelity") is not None and path.is_file() else None


def distance_name() -> str:
    """``"fid"`` with Inception's features, else ``"frechet_fixed44"``; only ``fid`` compares with published values."""
    return "fid" if inception_weights() else "frechet_fixed44"


class FixedFeatures(nn.Module):
    """44 numbers per image: 6 of its colours, 6 of its edges, 32 of its texture; the same on every machine.

    Mean and deviation of each channel in units of 32 levels; logarithms of the mean edge strength along both axes at
    three scales, and of the means over a network of three random convolutions, drawn once from a generator of its own.
    The first of these is blind to brightness. Input uint8 (N, 3, H, W) of any size, output float32 (N, 44).

    Source: random convolutions as features of such distances, Naeem et al., 2020, arXiv:2002.09797.
    """

    num_features = 44
    sobel: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = ((16, 3, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3))
        weights = [torch.randn(shape, generator=generator) * (2 / (shape[1] * 9)) ** 0.5 for shape in shapes]
        weights[0] -= weights[0].mean((2, 3), keepdim=True)
        slope = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]) / 8
        # buffers, which move with the module: to bring them along at each batch would wait for a GPU
        self.textures = nn.ParameterList(nn.Parameter(weight, requires_grad=False) for weight in weights)
        self.register_buffer("sobel", torch.stack([slope, slope.t()])[:, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of uint8 images."""
        colours = pixels.float() / 32
        x = colours / 4 - 1
        # logarithms: without them a 5 x 5 blur weighed 0.02 on CamVid, whose two photo splits are 0.87 apart
        strengths = torch.cat([*self._edges(x.mean(1, keepdim=True)), self._texture(x)], dim=1)
        return torch.cat([colours.mean((2, 3)), colours.std((2, 3), correction=0), (strengths + 0.01).log()], dim=1)

    def _edges(self, grey: Tensor) -> list[Tensor]:
        strengths = []
        for _ in range(3):
            slopes = F.conv2d(F.pad(grey, (1, 1, 1, 1), "replicate"), self.sobel)
            strengths.append(slopes.abs().mean((2, 3)))
            grey = F.avg_pool2d(grey, 2, ceil_mode=True)
        return strengths

    def _texture(self, x: Tensor) -> Tensor:
        for weight in self.textures:
            x = F.conv2d(x, weight, stride=2, padding=1).relu()
        return x.mean((2, 3))
