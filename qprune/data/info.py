"""What is known about each named data set before any image is read, and what is said about every data set."""

from attrs import frozen

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
        name: its name in the spec.
        classes: one name per class; the label is the position.
        shape: (channels, height, width) of every image.
        sizes: images in ``"train"``, ``"val"`` and ``"test"``, after the validation share and ``train_images``.
        mean: per channel, of pixels in [0, 1]; subtracted first.
        std: per channel; divided by.

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


NAMED = {
    info.name: info
    for info in (
        DataInfo(
            "digits",
            classes=_DIGITS,
            shape=(1, 8, 8),
            sizes={"train": 1197, "val": 200, "test": 400},
            mean=(0.3051,),
            std=(0.3756,),
        ),
        DataInfo(
            "cifar10",
            classes=_CIFAR10,
            shape=(3, 32, 32),
            sizes={"train": 50_000, "val": 0, "test": 10_000},
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
        ),
        DataInfo(
            "cifar100",
            classes=tuple(_CIFAR100.split()),
            shape=(3, 32, 32),
            sizes={"train": 50_000, "val": 0, "test": 10_000},
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
        ),
    )
}


def usual_statistics(name: str, channels: int) -> Statistics:
    """Mean and standard deviation of a named data set; one half for every channel of any other.

    Example:
        >>> usual_statistics("digits", 1), usual_statistics("folder", 2)
        (((0.3051,), (0.3756,)), ((0.5, 0.5), (0.5, 0.5)))
    """
    known, half = NAMED.get(name), (0.5,) * channels
    return (known.mean, known.std) if known else (half, half)
