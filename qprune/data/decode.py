"""Image files to 8-bit RGB pixels, whatever they hold; what cannot be converted is refused by name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from qprune.errors import DataError
from qprune.regular_files import open_regular
from qprune.spec import DataSpec

if TYPE_CHECKING:  # Pillow is slow to import; it is loaded when the first file is read
    from PIL.Image import Image

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Size: TypeAlias = int | tuple[int, int]


def height_width(size: Size) -> tuple[int, int]:
    """Both sides of an image of that size; a number is a square."""
    return (size, size) if isinstance(size, int) else size


@frozen
class Frame:
    """How images of any size come to one size: squeezed or, with ``resize``, cut out of their middle."""

    size: tuple[int, int]  # (height, width)
    resize: int | None = None  # pixels of the shorter side before the middle is cut out
    interpolation: str = "bilinear"  # antialiased, unless it is "nearest"

    @classmethod
    def of(cls, spec: DataSpec, size: tuple[int, int]) -> "Frame":
        """That of a spec's images, which have this size in the end."""
        return cls(size, spec.resize, spec.interpolation or "bilinear")

    def fit(self, image: "Image") -> "Image":
        """Bring one image to the size of all."""
        if self.resize is None and image.size == self.size[::-1]:
            return image
        from torchvision.transforms.v2 import InterpolationMode, functional

        how = {"interpolation": InterpolationMode(self.interpolation), "antialias": True}
        if self.resize is None:
            squeezed: Image = functional.resize(image, list(self.size), **how)
            return squeezed
        resized = functional.resize(_not_too_long(image), [self.resize], **how)
        cut: Image = functional.center_crop(resized, list(self.size))
        return cut


def _not_too_long(image: "Image") -> "Image":
    """The middle of an image that is a strip, whose longer side would become as long as memory lasts."""
    width, height = image.size
    most = LONGEST * min(width, height)
    if max(width, height) <= most:
        return image
    across, down = max(0, width - most) // 2, max(0, height - most) // 2
    return image.crop((across, down, across + min(width, most), down + min(height, most)))


def read_image(path: Path, size: Size | Frame | None = None) -> Pixels:
    """Decode one file to RGB, uint8 (height, width, 3), brought to ``size`` if there is one.

    Turned upright as its EXIF tag says. Grey values are copied to three channels, 16-bit grey is divided by 257,
    palettes are looked up, transparent pixels are laid over black.
    """
    with named(path), open_image(path) as image:
        rgb = _to_rgb(upright(image))
        if size is not None:
            rgb = (size if isinstance(size, Frame) else Frame(height_width(size))).fit(rgb)
        return np.asarray(rgb)


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image once upright, from its header alone."""
    with named(path), open_image(path) as image:
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
    return (width, height) if turned else (height, width)


def read_images(paths: Sequence[Path], height: int, width: int, size: Size | Frame | None = None) -> Tensor:
    """Decode many files of one size into memory: uint8, (len(paths), 3, height, width)."""
    # One thread: Pillow's reads wait for each other, and threads took 0.36 ms for a 32x32 JPEG, this 0.14.
    pixels = np.empty((len(paths), height, width, 3), np.uint8)
    for index, path in enumerate(paths):
        image = read_image(path, size)
        check_size(path, image.shape[:2], (height, width))
        pixels[index] = image
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def check_size(path: Path, received: tuple[int, ...], expected: tuple[int, int]) -> None:
    """Refuse an image of another size."""
    if tuple(received) != expected:
        raise DataError(
            f"{path}: all images must have one size, {expected[0]}x{expected[1]} (height x width) as the first has; "
            f"received {received[0]}x{received[1]}. Set data.size to resize every image to a square."
        )


@frozen(eq=False)
class ImageFiles:
    """Images too many for memory: decoded each time they are indexed."""

    paths: Sequence[Path]
    height: int
    width: int
    size: Size | Frame | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: list[int]) -> Tensor:
        pixels = np.stack([read_image(self.paths[index], self.size) for index in indices])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


@frozen(eq=False)
class Photos:
    """Image files of any size: as they are stored, and in the size of all."""

    paths: Sequence[Path]
    frame: Frame
    decoded: Sequence[Tensor] = ()  # all of them as they are stored, where they were decoded before

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: list[int]) -> Tensor:
        return torch.stack([self.fitted(self.stored(index)) for index in indices])

    def stored(self, index: int) -> Tensor:
        """One image as it is stored: uint8 (3, H, W)."""
        return self.decoded[index] if self.decoded else _channels_first(read_image(self.paths[index]))

    def fitted(self, image: Tensor) -> Tensor:
        """An image in the size of all, after it was augmented."""
        from PIL import Image

        if image.shape[-2:] == self.frame.size:
            return image
        return _channels_first(np.asarray(self.frame.fit(Image.fromarray(image.permute(1, 2, 0).numpy()))))


def _channels_first(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


_ORIENTATION = 0x0112
LONGEST = 20  # times as long as wide
LARGEST = 2**30  # bytes of an image file
# of the forty that Pillow knows by their content, whatever a file is called; for one it runs Ghostscript
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@contextmanager
def open_image(path: Path) -> Iterator["Image"]:
    """Open a file with Pillow, which reads its header."""
    from PIL import Image, UnidentifiedImageError

    with open_regular(path, LARGEST) as file:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            known = ", ".join(FORMATS)
            raise DataError(f"must be a whole, readable image; it is none of {known}. Replace or remove it.") from None
        except Image.DecompressionBombError:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            raise DataError(
                f"has more than {most:,} pixels, and no more are decoded. Make it smaller, or raise "
                "PIL.Image.MAX_IMAGE_PIXELS."
            ) from None
        with image:
            yield image


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Put the file into every error that decoding it raises."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        reason = error.strerror if error.filename is not None else error  # decoders raise them too
        raise DataError(f"{path}: must be a whole, readable image; {reason}. Replace or remove the file.") from error
    except Exception as error:  # decoders raise what they like (OSError, SyntaxError, struct.error ...)
        raise DataError(f"{path}: must be a whole, readable image; {error}. Replace or remove the file.") from error


def upright(image: "Image") -> "Image":
    """Turn an image as its EXIF tag says."""
    from PIL import ImageOps

    if getattr(image, "is_animated", False) and image.format != "MPO":  # phones add a second view to one photo
        raise DataError(f"must be a single image; received {getattr(image, 'n_frames', 2)} frames. Save one of them.")
    return ImageOps.exif_transpose(image)


def _to_rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # older Pillow says I
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(f"must have 8 or 16 bits per channel; received mode {image.mode!r}. Convert it to 8 bits.")
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
