"""How fast batches are loaded: ours beside torchvision's transforms of one sample at a time, as people write them.

Both read the same bytes and augment alike, in this process, on one thread; they take turns, and the processor's time is
compared, round by round. Also how much of our time is what a GPU does where there is one: all but reading, decoding,
what needs one picture at a time, and drawing. Photos are JPEG files in a temporary folder.

    python benchmarks/loading.py [--rounds 9]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from qprune.data import ImageSet, PairSet, build_augment, folders, load_data, train_loader
from qprune.data.joint import build_joint_augment
from qprune.data.stored import StoredSet
from qprune.spec import DataSpec

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
Tables = Sequence[dict[str, Any]]
FLIP = {"name": "RandomHorizontalFlip"}
CROP = {"name": "RandomCrop", "size": 32, "padding": 4}
STREET = ({"name": "RandomTranslate", "pixels": [64, 100]}, {"name": "RandomGamma", "gamma": [1.0, 1.75]}, FLIP)
JITTER = {"name": "ColorJitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
HUE_TOO = {**JITTER, "hue": 0.1}


class OneByOne(Dataset[Any]):
    """A dataset as people write it: each sample is read, then transformed and normalized by torchvision."""

    def __init__(self, count: int, read: Callable[[int], Any], tables: Tables) -> None:
        self.count, self.read = count, read
        augment = build_joint_augment(tables, [], fixed=False)
        assert augment is not None
        types = {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}
        self.transform = v2.Compose([*augment.transforms, v2.ToDtype(types, scale=True), v2.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.transform(*self.read(index))


@frozen
class Case:
    """One row of the table."""

    name: str
    ours: StoredSet
    theirs: OneByOne
    batch: int


def with_classes(name: str, tables: Tables) -> Case:
    """CIFAR's size."""
    images, labels = noise(4096, 3, 32, 32), torch.arange(4096) % 10
    ours = ImageSet(images, labels, MEAN, STD, augment=build_augment(tables))
    theirs = OneByOne(len(images), lambda i: (tv_tensors.Image(images[i]), int(labels[i])), tables)
    return Case(f"32x32, {name}, batch 128", ours, theirs, 128)


def scenes(name: str, tables: Tables) -> Case:
    """CamVid's size."""
    images, labels = list(noise(48, 3, 240, 320)), list(noise(48, 240, 320) % 11)
    augment = build_joint_augment(tables, [(images[0], labels[0])])
    ours = PairSet(images, labels, (240, 320), MEAN, STD, augment=augment)
    theirs = OneByOne(48, lambda i: (tv_tensors.Image(images[i]), tv_tensors.Mask(labels[i])), tables)
    return Case(f"240x320 and labels, {name}, batch 8", ours, theirs, 8)


def pairs() -> Case:
    """Two images alike, as pix2pix cuts them."""
    sides = [list(noise(96, 3, 143, 143)) for _ in range(2)]
    tables = ({"name": "RandomCrop", "size": 128}, FLIP)
    augment = build_joint_augment(tables, [(sides[0][0], sides[1][0])], fixed=False)
    ours = PairSet(sides[0], sides[1], (128, 128), MEAN, STD, augment=augment)
    theirs = OneByOne(96, lambda i: [tv_tensors.Image(side[i]) for side in sides], tables)
    return Case("pairs of 143x143, crop to 128 and flip, batch 16", ours, theirs, 16)


def photos(folder: Path, kept: bool) -> Case:
    """As ImageNet is trained."""
    tables = ({"name": "RandomResizedCrop", "size": 224}, FLIP)
    folders.MEMORY_LIMIT = 2**30 if kept else 0
    spec = DataSpec(
        "folder", root=str(folder), size=224, resize=256, augment=tables, mean=MEAN, std=STD, validation=0.0
    )
    files = sorted(folder.glob("train/*/*.jpg"))
    theirs = OneByOne(len(files), lambda i: (tv_tensors.Image(decoded(files[i])), 0), tables)
    where = "kept in memory" if kept else "decoded"
    return Case(f"photos {where}, RandomResizedCrop to 224 and flip, batch 16", load_data(spec).train, theirs, 16)


def noise(*shape: int) -> Tensor:
    """Bytes."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def decoded(path: Path) -> Tensor:
    """A photo as torchvision's transforms take it."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def write_photos(folder: Path) -> None:
    """JPEG files of about 400x500 in the layout of an image folder."""
    for number, pixels in enumerate(noise(51, 3, 50, 62).unsqueeze(0).unbind(1)):
        height, width = 360 + 7 * (number % 11), 460 + 9 * (number % 7)
        smooth = torch.nn.functional.interpolate(pixels.float(), (height, width), mode="bilinear")[0].byte()
        path = folder / ("train" if number < 48 else "test") / "any" / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth.permute(1, 2, 0).numpy()).save(path, quality=90)


def passed(batches: Any) -> float:
    """Seconds of the processor that one pass over a loader takes."""
    start = time.process_time()
    for _ in batches:
        pass
    return time.process_time() - start


def row(case: Case, rounds: int) -> str:
    """Images per second of both, the ratio, and the share of ours that a GPU does."""
    loader = train_loader(case.ours, batch=case.batch, workers=0)
    other = DataLoader(case.theirs, batch_size=case.batch, shuffle=True)
    keys = list(loader.sampler)
    parts = [keys[start : start + case.batch] for start in range(0, len(keys), case.batch)]
    times = [(passed(loader), passed(other)) for _ in range(rounds + 1)][1:]  # the first asks for memory
    ours, theirs = (statistics.median(seconds) for seconds in zip(*times, strict=True))
    ratio = statistics.median(other / own for own, other in times)
    fetched = statistics.median(passed(map(case.ours.fetch, parts)) for _ in range(rounds))
    speeds = f"{len(keys) / theirs:,.0f} | {len(keys) / ours:,.0f} | {ratio:.2f}"
    return f"| {case.name} | {speeds} | {max(0.0, 1 - fetched / ours):.0%} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| images | torchvision, one by one: images/s | qprune: images/s | ratio | share for a GPU |")
    print("| --- | --- | --- | --- | --- |")
    cases: list[Callable[[], Case]] = [lambda: with_classes("crop and flip", [CROP, FLIP])]
    cases += [lambda: with_classes("crop, flip and colours with hue", [CROP, FLIP, HUE_TOO])]
    cases += [lambda: scenes("flip", [FLIP]), lambda: scenes("shift, gamma and flip", STREET)]
    cases += [lambda: scenes("flip and colours", [FLIP, JITTER])]
    cases += [lambda: scenes("flip and colours with hue", [FLIP, HUE_TOO]), pairs]
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder))
        cases += [lambda: photos(Path(folder), kept=True), lambda: photos(Path(folder), kept=False)]
        for make in cases:
            print(row(make(), options.rounds), flush=True)


if __name__ == "__main__":
    main()
