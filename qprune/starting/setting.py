"""`Setting`: sizes, lengths and rates of a training that fit some data, as the values of a spec."""

from math import ceil

from attrs import frozen

from qprune.data.opening import FOLDER, SEGMENTATION
from qprune.starting.looking import Looked

STEPS = {FOLDER: 2000, SEGMENTATION: 3000}  # of a dense training that begins from scratch
STEPS_OF_PAIRS = 3000
EPOCHS = (5, 200)  # the fewest and the most
PER_SITE = 10  # steps in which each site of a sequence is measured
PRUNED_BY = 0.35  # of the training
FEWEST = 400  # steps, of which a quantizer measures a hundred


@frozen
class Setting:
    """How a network is trained on some data."""

    looked: Looked
    arch: str
    pretrained: bool = False  # whether it starts from trained weights

    @property
    def images(self) -> int:
        """Images that are trained with."""
        return self.looked.sizes["train"]

    @property
    def batch(self) -> int:
        """Images per step: as many as leave a few dozen steps in an epoch."""
        if self.looked.name != FOLDER:
            return 4 if self.looked.classes else 1
        return 64 if self.images >= 3000 else 32 if self.images >= 400 else 16

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return max(1, ceil(self.images / self.batch))

    @property
    def epochs(self) -> int:
        """Length of the dense training: a number of steps, within bounds."""
        steps = STEPS.get(self.looked.name, STEPS_OF_PAIRS)
        return self._epochs(steps / 2 if self.pretrained else steps)

    def epochs_to_prune(self, sites: int) -> int:
        """Length of a training that prunes so many sites one after the other in its first third."""
        return max(self._epochs(sites * PER_SITE / PRUNED_BY), ceil(0.75 * self.epochs))

    @property
    def epochs_to_quantize(self) -> int:
        """Length of a training in which quantizers begin."""
        return max(ceil(FEWEST / self.per_epoch), ceil(0.5 * self.epochs))

    def _epochs(self, steps: float) -> int:
        fewest, most = EPOCHS
        return min(most, max(fewest, ceil(steps / self.per_epoch)))

    @property
    def size(self) -> int | tuple[int, int] | None:
        """To what images are brought; None where the network itself says so."""
        if self.looked.name == SEGMENTATION:
            height, width = self.looked.stored[0]
            scale = min(1.0, 160 / max(height, width))
            return _rounded(scale * height, 32), _rounded(scale * width, 32)
        if self.looked.name != FOLDER:
            return 256 if self.looked.paired else 64  # the U-Net of pix2pix has eight levels
        if "/" in self.arch:
            return None if self.looked.side >= 160 else _rounded(self.looked.side, 32)
        return min(64, max(16, _rounded(self.looked.side, 8)))

    @property
    def resize(self) -> int | None:
        """The shorter side before the middle is cut out; None where images are squeezed, or the network says so."""
        size = self.size
        if self.looked.name != FOLDER or self.looked.is_square or not isinstance(size, int) or "/" in self.arch:
            return None
        return round(size * 8 / 7)

    def after(self, share: float, epochs: int) -> str:
        """A share of so many epochs, as a duration."""
        return f"{share * epochs:.3g}ep"


def _rounded(pixels: float, multiple: int) -> int:
    return max(multiple, multiple * round(pixels / multiple))
