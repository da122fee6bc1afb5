"""The rest of the recipe: data, optimizer, learning rate and the length of training."""

import re
from typing import Any

from attrs import Factory, field, fields, frozen, validators

from qprune.errors import SpecError
from qprune.schedules import Duration
from qprune.spec.teacher import TeacherSpec
from qprune.spec.values import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    SWITCH,
    WORD,
    Requirement,
    Table,
    as_float,
    as_tuple,
    duration,
    durations,
    is_number,
    is_whole,
    items,
    must,
    number,
    one_of,
    shown,
    whole,
)

_TRANSFORMS = validators.optional(
    items(
        lambda v: isinstance(v, dict) and isinstance(v.get("name"), str),
        'a list of tables with a name, such as [{ name = "RandomHorizontalFlip" }]',
    )
)
_MEANS = validators.optional(items(is_number, "a list of numbers, one per channel"))
_STDS = validators.optional(
    items(lambda v: is_number(v) and v > 0, "a list of numbers greater than 0, one per channel")
)
_SIZE = validators.optional(
    must(
        lambda v: all(
            is_whole(n) and 1 <= n <= 16384 for n in (v if isinstance(v, list | tuple) and len(v) == 2 else [v])
        ),
        "a whole number from 1 to 16384, or [height, width]",
    )
)
_RESIZE = validators.optional(whole(1, 16384))
_BETAS = must(
    lambda v: isinstance(v, list | tuple) and len(v) == 2 and all(is_number(b) and 0 <= b < 1 for b in v),
    "two numbers in [0, 1)",
)

LOADING = ("workers", "prefetch")  # how data is loaded, whosever it is
_DECAY = number("a number greater than 0 and less than 1", lambda v: 0 < v < 1)


def _duration_or_minutes(instance: Any, attribute: Any, value: Any) -> None:
    if minutes(value) is None:
        try:
            duration(1)(instance, attribute, value)
        except SpecError as error:
            raise SpecError(f'{error}; or give minutes, such as "10min"') from None


_MINUTES = Requirement(f'{duration().words}, or minutes such as "10min"', _duration_or_minutes)


def minutes(duration: Duration | None) -> float | None:
    """The number in ``"10min"``; None for a duration in steps or epochs.

    Example:
        >>> minutes("10min"), minutes("500it")
        (10.0, None)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)min", duration) if isinstance(duration, str) else None
    return float(found[1]) if found and float(found[1]) > 0 else None


def _refuse_unused(spec: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(spec, name)
        if value != getattr(fields(type(spec)), name).default:
            raise SpecError(f'{name} has no effect with name = "{spec.name}": leave it out; received {shown(value)}')


@frozen
class DataSpec:
    """The ``[data]`` table: which images, how they are augmented and how many are kept for choosing.

    Without a ``name`` the data is the user's own, handed over as ``data=`` to `qprune.fit`; then only ``workers`` and
    ``prefetch`` mean anything.

    Attributes:
        name: images with a class each: ``"digits"``, ``"cifar10"``, ``"cifar100"`` or ``"folder"``; scenes with a class
            for every pixel: ``"streets"``, ``"camvid"``, ``"cityscapes"`` or ``"segmentation"``; or ``"translation"``,
            images in pairs.
        root: folder of the data; by default the one the command line gives.
        size: images are resized to this many pixels a side, or to [height, width]; by default they keep their size.
        resize: of ``"folder"``: images are not squeezed to ``size``: their shorter side is resized to this many pixels,
            and the middle is cut out; images are augmented as they are stored.
        interpolation: of ``"folder"``: ``"nearest"``, ``"bilinear"`` (the default) or ``"bicubic"``.
        translate: ``"AtoB"`` or ``"BtoA"``: the network makes images of one kind from those of the other. Of scenes, A
            are the photos and B their labels in colours.
        unpaired: of ``translate``: train with a target drawn anew each time, in place of the one that belongs to the
            input.
        augment: transforms of torchvision.transforms.v2 for training images, in order: ``name`` is the class, the other
            keys are its arguments. Also ``RandomTranslate`` and ``RandomGamma``. An image and its labels, or the two
            of a pair, are transformed alike, as they are stored; ``size`` comes after. By default there is none.
        mean: per channel, subtracted from images in [0, 1]; by default the data set's own.
        std: per channel, images are divided by it; by default the data set's own. Where the network is one of another
            library, the defaults are what its weights were trained for, see `qprune.data.with_presets`.
        validation: share of the training images kept for choosing the best epoch, in [0, 1); 0 keeps none. Not used
            where the data set has a validation split of its own.
        train_images: use only this many training images, drawn evenly from the classes; by default all.
        workers: processes that load images; 0 loads in the training process. By default 0 where images are in memory,
            and for files that are decoded as they are used one fewer than there are cores, at most 8.
        prefetch: batches that each of them keeps ready.
        download: fetch a named data set that is not there yet.

    Raises:
        SpecError: for a wrong type, a value out of range, ``mean`` and ``std`` of different lengths, a ``resize`` below
            ``size``, or a key that has no effect beside the others.

    Example:
        >>> DataSpec("cifar10", augment=[{"name": "RandomCrop", "size": 32, "padding": 4}]).validation
        0.1
    """

    name: str = field(default="", validator=must(lambda v: isinstance(v, str), "a string"))
    root: str | None = field(default=None, validator=validators.optional(WORD))
    size: int | tuple[int, int] | None = field(default=None, converter=as_tuple, validator=_SIZE)
    augment: tuple[Table, ...] | None = field(default=None, converter=as_tuple, validator=_TRANSFORMS, hash=False)
    mean: tuple[float, ...] | None = field(default=None, converter=as_float, validator=_MEANS)
    std: tuple[float, ...] | None = field(default=None, converter=as_float, validator=_STDS)
    validation: float = field(default=0.1, converter=as_float, validator=SHARE)
    train_images: int | None = field(default=None, validator=validators.optional(whole(1)))
    workers: int | None = field(default=None, validator=validators.optional(whole(0)))
    download: bool = field(default=False, validator=SWITCH)
    translate: str | None = field(default=None, validator=validators.optional(one_of("AtoB", "BtoA")))
    unpaired: bool = field(default=False, validator=SWITCH)
    prefetch: int = field(default=2, validator=whole(1))
    resize: int | None = field(default=None, validator=_RESIZE)
    interpolation: str | None = field(
        default=None, validator=validators.optional(one_of("nearest", "bilinear", "bicubic"))
    )

    def __attrs_post_init__(self) -> None:
        if self.is_own:
            self._refuse_what_a_name_is_for()
        if self.unpaired and self.translate is None:
            raise SpecError('unpaired has no effect without translate = "AtoB" or "BtoA": leave it out; received true')
        sides = self.size if isinstance(self.size, tuple) else (self.size or 0,)
        if self.resize is not None and self.resize < max(sides):
            raise SpecError(
                "resize must be at least size, which is cut out of the resized image; received resize = "
                f"{self.resize} and size = {shown(self.size)}"
            )
        if len(self.mean or ()) != len(self.std or ()):
            raise SpecError(
                f"mean and std must have one number per channel each; received {shown(self.mean)} and {shown(self.std)}"
            )

    def _refuse_what_a_name_is_for(self) -> None:
        for attribute in fields(DataSpec):
            value = getattr(self, attribute.name)
            if attribute.name not in LOADING and value != attribute.default:
                raise SpecError(
                    f"{attribute.name} has no effect without the name of a data set: add name, or leave it out; "
                    f"received {shown(value)}"
                )

    @property
    def is_own(self) -> bool:
        """Whether the data is none that the spec knows, but the user's own.

        Example:
            >>> DataSpec(workers=4).is_own, DataSpec("digits").is_own
            (True, False)
        """
        return not self.name

    def for_own_data(self) -> "DataSpec":
        """The table for data of the user's own, of which only the loading options remain.

        Example:
            >>> DataSpec("cifar10", validation=0.0, workers=4).for_own_data() == DataSpec(workers=4)
            True
        """
        return DataSpec(workers=self.workers, prefetch=self.prefetch)


@frozen
class OptimizerSpec:
    """The ``train.optimizer`` table.

    Attributes:
        name: ``"sgd"``, ``"adam"`` or ``"adamw"``.
        lr: learning rate, greater than 0.
        momentum: of sgd: the share of the last step that is taken again, in [0, 1).
        weight_decay: how strongly weights are pulled to 0, at least 0.
        nesterov: of sgd with momentum: Nesterov's form of it.
        betas: of adam and adamw: the decay of both running means, each in [0, 1).
        fused: change all weights in one operation, which is faster on a GPU; results differ by rounding.

    Raises:
        SpecError: for a wrong type, a value out of range, or an option that the optimizer does not have.

    Example:
        >>> OptimizerSpec("sgd", lr=0.1, momentum=0.9).weight_decay
        0.0
    """

    name: str = field(validator=one_of("sgd", "adam", "adamw"))
    lr: float = field(converter=as_float, validator=POSITIVE)
    momentum: float = field(default=0.0, converter=as_float, validator=SHARE)
    weight_decay: float = field(default=0.0, converter=as_float, validator=NOT_NEGATIVE)
    nesterov: bool = field(default=False, validator=SWITCH)
    betas: tuple[float, float] = field(default=(0.9, 0.999), converter=as_float, validator=_BETAS)
    fused: bool = field(default=False, validator=SWITCH)

    def __attrs_post_init__(self) -> None:
        _refuse_unused(self, ("betas",) if self.name == "sgd" else ("momentum", "nesterov"))
        if self.nesterov and not self.momentum:
            raise SpecError("nesterov needs a momentum greater than 0; received momentum = 0.0")


_UNUSED = {
    "constant": ("milestones", "gamma", "decay_from", "final"),
    "multistep": ("decay_from", "final"),
    "cosine": ("milestones", "gamma", "decay_from"),
    "linear": ("milestones", "gamma"),
    "onecycle": ("milestones", "gamma", "decay_from"),
}


@frozen
class LrSpec:
    """The ``train.lr_schedule`` table: how the learning rate changes.

    Attributes:
        name: ``"constant"``, ``"multistep"`` (times ``gamma`` at each milestone), ``"cosine"`` (half a cosine down to
            ``final``), ``"linear"`` (a line down to ``final``) or ``"onecycle"`` (half a cosine up from a 25th of
            ``lr``, then half a cosine down to ``final``).
        milestones: of multistep: when the rate is multiplied by ``gamma``.
        gamma: of multistep, in (0, 1]: by what the rate is multiplied.
        warmup: the rate rises linearly for so long from (nearly) 0. Of onecycle: how long it rises; by default for
            three tenths of training.
        decay_from: of linear: constant until then.
        final: of cosine, linear and onecycle: the rate at the end of training as a share of ``lr``, in [0, 1].

    Raises:
        SpecError: for a wrong type, a value out of range, multistep without milestones, or an option that the schedule
            does not have.

    Example:
        >>> LrSpec("multistep", milestones=["45ep", "65ep"], gamma=0.2).milestones
        ('45ep', '65ep')
    """

    name: str = field(default="constant", validator=one_of("constant", "multistep", "cosine", "linear", "onecycle"))
    milestones: tuple[Duration, ...] = field(default=(), converter=as_tuple, validator=durations)
    gamma: float = field(default=0.1, converter=as_float, validator=number("a number in (0, 1]", lambda v: 0 < v <= 1))
    warmup: Duration = field(default=0, validator=duration())
    decay_from: Duration = field(default=0, validator=duration())
    final: float = field(default=0.0, converter=as_float, validator=number("a number in [0, 1]", lambda v: 0 <= v <= 1))

    def __attrs_post_init__(self) -> None:
        _refuse_unused(self, _UNUSED[self.name])
        if self.name == "multistep" and not self.milestones:
            raise SpecError('A multistep schedule needs "milestones", such as ["60ep", "120ep"]')


LOGS = ("tensorboard", "mlflow", "wandb")
_LOGS = must(
    lambda v: isinstance(v, tuple) and all(word in LOGS for word in v) and len(set(v)) == len(v),
    'a list of "tensorboard", "mlflow" and "wandb", none of them twice',
)


REDUCE_OVERHEAD = "reduce-overhead"
_COMPILE = must(lambda v: isinstance(v, bool) or v == REDUCE_OVERHEAD, f'true, false or "{REDUCE_OVERHEAD}"')


@frozen(kw_only=True)
class TrainSpec:
    """The ``[train]`` table.

    Attributes:
        length: how long to train, ``"15ep"`` or ``"45000it"``.
        batch: images per step, of all processes together.
        validate_every: how often the scores are taken.
        optimizer: what changes the weights, see `OptimizerSpec`.
        lr_schedule: how the learning rate changes, see `LrSpec`; it is constant by default.
        channels_last: keep images and weights in channels-last memory layout, which is faster for convolutions.
        precision: ``"float32"``, or what autocast computes in while training, ``"bfloat16"`` or ``"float16"`` (whose
            loss is scaled). Scores, ranges and validation are in float32 always.
        accumulate: compute each batch in so many parts, to need less memory; the number of steps stays.
        clip_norm: scale gradients down to this norm; by default they stay as they are.
        ema: keep an exponential moving average of the weights with this decay, in (0, 1), such as 0.999, and make it
            the model; by default there is none.
        compile: compile the training steps with torch.compile: faster after minutes of preparation. With
            ``"reduce-overhead"`` a GPU records each compiled step once and replays it; on a CPU it is ``true``.
        checkpoint_every: write ``last.pt`` between validations too, ``"500it"``, ``"0.5ep"`` or ``"10min"``.
        shrink: when channels of frozen masks leave the network: ``"as-frozen"``, while pruning goes on;
            ``"after-pruning"``, once; ``"never"``, so that masks stay.
        log: where the history is written to beside ``history.csv``: any of ``"tensorboard"`` (the default),
            ``"mlflow"`` and ``"wandb"``.
        teacher: a trained network to learn from, see `TeacherSpec`; by default there is none.
        tf32: let GPUs round the factors of float32 products to TF32 while training, which is faster; validation is in
            float32 always. Results differ by more than rounding. Without it training is in float32 too.
        cudnn_benchmark: let cuDNN choose among its convolutions by timing them, which is faster where shapes stay;
            results may differ from run to run.
        recompute: compute masks and rounding of inputs and weights again in the backward, instead of keeping the
            results: the same bits, and of a step that prunes and quantizes torchvision's resnet50 (16 images of
            224 x 224) two thirds of the memory, for 3 % more processor time. Not beside ``compile``.

    Raises:
        SpecError: for a wrong type, a value out of range, ``"reduce-overhead"`` beside ``accumulate``, or ``compile``
            beside ``recompute``.

    Example:
        >>> TrainSpec(length="15ep", batch=128, optimizer=OptimizerSpec("sgd", lr=0.1)).validate_every
        '1ep'
    """

    length: Duration = field(validator=duration(1))
    batch: int = field(validator=whole(1))
    validate_every: Duration = field(default="1ep", validator=duration(1))
    optimizer: OptimizerSpec = field(validator=must(lambda v: isinstance(v, OptimizerSpec), "a table"))
    lr_schedule: LrSpec = field(default=Factory(LrSpec), validator=must(lambda v: isinstance(v, LrSpec), "a table"))
    channels_last: bool = field(default=True, validator=SWITCH)
    precision: str = field(default="float32", validator=one_of("float32", "bfloat16", "float16"))
    accumulate: int = field(default=1, validator=whole(1))
    clip_norm: float | None = field(default=None, converter=as_float, validator=validators.optional(POSITIVE))
    ema: float | None = field(default=None, converter=as_float, validator=validators.optional(_DECAY))
    compile: bool | str = field(default=False, validator=_COMPILE)
    checkpoint_every: Duration | None = field(default=None, validator=validators.optional(_MINUTES))
    shrink: str = field(default="never", validator=one_of("never", "as-frozen", "after-pruning"))
    log: tuple[str, ...] = field(default=("tensorboard",), converter=as_tuple, validator=_LOGS)
    teacher: TeacherSpec | None = field(
        default=None, validator=validators.optional(must(lambda v: isinstance(v, TeacherSpec), "a table"))
    )
    tf32: bool = field(default=False, validator=SWITCH)
    cudnn_benchmark: bool = field(default=False, validator=SWITCH)
    recompute: bool = field(default=False, validator=SWITCH)

    def __attrs_post_init__(self) -> None:
        if self.recompute and self.compile:
            raise SpecError(
                "recompute = true is for steps that are not compiled, because torch.compile decides itself what it "
                f"keeps: leave one of them out; received compile = {shown(self.compile)}"
            )
        if self.compile == REDUCE_OVERHEAD and self.accumulate > 1:
            raise SpecError(
                f'compile = "{REDUCE_OVERHEAD}" replays a recorded step, which would overwrite the gradients that '
                f"accumulate adds up: use compile = true, or accumulate = 1; received accumulate = {self.accumulate}"
            )
