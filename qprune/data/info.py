"""`DataInfo`: classes, shape, sizes and statistics of a data set; those of the named ones are listed here."""

from attrs import frozen

from qprune.data.palettes import CAMVID, CITYSCAPES, STREETS, Colour
from qprune.errors import DataError

IGNORE = 255  # the label of void in every label map, whatever the files say

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

_DIGITS = tuple("0123456789")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


@frozen
class DataInfo:
    """A data set as a run sees it.

    Attributes:
        name: its name in the spec; empty for data handed over by the user.
        classes: one name per class; the label is the position. () where images are translated.
        shape: (channels, height, width) of every image.
        sizes: images in ``"train"``, ``"val"`` and ``"test"``, after the validation share and ``train_images``.
        mean: per channel, of pixels in [0, 1]; subtracted first.
        std: per channel; divided by.
        palette: one (red, green, blue) per class of scenes, each 0 to 255; () where an image has one class.

    Example:
        >>> NAMED["cifar100"].shape, len(NAMED["cifar100"].classes)
        ((3, 32, 32), 100)
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    sizes: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    palette: tuple[Colour, ...] = ()

    @property
    def kind(self) -> str | None:
        """``"classification"``, ``"segmentation"`` or ``"translation"``: what the targets are; None if nobody says.

        Example:
            >>> NAMED["camvid"].kind
            'segmentation'
        """
        if not self.name:
            return None
        if not self.classes:
            return "translation"
        return "segmentation" if self.palette else "classification"


NAMED = {info.name: info for info in (
    DataInfo("digits", _DIGITS, shape=(1, 8, 8), sizes={"train": 1197, "val": 200, "test": 400},
             mean=(0.3051,), std=(0.3756,)),
    DataInfo("cifar10", _CIFAR10, shape=(3, 32, 32), sizes={"train": 50_000, "val": 0, "test": 10_000},
             mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    DataInfo("cifar100", tuple(_CIFAR100.split()), shape=(3, 32, 32), sizes={"train": 50_000, "val": 0, "test": 10_000},
             mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
    DataInfo("streets", tuple(STREETS), shape=(3, 64, 96), sizes={"train": 600, "val": 100, "test": 200},
             mean=(0.3777, 0.3920, 0.4007), std=(0.1635, 0.1685, 0.1965), palette=tuple(STREETS.values())),
    DataInfo("camvid", tuple(CAMVID), shape=(3, 240, 320), sizes={"train": 367, "val": 101, "test": 233},
             mean=(0.4114, 0.4246, 0.4321), std=(0.3036, 0.3078, 0.3035), palette=tuple(CAMVID.values())),
    DataInfo("cityscapes", tuple(CITYSCAPES), shape=(3, 1024, 2048), sizes={"train": 2975, "val": 0, "test": 500},
             mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), palette=tuple(CITYSCAPES.values())),
)}  # fmt: skip


def usual_statistics(name: str, channels: int) -> Statistics:
    """Mean and standard deviation of a named data set; one half for every channel of any other.

    One half and one half bring pixels to [-1, 1], as images are that are translated.

    Example:
        >>> usual_statistics("digits", 1), usual_statistics("folder", 2)
        (((0.3051,), (0.3756,)), ((0.5, 0.5), (0.5, 0.5)))
    """
    known, half = NAMED.get(name), (0.5,) * channels
    return (known.mean, known.std) if known else (half, half)


def statistic(name: str, given: tuple[float, ...] | None, usual: tuple[float, ...]) -> tuple[float, ...]:
    """The statistic in the spec if there is one, else the usual one."""
    if given is not None and len(given) != len(usual):
        raise DataError(f"data.{name} must have one number per channel, {len(usual)}; received {list(given)}.")
    return usual if given is None else tuple(given)
