"""From rules to a network with its compressors in place; `swap` does it to a network people already have."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from qprune import zoo
from qprune.complete import like_the_others, missing_quantizers
from qprune.coupling import couple
from qprune.declared import build_declared
from qprune.errors import PlanError, SpecError, as_lines
from qprune.exact import make_exact
from qprune.flow import Flow, hooked_copy, trace
from qprune.grouping import divide_masks
from qprune.layers import ChannelMask, Compressed, sites, take_apart
from qprune.numerics import numerics_of
from qprune.selection import Filling, choose, fill, not_a_host
from qprune.spec import ModelSpec, PruneRule, QuantizeRule, Spec, read_rules

Ties = dict[str, list[tuple[str, int]]]


def assemble(spec: Spec, classes: int, shape: tuple[int, int, int], model: nn.Module | None = None) -> nn.Module:
    """Make the network of a run at step 0, with its masks and quantizers in place.

    Args:
        spec: what to build.
        classes: number of classes of its data.
        shape: ``(C, H, W)`` of one image.
        model: a network of the user's own in place of the spec's, which is not touched: rules act on a copy. What masks
            and quantizers it has already stay, and rules add to them.

    Raises:
        SpecError: for a network that cannot be made.
        PlanError: for rules that do not fit it; every mistake is one line.
    """
    example = torch.zeros(2, *shape, device="meta")
    net = dense_network(spec.model, classes, shape, model)
    if spec.prune or spec.quantize or any(sites(net)):
        options: dict[str, Any] = {"numerics": spec.numerics, "complete": spec.complete, "origin": spec.name}
        compress(net, trace(net, example), spec.prune, spec.quantize, **options)
    return net


def dense_network(
    spec: ModelSpec, classes: int, shape: tuple[int, int, int], model: nn.Module | None = None
) -> nn.Module:
    """The network before any rule is applied: a copy of the user's own, one declared by layers, or one of the zoo.

    Raises:
        SpecError: for a network that cannot be made or copied, or if there is none.

    Example:
        >>> dense_network(ModelSpec("mobilenetv2"), classes=10, shape=(3, 32, 32)).classifier.out_channels
        10
    """
    if model is not None:
        return _apart(_copied(model))
    if spec.is_own:
        raise SpecError(
            "The spec names no network (model.arch, or [[model.layers]]), so it must be handed over: model=, in Python."
        )
    if spec.layers:
        return build_declared(spec.layers, torch.zeros(2, *shape, device="meta"))
    return _apart(_from_zoo(spec, classes, shape))


def _apart(net: nn.Module) -> nn.Module:
    take_apart(net)
    return net


def _copied(net: nn.Module) -> nn.Module:
    try:
        return hooked_copy(net)
    except Exception as error:  # of whatever the network holds: a lock, a file, a tensor that was computed
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpecError(
            f"{type(net).__name__} holds what cannot be copied ({reason}), and a copy of it is trained. Keep that "
            "outside of the network, or give the network a __deepcopy__."
        ) from error


def zoo_options(model: ModelSpec, classes: int, in_channels: int) -> dict[str, Any]:
    """The options with which a network of the zoo, or of another library, is made for its data.

    Raises:
        ValueError: for an unknown network, or a width that it has not.

    Example:
        >>> zoo_options(ModelSpec("vgg7", width=0.5), classes=10, in_channels=1)
        {'classes': 10, 'in_channels': 1, 'width': 0.5}
    """
    facts = {"classes": classes, "in_channels": in_channels, "width": model.width}
    known = zoo.options_of(str(model.arch))
    if model.width != 1 and "width" not in known:
        raise ValueError(f"{model.arch} has no width; received {model.width}")
    needed = zoo.needed_options(str(model.arch)) if isinstance(model.start, str) else {}
    own = zoo.own_options(str(model.arch), model.options)
    return {name: fact for name, fact in facts.items() if name in known} | needed | own


def _from_zoo(model: ModelSpec, classes: int, shape: tuple[int, int, int]) -> nn.Module:
    try:
        net = zoo.create(str(model.arch), **zoo_options(model, classes, shape[0]))
    except ValueError as error:
        raise SpecError(f"model: {error}.") from error
    _check_sides(model, getattr(net, "stride", 1), shape[1:])
    return net


def _check_sides(model: ModelSpec, stride: int, sides: tuple[int, ...]) -> None:
    if any(side % stride for side in sides):
        fits = [max(1, round(side / stride)) * stride for side in sides]
        raise SpecError(
            f"data.size must be of multiples of {stride} for {model.arch}; images have {sides[0]}x{sides[1]} "
            f"(height x width). Nearest: size = {fits}."
        )


def swap(
    net: nn.Module,
    example: Any,
    prune: Sequence[PruneRule | Mapping[str, Any]] = (),
    quantize: Sequence[QuantizeRule | Mapping[str, Any]] = (),
    numerics: str = "default",
    complete: bool = False,
) -> nn.Module:
    """A copy of a network of your own whose chosen layers can be pruned and quantized.

    Every dense key of its ``state_dict`` keeps its name; compressor keys are added. Hooks are kept and shared layers
    stay shared. ``net`` is not touched: make the optimizer from the copy, and a `ScheduleDriver`.

    Args:
        net: any network of torch layers.
        example: an input of it (a tensor or a tuple of arguments); only its shape matters.
        prune: rules as in a spec,
            ``{"sites": [{"types": ["Conv2d"], "at": "input"}], "sparsity": 0.75, "schedule": ...}``.
        quantize: rules as in a spec, ``{"sites": [...], "bits": 4, "start": 200}``.
        numerics: ``"default"``, ``"paper"``, or ``"exact"``: the exported file computes the same bits. It takes the
            masks and the statistics of normalizations as final; ``net`` must be trained.
        complete: also quantize to 8 bits what convolutions, sums and concatenations read and no rule quantizes, so
            that all of them have an integer form when exported.

    Raises:
        SpecError: for rules with mistakes.
        PlanError: for rules that match nothing, do not fit or contradict each other; every mistake is one line.
        ValueError: for a word that is no numerics.

    Example:
        >>> weights = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "per": "channel", "start": 0}
        >>> net = qprune.swap(resnet18(), torch.zeros(1, 3, 64, 64), quantize=[weights])
    """
    rules = read_rules(prune, quantize)
    remakes = numerics_of(numerics).remakes  # refuses another word before anything is done
    copied = copy.deepcopy(net)
    take_apart(copied)
    options: dict[str, Any] = {"numerics": numerics, "complete": complete, "origin": "swap"}
    compress(copied, trace(copied, example), rules.prune, rules.quantize, **options)
    if remakes:
        make_exact(copied, example)
    return copied


def compress(
    net: nn.Module,
    flow: Flow,
    prune: Sequence[PruneRule],
    quantize: Sequence[QuantizeRule],
    *,
    numerics: str,
    complete: bool,
    origin: str,
) -> None:
    """Put the compressors of all rules into ``net``, in place.

    At a mistake nothing is changed, unless it is that coupled masks cannot agree, which shows when they are in place.

    Raises:
        PlanError: with one line for every mistake.
    """
    fillings, mistakes = choose(net, flow, prune, quantize, numerics=numerics, origin=origin)
    mistakes += _conflicts(net, flow, fillings)
    if complete and not quantize:
        mistakes.append(f"complete = true completes the quantize rules, and there are none (complete in {origin}).")
    if mistakes:
        raise PlanError(as_lines(mistakes))
    for filling in fillings:
        fill(net, filling)
    if complete:
        for filling in missing_quantizers(flow, like_the_others(net)):
            fill(net, filling)
    tie_norms(net, flow)
    mistakes = couple(net, flow, fillings, origin)
    if mistakes:
        raise PlanError(as_lines(mistakes))
    divide_masks(net, flow)


def tie_norms(net: nn.Module, flow: Flow) -> None:
    """Let every normalization follow the weight masks whose outputs it reads.

    A dropped output channel is 0, but the shift of the normalization behind it would bring it back to life.
    """
    masked = [site.path for site in sites(net) if site.side == "weight" and site.mask is not None]
    for path, ties in _ties(net, flow, masked).items():
        mask = _output_mask(net, path)
        if mask is None:
            fill(net, Filling(path, "output", "mask", {"importance": "tied", "tied": tuple(ties)}))
        else:
            mask.tied = tuple(ties)


def _conflicts(net: nn.Module, flow: Flow, fillings: Iterable[Filling]) -> list[str]:
    new = {(f.path, f.side) for f in fillings if f.kind == "mask"}
    old = {(site.path, site.side) for site in sites(net) if site.mask is not None and not site.mask.ranking.follows}
    ties = _ties(net, flow, [path for path, side in sorted(old | new) if side == "weight"])
    return [
        f'"{path}.output" must follow the weight mask of "{sources[0][0]}" but has a mask of its own; '
        "exclude one of the two from its rule."
        for path, sources in ties.items()
        if (path, "output") in old | new
    ]


def _ties(net: nn.Module, flow: Flow, masked: Iterable[str]) -> Ties:
    ties: Ties = {}
    for path in masked:
        for norm_path, offset in _norms_behind(net, flow, path):
            ties.setdefault(norm_path, []).append((f"{path}.weight".lstrip("."), offset))
    return ties


def _norms_behind(net: nn.Module, flow: Flow, path: str) -> Iterator[tuple[str, int]]:
    for norm_path, offset in flow.norms_reading(path):
        norm: Any = net.get_submodule(norm_path)
        shifts = norm.affine or norm.track_running_stats
        if shifts and len(flow.of(norm_path)) == 1 and not not_a_host(norm):
            yield norm_path, offset


def _output_mask(net: nn.Module, path: str) -> ChannelMask | None:
    module = net.get_submodule(path)
    return module.slot("output", "mask") if isinstance(module, Compressed) else None
