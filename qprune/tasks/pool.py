"""`ImagePool`: earlier generated images, which a discriminator keeps learning from."""

from typing import Any

import torch
from attrs import define, field
from torch import Tensor


@define(eq=False)
class ImagePool:
    """Keeps generated images, and hands out old ones in place of new ones.

    Until it is full, each image is kept and handed out. Then each is, with probability 1/2, exchanged for a kept one
    picked at random, else handed out and not kept. Chances come from torch's default CPU generator.

    Source: Shrivastava et al., 2017, arXiv:1612.07828, with the rule of CycleGAN, arXiv:1703.10593.
    """

    capacity: int  # number of images kept; 0 hands out every image as it is
    images: list[Tensor] = field(init=False, factory=list, repr=False)

    def exchange(self, images: Tensor) -> Tensor:
        """Exchange a batch (N, C, H, W) for one of the same shape, detached."""
        result = images.detach().clone()
        for index, image in enumerate(result.unbind()):
            if len(self.images) < self.capacity:
                self.images.append(image.clone())
            elif self.capacity and torch.rand(()) < 0.5:
                place = int(torch.randint(self.capacity, ()))
                kept, self.images[place] = self.images[place], image.clone()
                result[index] = kept
        return result

    def state_dict(self) -> dict[str, Any]:
        """The images kept."""
        return {"images": list(self.images)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the images of ``state``, at most ``capacity`` of them."""
        self.images = list(state["images"])[: self.capacity]
