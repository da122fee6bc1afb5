"""A bar for each site, as high as its sparsity."""

import pytest
import torch

from qprune.training.site_picture import draw_sites


def blue(picture: torch.Tensor) -> int:
    """Pixels of the bars."""
    red, _, blue = picture.int()
    return int((blue - red > 100).sum())


@pytest.mark.parametrize("sites", [1, 7, 40, 41, 120])
def test_bars_fill_as_much_as_is_dropped(sites: int) -> None:
    names = [f"block{number}.act.output" for number in range(sites)]
    half, quarter = (draw_sites(dict.fromkeys(names, share)) for share in (0.5, 0.25))
    assert half is not None and quarter is not None  # noqa: PT018
    assert (half.dtype, half.shape[0], half.dim()) == (torch.uint8, 3, 3)
    assert blue(half) == pytest.approx(2 * blue(quarter), rel=0.05)
