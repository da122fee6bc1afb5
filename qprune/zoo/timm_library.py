"""The networks of timm and their weights."""

from collections.abc import Mapping
from math import floor
from types import ModuleType
from typing import Any

from torch import nn

from qprune.zoo.library import Library
from qprune.zoo.state_files import State
from qprune.zoo.weights import HubFile, HuggingFaceFile, Place, Preset, Weights


class Timm(Library):
    """Networks of timm for classification."""

    title = "timm"

    def names(self) -> list[str]:
        """All that its registry lists."""
        return list(_timm().list_models())

    def make(self, name: str, classes: int, in_channels: int, options: Mapping[str, Any]) -> nn.Module:
        """Without weights."""
        net: nn.Module = _timm().create_model(name, **{"num_classes": classes, "in_chans": in_channels, **options})
        return net

    def preset(self, name: str) -> Preset:
        """That of its default ``pretrained_cfg``."""
        return _timm_preset(_timm().get_pretrained_cfg(name))

    def listed(self, name: str, backbone: bool = False) -> dict[str, Weights]:
        """Its tags; ``"DEFAULT"`` is the one that timm takes if none is named."""
        timm = _timm()
        tags = [] if backbone else [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
        default = timm.get_pretrained_cfg(name)
        configs = {"DEFAULT": default} if default.has_weights and not backbone else {}
        configs |= {tag: timm.get_pretrained_cfg(f"{name}.{tag}") for tag in tags if tag}
        return {key: _timm_weights(name, config) for key, config in configs.items()}

    def native(self, name: str, state: State, in_channels: int, options: Mapping[str, Any]) -> State:
        """As timm itself takes a file into a network: names of other sources changed, the first layer's inputs adapted.

        What it refuses stays as it is, to be compared name by name.
        """
        timm = _timm()
        config = timm.get_pretrained_cfg(name)
        head = state.get(f"{config.classifier}.weight")
        classes = config.num_classes if head is None else len(head)
        overlay = {"state_dict": dict(state), "num_classes": classes}
        try:
            net = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, in_chans=in_channels,
                **options,
            )  # fmt: skip
        except (RuntimeError, KeyError, ValueError, TypeError):  # names or shapes are not what its reader takes
            return state
        return dict(net.state_dict())


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            f'networks of timm/ need the package of the extra "timm": pip install "qprune[timm]" ({error})'
        ) from error
    return timm


def _timm_preset(config: Any) -> Preset:
    size = config.input_size[1]
    # also where crop_mode is "squash" or "border", as of a few: there timm squeezes or pads what is cut out here
    resize = max(size, floor(size / config.crop_pct))  # of a few it is less, and timm puts black around the image
    return Preset(tuple(config.mean), tuple(config.std), size, resize, config.interpolation)


def _timm_weights(name: str, config: Any) -> Weights:
    title = f"the weights {config.tag} of timm/{name}" if config.tag else f"the weights of timm/{name}"
    named = {"names": (config.hf_hub_filename,)} if config.hf_hub_filename else {}
    hub = [HuggingFaceFile(config.hf_hub_id, **named)] if config.hf_hub_id else []
    places: tuple[Place, ...] = (*hub, *([HubFile(config.url)] if config.url else []))
    return Weights(title, _timm_preset(config), places, refusal=_FORMAT if config.custom_load else "")


_FORMAT = (
    "are in a format that timm alone reads: make the network in Python, with pretrained=True, and hand it to fit as "
    "model="
)
