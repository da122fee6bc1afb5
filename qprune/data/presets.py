"""What a spec leaves open about its images, taken from what its network is trained for."""

from typing import Any

from attrs import evolve

from qprune import zoo
from qprune.data.info import NAMED
from qprune.errors import SpecError
from qprune.spec import DataSpec, Spec


def with_presets(spec: Spec) -> Spec:
    """The spec with the defaults that a network of another library has for its images.

    Taken are those of the weights that it starts from, ``model.weights`` (or ``weights_backbone``); of a network with
    fresh weights, those of the library's default weights. What the spec says itself stays.

    - ``mean`` and ``std``: of folders of images and of scenes, which have none of their own; of named sets only where
      the network starts from weights. Never of ``digits`` (one channel), and of images that are translated.
    - ``size`` (a number), ``resize``, ``interpolation`` and ``augment`` of ``folder``: the shorter side is resized and
      the middle cut out, and training images are augmented by RandomResizedCrop and RandomHorizontalFlip. With ``size``
      alone ``resize`` keeps its ratio to it; where ``size`` is [height, width], images are squeezed to it, as they are
      for other networks.

    Raises:
        SpecError: for weights that the network does not have.

    Example:
        >>> from qprune.spec import ModelSpec, OptimizerSpec, TrainSpec
        >>> train = TrainSpec(length="5ep", batch=64, optimizer=OptimizerSpec("sgd", lr=0.01))
        >>> spec = Spec(data=DataSpec("folder"), model=ModelSpec("torchvision/resnet18"), train=train)
        >>> with_presets(spec).data.resize
        256
    """
    model = spec.model
    try:
        found = None if model.start is None else weights_of(spec)
        if model.arch is None or not zoo.is_of_library(model.arch):
            return spec
        preset = zoo.preset_of(model.arch) if found is None else found.preset
    except ValueError as error:
        raise SpecError(f"model: {error} (model in {spec.name}).") from error
    return evolve(spec, data=_filled(spec.data, preset, trained=found is not None))


def weights_of(spec: Spec) -> zoo.Weights:
    """What the network of a spec with ``weights`` or ``weights_backbone`` starts from.

    Raises:
        ValueError: as `qprune.zoo.find_weights`.
    """
    assert spec.model.start is not None
    return zoo.find_weights(str(spec.model.arch), spec.model.start, backbone=spec.model.weights is None)


def _filled(data: DataSpec, preset: zoo.Preset, trained: bool) -> DataSpec:
    named = data.name in NAMED
    if data.is_own or data.translate or data.name in ("digits", "translation") or (named and not trained):
        return data
    values: dict[str, Any] = {}
    if data.mean is None:
        values = {"mean": preset.mean, "std": preset.std}
    if data.name == "folder":
        values |= _geometry(data, preset)
    return evolve(data, **values)


def _geometry(data: DataSpec, preset: zoo.Preset) -> dict[str, Any]:
    interpolation = data.interpolation or preset.interpolation
    if isinstance(data.size, tuple):
        return {"interpolation": interpolation}
    size = data.size or preset.size
    resize = data.resize or round(size * preset.resize / preset.size)
    augment = _augment(size, interpolation) if data.augment is None else data.augment
    return {"size": size, "resize": resize, "interpolation": interpolation, "augment": augment}


def _augment(size: int, interpolation: str) -> tuple[dict[str, Any], ...]:
    crop = {"name": "RandomResizedCrop", "size": size, "interpolation": interpolation}
    return crop, {"name": "RandomHorizontalFlip"}
