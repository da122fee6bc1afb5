"""Two random transforms that torchvision does not have, of images and their labels alike; imports torchvision."""

from collections.abc import Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from qprune.data.info import IGNORE


class RandomTranslate(v2.Transform):
    """Shifts by whole pixels, each way up to a limit; what moves in is mirrored for images and void for labels.

    Args:
        pixels: greatest shift [across, down], as torchvision orders translations; smaller than the image.

    Raises:
        ValueError: if ``pixels`` are not two whole numbers of at least 0.

    Example:
        >>> RandomTranslate(pixels=[64, 128])
        RandomTranslate(pixels=[64, 128])
    """

    def __init__(self, pixels: Sequence[int]) -> None:
        super().__init__()
        if len(pixels) != 2 or not all(isinstance(n, int) and n >= 0 for n in pixels):
            raise ValueError(f"pixels must be two whole numbers of at least 0, [across, down]; received {pixels}")
        self.pixels = list(pixels)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw one shift for all that is transformed together."""
        width_height = list(flat_inputs[0].shape[:-3:-1])
        if any(most >= side for most, side in zip(self.pixels, width_height, strict=True)):
            raise ValueError(f"pixels must be smaller than [width, height], {width_height}; received {self.pixels}")
        across, down = (int(torch.randint(-most, most + 1, ())) for most in self.pixels)
        return {"across": across, "down": down}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Shift one image or label map to the right and down."""
        across, down = params["across"], params["down"]
        height, width = inpt.shape[-2:]
        fill: Any = {"fill": IGNORE} if isinstance(inpt, tv_tensors.Mask) else {"padding_mode": "reflect"}
        padding = [max(across, 0), max(down, 0), max(-across, 0), max(-down, 0)]  # left, top, right, bottom
        padded = functional.pad(inpt, padding, **fill)
        return functional.crop(padded, max(-down, 0), max(-across, 0), height, width)

    def extra_repr(self) -> str:
        """The limits."""
        return f"pixels={self.pixels}"


class RandomGamma(v2.Transform):
    """Raises pixels in [0, 1] to a power drawn evenly between two limits; labels stay.

    Args:
        gamma: [lowest, highest] exponent, at least 0; above 1 darkens.

    Raises:
        ValueError: if ``gamma`` are not two rising numbers.

    Example:
        >>> RandomGamma(gamma=[1, 1.75])
        RandomGamma(gamma=[1, 1.75])
    """

    def __init__(self, gamma: Sequence[float]) -> None:
        super().__init__()
        if len(gamma) != 2 or not 0 <= gamma[0] <= gamma[1]:
            raise ValueError(f"gamma must be two numbers, 0 <= lowest <= highest; received {gamma}")
        self.gamma = list(gamma)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw one exponent for all that is transformed together."""
        low, high = self.gamma
        return {"gamma": low + (high - low) * float(torch.rand(()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Brighten or darken one image."""
        return inpt if isinstance(inpt, tv_tensors.Mask) else functional.adjust_gamma(inpt, params["gamma"])

    def extra_repr(self) -> str:
        """The limits."""
        return f"gamma={self.gamma}"
