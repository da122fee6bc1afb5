"""From rules to a network with its compressors in place; `swap` does it to a network people already have."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qprune import zoo
from qprune.declared import build_declared
from qprune.errors import PlanError
from qprune.flow import Flow, trace
from qprune.layers import HOSTS, Compressed, sites
from qprune.spec import PruneRule, QuantizeRule, Selector, Spec

Rule = PruneRule | QuantizeRule


def assemble(spec: Spec, classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """Build a spec's network at step 0, with its masks and quantizers in place.

    Args:
        spec: what to build.
        classes: number of classes of its data.
        shape: ``(C, H, W)`` of one image.

    Raises:
        SpecError: for a network that cannot be made.
        PlanError: for rules that do not fit it; every mistake is one line.
    """
    example = torch.zeros(2, *shape)
    if spec.model.layers:
        net = build_declared(spec.model.layers, example)
    else:
        options = {"classes": classes, "in_channels": shape[0], "width": spec.model.width} | spec.model.options
        net = zoo.create(str(spec.model.arch), **options)
    if spec.prune or spec.quantize:
        compress(net, trace(net, example), spec.prune, spec.quantize, numerics=spec.numerics, origin=spec.name)
    return net


def swap(
    net: nn.Module,
    example: Any,
    prune: Sequence[PruneRule] = (),
    quantize: Sequence[QuantizeRule] = (),
    numerics: str = "default",
) -> nn.Module:
    """A copy of ``net`` whose layers can be pruned and quantized; every dense key of its ``state_dict`` keeps its name.

    Each chosen layer becomes its ``Compressed<Type>``; hooks are kept and shared layers stay shared. Normalizations behind
    a weight mask follow it. ``net`` is not touched; make the optimizer from the copy.

    Args:
        net: any network of torch layers.
        example: an input of it (a tensor or a tuple of arguments), run once on the meta device.
        prune: rules for masks.
        quantize: rules for quantizers.
        numerics: ``"default"`` or ``"paper"``.

    Raises:
        PlanError: for rules that match nothing, do not fit or contradict each other; every mistake is one line.
    """
    copied = copy.deepcopy(net)
    compress(copied, trace(copied, example), prune, quantize, numerics=numerics, origin="swap")
    return copied


def compress(
    net: nn.Module,
    flow: Flow,
    prune: Sequence[PruneRule],
    quantize: Sequence[QuantizeRule],
    *,
    numerics: str,
    origin: str,
) -> None:
    """Put the compressors of all rules into ``net``, in place."""
    work = _Work(net, flow, origin)
    for index, rule in enumerate(prune):
        work.apply(rule, f"prune[{index}]", "mask", _mask_options(rule))
    for index, quant_rule in enumerate(quantize):
        work.apply(quant_rule, f"quantize[{index}]", "quant", _quant_options(quant_rule, numerics))
    if work.mistakes:
        raise PlanError("\n".join(work.mistakes))
    for fill in work.todo:
        fill()
    tie_norms(net, flow)


def _mask_options(rule: PruneRule) -> Callable[[str], dict[str, Any]]:
    options = {"importance": rule.importance, "multiple_of": rule.multiple_of, "schedule": rule.schedule}
    return lambda side: dict(options)


def _quant_options(rule: QuantizeRule, numerics: str) -> Callable[[str], dict[str, Any]]:
    options = {"bits": rule.bits, "per": rule.per, "gradient": rule.gradient, "schedule": rule.schedule}
    return lambda side: (
        options
        | {
            "numerics": numerics,
            "symmetric": side == "weight" if rule.symmetric is None else rule.symmetric,
        }
    )


@define
class _Work:
    """Rules being applied: mistakes are collected, and nothing is changed until there are none."""

    net: nn.Module
    flow: Flow
    origin: str
    mistakes: list[str] = field(factory=list)
    todo: list[Callable[[], Any]] = field(factory=list)
    taken: dict[tuple[str, str, str], str] = field(factory=dict)

    def apply(self, rule: Rule, key: str, kind: str, options: Callable[[str], dict[str, Any]]) -> None:
        for index, selector in enumerate(rule.sites):
            where = f"{key}.sites[{index}]"
            for path in self._select(selector, rule.exclude, where):
                self._claim(path, selector.at, kind, where, options(selector.at))

    def _wrong(self, sentence: str, where: str) -> None:
        line = f"{sentence} ({where} in {self.origin})."
        if line not in self.mistakes:
            self.mistakes.append(line)

    def _select(self, selector: Selector, exclude: Iterable[str], where: str) -> list[str]:
        typed = [path for path, module in self.net.named_modules() if _is_one_of(module, selector.types)]
        if not typed:
            self._wrong(_no_type(self.net, selector.types), where)
            return []
        found = [p for p in typed if not selector.paths or _matches(p, selector.paths)]
        for pattern in selector.paths:
            if not _any_match(typed, pattern):
                self._wrong(_no_path(typed, pattern), where)
        kept = [p for p in found if not _matches(p, (*selector.exclude, *exclude))]
        kept.sort(key=self.flow.position)
        skipped = {kept[i] for i in selector.skip if -len(kept) <= i < len(kept)}
        for i in selector.skip:
            if not -len(kept) <= i < len(kept):
                self._wrong(f"skip = {i} is out of range: the selector matches {len(kept)} layers", where)
        chosen = [p for p in kept if p not in skipped]
        if found and not chosen:
            self._wrong(f"The {len(found)} layers that match are all excluded or skipped", where)
        return chosen

    def _claim(self, path: str, side: str, kind: str, where: str, options: dict[str, Any]) -> None:
        module, site = self.net.get_submodule(path), f"{path}.{side}"
        other = self.taken.setdefault((path, side, kind), where)
        refusal = self._refusal(module, path, side, kind)
        if refusal:
            self._wrong(refusal, where)
        elif other != where:
            self._wrong(f'"{site}" already has a {kind} by {other}; use exclude in one of the rules', where)
        else:
            if side == "output" and not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                options = options | {"channels": self.flow.of(path)[0].shape[1]}
            self.todo.append(lambda: fill(module, side, kind, options))

    def _refusal(self, module: nn.Module, path: str, side: str, kind: str) -> str:
        problem = not_a_host(module)
        if problem:
            return f'"{path}" {problem}'
        if side not in host_of(module).sides:
            return f'"{path}" ({_name(module)}) has sites at {", ".join(host_of(module).sides)}; received at = "{side}"'
        if isinstance(module, Compressed) and module.slot(side, kind) is not None:
            return f'"{path}.{side}" already has a {kind} of its own'
        calls = self.flow.of(path)
        if not calls:
            return f'"{path}" never runs when the network does'
        if side != "weight" and len(calls) > 1:
            at = " and ".join(f"{call.index}" for call in calls)
            return (
                f'"{path}" runs {len(calls)} times in one forward (operations {at}), so its {side} is no one place; '
                'use the inputs of the convolutions behind it: types = ["Conv2d"], at = "input"'
            )
        if kind == "mask" and side != "input" and path in self.flow.output_paths():
            return f'"{path}.{side}" holds the network\'s output channels, which cannot be pruned; exclude it'
        return ""


def _is_one_of(module: nn.Module, types: Sequence[str]) -> bool:
    names = {cls.__name__ for cls in type(module).__mro__}
    return bool(names & set(types)) if types else type(module) in HOSTS or isinstance(module, Compressed)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _any_match(paths: Iterable[str], pattern: str) -> bool:
    return any(fnmatchcase(path, pattern) for path in paths)


def _no_type(net: nn.Module, types: Sequence[str]) -> str:
    present = sorted({_name(m) for m in net.modules() if type(m) in HOSTS or isinstance(m, Compressed)})
    near = get_close_matches(types[0], present, n=1) if types else []
    hint = f'Nearest: "{near[0]}"' if near else f"It has {', '.join(present)}"
    return f"The network has no layer of type {', '.join(map(repr, types))}. {hint}"


def _no_path(paths: Sequence[str], pattern: str) -> str:
    # the nearest pattern is the same pattern with one component taken from a real path
    candidates = {pattern.replace(_last(pattern), _last(path)) for path in paths} | set(paths)
    near = [p for p in get_close_matches(pattern, sorted(candidates), n=3, cutoff=0.5) if _any_match(paths, p)]
    count = sum(fnmatchcase(path, near[0]) for path in paths) if near else 0
    hint = f'Nearest: "{near[0]}" ({count} layer{"s" * (count != 1)})' if near else f'One of them is "{paths[0]}"'
    return f'No layer matches "{pattern}". {hint}'


def _last(dotted: str) -> str:
    return dotted.rsplit(".", 1)[-1]


def _name(module: nn.Module) -> str:
    return next((plain.__name__ for plain in HOSTS if isinstance(module, plain)), type(module).__name__)


def host_of(module: nn.Module) -> type[Compressed]:
    """The class that ``module`` is or becomes when it gets a site."""
    if isinstance(module, Compressed):
        return type(module)
    return next(host for plain, host in HOSTS.items() if isinstance(module, plain))


def not_a_host(module: nn.Module) -> str:
    """Why ``module`` cannot have a site; empty if it can."""
    plain = next((plain for plain in HOSTS if isinstance(module, plain)), None)
    if plain is None:
        return f"is a {type(module).__name__}, which cannot have a site; those that can: {', '.join(map(_type_name, HOSTS))}"
    if parametrize.is_parametrized(module):
        return "has a parametrized weight; remove it first with torch.nn.utils.parametrize.remove_parametrizations"
    own = [
        name for name in ("forward", "_conv_forward") if getattr(type(module), name, 0) is not getattr(plain, name, 0)
    ]
    if own and not isinstance(module, Compressed):
        return f"is a {type(module).__name__} with its own {own[0]}, which a {plain.__name__} host would not run"
    return ""


def _type_name(cls: type) -> str:
    return cls.__name__


def fill(module: nn.Module, side: str, kind: str, options: dict[str, Any]) -> None:
    """Make ``module`` a host, if it is not one yet, and fill one of its slots."""
    if not isinstance(module, Compressed):
        # Same object, new class: its hooks, parameters, and every place that shares it stay as they are.
        module.__class__ = host_of(module)
        module.open_slots()  # type: ignore[operator]
    add = module.add_mask if kind == "mask" else module.add_quant
    add(side, **options)  # type: ignore[operator]


def tie_norms(net: nn.Module, flow: Flow) -> None:
    """Let every normalization follow the weight masks whose outputs it reads.

    A dropped output channel is 0, but the shift of the normalization behind it would bring it back to life.

    Raises:
        PlanError: if such a normalization has a mask of another rule.
    """
    for norm_path, ties in _ties(net, flow).items():
        norm = net.get_submodule(norm_path)
        if isinstance(norm, Compressed) and norm.slot("output", "mask") is not None:
            if norm.slot("output", "mask").tied == tuple(ties):
                continue
            raise PlanError(
                f'"{norm_path}.output" must follow the weight mask of "{ties[0][0]}" but has a mask of its own; '
                "exclude one of the two from its rule."
            )
        fill(norm, "output", "mask", {"importance": "tied", "tied": tuple(ties)})


def _ties(net: nn.Module, flow: Flow) -> dict[str, list[tuple[str, int]]]:
    ties: dict[str, list[tuple[str, int]]] = {}
    for site in sites(net):
        if site.side == "weight" and site.mask is not None:
            for norm_path, offset in _norms_behind(net, flow, site.path):
                ties.setdefault(norm_path, []).append((site.name, offset))
    return ties


def _norms_behind(net: nn.Module, flow: Flow, path: str) -> Iterator[tuple[str, int]]:
    for norm_path, offset in flow.norms_reading(path):
        norm = net.get_submodule(norm_path)
        shifts = norm.affine or norm.track_running_stats
        if shifts and len(flow.of(norm_path)) == 1 and not not_a_host(norm):
            yield norm_path, offset


def to_dense(net: nn.Module) -> nn.Module:
    """A copy of ``net`` made of plain layers, with masks and quantized weights baked in.

    Pruned channels stay zero: masks at weights, convolution inputs and normalizations go into the parameters, to the bit;
    a mask on a layer without parameters becomes a fixed depthwise convolution behind it. Activation quantizers are left
    out, so a network with active ones computes slightly different values.

    Raises:
        PlanError: for a mask on the output of a sum or concatenation, which no plain layer can hold.

    Example:
        >>> type(to_dense(PrunedConv2d(2, 3, 1))).__name__
        'Conv2d'
    """
    dense = copy.deepcopy(net)
    for path, module in list(dense.named_modules()):
        if isinstance(module, Compressed):
            gate = _bake(path, module)
            if gate is not None:
                dense = _replace(dense, path, nn.Sequential(module, gate))
    return dense


@torch.no_grad()
def _bake(path: str, module: Any) -> nn.Module | None:
    mask, plain = module.slot("output", "mask"), next(p for p in HOSTS if isinstance(module, p))
    if module.slot(module.sides[0], "mask") is not None or mask is not None or "weight" in module.sides:
        _bake_parameters(module)
    for side in module.sides:
        delattr(module, f"{side}_mask")
        delattr(module, f"{side}_quant")
    module.__class__ = plain
    if mask is None or getattr(module, "weight", None) is not None:
        return None
    if issubclass(plain, zoo.Add | zoo.Concat):
        raise PlanError(
            f'"{path}.output" has a mask, and no plain layer can hold it; prune the inputs behind it instead.'
        )
    return _gate(mask.keep)


def _bake_parameters(module: Any) -> None:
    if "weight" in module.sides:
        weight, bias = module._weight_and_bias()
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
    for parameter, keep in module.kept_entries():
        parameter.copy_(torch.where(keep, parameter, 0))


def _gate(keep: Tensor) -> nn.Conv2d:
    gate = nn.Conv2d(len(keep), len(keep), 1, groups=len(keep), bias=False, device=keep.device).requires_grad_(False)
    gate.weight.copy_(keep.view(-1, 1, 1, 1))
    return gate


def _replace(net: nn.Module, path: str, new: nn.Module) -> nn.Module:
    if not path:
        return new
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, new)
    return net
