"""The networks of torchvision and their weights."""

import re
from collections.abc import Mapping
from inspect import signature
from typing import Any, get_args

from torch import Tensor, nn

from qprune.zoo.library import Library
from qprune.zoo.state_files import State
from qprune.zoo.weights import HubFile, Preset, Weights


class Torchvision(Library):
    """Networks of torchvision for classification and segmentation; of the latter the output is ``"out"`` alone."""

    title = "torchvision"
    channels = 3

    def names(self) -> list[str]:
        """All that its registry lists for images with one class, or one class per pixel."""
        from torchvision import models

        return [*models.list_models(module=models), *models.list_models(module=models.segmentation)]

    def make(self, name: str, classes: int, in_channels: int, options: Mapping[str, Any]) -> nn.Module:
        """Without weights and, where there are some, without heads for training alone."""
        from torchvision import models

        of_scenes = name in models.list_models(module=models.segmentation)
        plain = {"weights_backbone": None} if of_scenes else WITHOUT_HEADS.get(name, {})
        net = models.get_model(name, **{"weights": None, "num_classes": classes, **plain, **options})
        return OutOf(net) if of_scenes else net

    def preset(self, name: str) -> Preset:
        """That of the weights' transforms."""
        return self.listed(name)["DEFAULT"].preset

    def listed(self, name: str, backbone: bool = False) -> dict[str, Weights]:
        """The members of its enum for the network; of a backbone those of the network that it was cut from."""
        from torchvision import models

        if not backbone:
            members = models.get_model_weights(name).__members__
        else:
            argument = signature(models.get_model_builder(name)).parameters.get("weights_backbone")
            members = get_args(argument.annotation)[0].__members__ if argument else {}
        title = f"torchvision/{name}" if not backbone else f"the backbone of torchvision/{name}"
        return {
            key: Weights(f"the weights {member.name} of {title}", _preset(member.transforms()), (HubFile(member.url),))
            for key, member in members.items()
        }

    def needed(self, name: str) -> dict[str, Any]:
        """Two networks were trained on images of another scale, to which they bring theirs themselves."""
        return {"transform_input": True} if name in WITHOUT_HEADS else {}

    def native(self, name: str, state: State, in_channels: int, options: Mapping[str, Any]) -> State:
        """Without heads for training alone; densenets' files have names of an older torch, scenes' nets are wrapped."""
        from torchvision import models

        kept = {key: value for key, value in state.items() if not key.startswith(_HEADS_OF_TRAINING)}
        if name.startswith("densenet"):
            kept = {_OLD_DENSE.sub(r"\1\2", key): value for key, value in kept.items()}
        if name in models.list_models(module=models.segmentation):
            kept = {f"net.{key}": value for key, value in kept.items()}
        return kept


_HEADS_OF_TRAINING = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")
_OLD_DENSE = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def _preset(transforms: Any) -> Preset:
    crop = getattr(transforms, "crop_size", None)  # nets for scenes take any size
    sizes = {"size": crop[0], "resize": transforms.resize_size[0]} if crop else {}
    statistics = tuple(transforms.mean), tuple(transforms.std)
    return Preset(*statistics, **sizes, interpolation=transforms.interpolation.value)


# options that leave out the heads which training alone uses, and a warning about how weights are made
WITHOUT_HEADS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


class OutOf(nn.Module):
    """A network that returns a dictionary, with only its ``"out"``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """What the network calls ``"out"``."""
        out: Tensor = self.net(x)["out"]
        return out
