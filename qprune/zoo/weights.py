"""Trained weights of other libraries' networks: where their file is, and what images they are for."""

import re
from pathlib import Path
from typing import Protocol
from urllib.parse import urlparse

import torch
from attrs import frozen

from qprune.errors import CheckpointError

_HASH = re.compile(r"-([a-f0-9]{8,})\.")  # of the content, in the names of torch.hub's files


@frozen
class Preset:
    """What images a network was trained for.

    Attributes:
        mean: per channel, of pixels in [0, 1]; subtracted first.
        std: per channel; divided by.
        size: pixels a side of an image.
        resize: pixels of its shorter side before the middle is cut out.
        interpolation: ``"bilinear"`` or ``"bicubic"``.

    Example:
        >>> preset_of("torchvision/resnet18").resize
        256
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int = 224
    resize: int = 256
    interpolation: str = "bilinear"


class Place(Protocol):
    """Where a file of weights is looked for."""

    @property
    def told(self) -> str:
        """The place, for a sentence."""

    def here(self) -> Path | None:
        """The file, if it is on this machine."""

    def fetch(self) -> None:
        """Bring it to this machine."""


@frozen
class HubFile:
    """A file of an address, in torch.hub's cache."""

    url: str

    @property
    def path(self) -> Path:
        """Where it is, or would be."""
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(self.url).path).name

    @property
    def told(self) -> str:
        """The path and the address."""
        return f"{self.path} ({self.url})"

    def here(self) -> Path | None:
        """The path, if there is a file."""
        return self.path if self.path.is_file() else None

    def fetch(self) -> None:
        """Download it, and compare its content with the hash in its name."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found = _HASH.search(self.path.name)
        torch.hub.download_url_to_file(self.url, str(self.path), found and found[1], progress=False)


@frozen
class HuggingFaceFile:
    """A file of a repository on the Hugging Face hub, in its own cache."""

    repository: str
    names: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")  # the first that is there counts

    @property
    def told(self) -> str:
        """File and repository."""
        return f"{self.names[0]} of {self.repository} in the cache of the Hugging Face hub"

    def here(self) -> Path | None:
        """The file in the cache."""
        from huggingface_hub import try_to_load_from_cache

        found = (try_to_load_from_cache(self._id, name, revision=self._revision) for name in self.names)
        return next((Path(path) for path in found if isinstance(path, str)), None)

    def fetch(self) -> None:
        """Download the first that the repository has."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        for name in self.names:
            try:
                hf_hub_download(self._id, name, revision=self._revision)
                return
            except EntryNotFoundError:
                if name == self.names[-1]:
                    raise

    @property
    def _id(self) -> str:
        return self.repository.partition("@")[0]

    @property
    def _revision(self) -> str | None:
        return self.repository.partition("@")[2] or None


@frozen
class Weights:
    """Weights as a library lists them, or a file of the user's own.

    Attributes:
        title: what they are, for sentences.
        preset: the images that they were trained for.
        places: where they may lie, the first of which is fetched.
        file: the user's own file, which has no places.
        refusal: why they cannot be taken, in a sentence; empty if they can.

    Example:
        >>> find_weights("torchvision/resnet18", "DEFAULT").places[0].path.name
        'resnet18-f37072fd.pth'
    """

    title: str
    preset: Preset
    places: tuple[Place, ...] = ()
    file: Path | None = None
    refusal: str = ""

    def here(self) -> Path | None:
        """The file, if it is on this machine."""
        if self.file is not None:
            return self.file if self.file.is_file() else None
        return next((path for place in self.places if (path := place.here()) is not None), None)

    def get(self, download: bool = False) -> Path:
        """The file; downloaded, if it is not there and that is asked for.

        Raises:
            CheckpointError: if it is not there, or cannot be downloaded.
        """
        found = self.here()
        if found is not None:
            return found
        if self.file is not None:
            raise CheckpointError(f"There is no file {self.file}, which is to hold {self.title}.")
        wanted = " or ".join(place.told for place in self.places)
        if not download:
            raise CheckpointError(
                f"{self.title} must be on this machine; looked for {wanted}. Fetch the file with --download "
                "(download=True in Python), put it there, or name one that is here."
            )
        try:
            self.places[0].fetch()
        except Exception as error:  # of whatever carries it: urllib, requests, the disk, a hash that differs
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise CheckpointError(
                f"{self.title} could not be fetched: {reason}. Check the network, or put the file there yourself: "
                f"{wanted}."
            ) from error
        return self.get()
