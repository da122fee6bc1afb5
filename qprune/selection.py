"""From rules to the slots that they fill, or to the sentences that say why they cannot."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from attrs import define, field, frozen
from torch import nn
from torch.nn.utils import parametrize

from qprune.flow import Call, Flow
from qprune.importances import IMPORTANCES
from qprune.layers import HOSTS, Apart, Compressed, CompressedWeight, in_place_of
from qprune.per_path import PerPath
from qprune.spec import PruneRule, QuantizeRule, Selector
from qprune.spelling import closest, similar

Options = dict[str, Any]
WEIGHTED_HOSTS = tuple(plain for plain, host in HOSTS.items() if issubclass(host, CompressedWeight))


@frozen
class Filling:
    """One slot that is to be filled."""

    path: str  # module path of the host
    side: str  # "input", "weight" or "output"
    kind: str  # "mask" or "quant"
    options: Options  # options of the compressor
    rule: str = ""  # the rule that asks for it, such as "prune[0]"; empty if none does
    couple: bool = False  # whether that rule's masks are to agree where their channels are the same


def choose(
    net: nn.Module,
    flow: Flow,
    prune: Sequence[PruneRule],
    quantize: Sequence[QuantizeRule],
    *,
    numerics: str,
    origin: str,
) -> tuple[list[Filling], list[str]]:
    """Every slot that the rules fill, and every mistake in them; the network is only looked at.

    Quantizers get these ``numerics``, a word of `qprune.numerics.NUMERICS`; each mistake names the rules' origin.
    """
    choice = _Choice(net, flow, origin)
    for index, rule in enumerate(prune):
        choice.apply(rule, f"prune[{index}]", "mask", partial(_mask_options, rule))
    for index, quant_rule in enumerate(quantize):
        problem = quant_rule.problem(numerics)
        if problem:
            choice.wrong(problem, f"quantize[{index}].range")
            continue
        options = partial(_quant_options, quant_rule, numerics)
        choice.apply(quant_rule, f"quantize[{index}]", "quant", options)
    return choice.fillings, list(choice.mistakes)


def _mask_options(rule: PruneRule, path: str) -> Options:
    rule = rule.for_layer(path)
    return {"importance": rule.importance, "multiple_of": rule.multiple_of, "schedule": rule.schedule}


def _quant_options(rule: QuantizeRule, numerics: str, path: str) -> Options:
    rule = rule.for_layer(path)
    options = {"bits": rule.bits, "per": rule.per, "gradient": rule.gradient, "schedule": rule.schedule}
    options |= {"range": rule.range}
    symmetric = {} if rule.symmetric is None else {"symmetric": rule.symmetric}
    return options | symmetric | {"numerics": numerics}


@define
class _Choice:
    net: nn.Module
    flow: Flow
    origin: str
    mistakes: dict[str, None] = field(factory=dict)  # each once, in the order found
    fillings: list[Filling] = field(factory=list)
    taken: dict[tuple[str, str, str], str] = field(factory=dict)

    def apply(self, rule: PruneRule | QuantizeRule, key: str, kind: str, options_at: Callable[[str], Options]) -> None:
        matched: list[str] = []
        chosen: list[tuple[str, str, str]] = []
        for index, selector in enumerate(rule.sites):
            where = f"{key}.sites[{index}]"
            found = self._find(selector, where)
            matched += found
            chosen += [(path, selector.at, where) for path in self._narrow(found, selector, rule.exclude, where)]
        self._check_patterns(rule.exclude, self._names(matched), f"{key}.exclude")
        undecided = self._undecided(rule, dict.fromkeys(path for path, _, _ in chosen), key)
        for path, side, where in chosen:
            if path not in undecided:
                self._claim(path, side, kind, key, where, options_at(path), getattr(rule, "couple", False))

    def _undecided(self, rule: PruneRule | QuantizeRule, paths: Iterable[str], key: str) -> set[str]:
        """The layers for which no number of the rule's table decides, or more than one; all mistakes are noted."""
        if rule.table is None:
            return set()
        name, table = rule.table
        deciding = {path: table.deciding(path) for path in paths}
        for sentence in _table_mistakes(name, table, deciding):
            self.wrong(sentence, f"{key}.{name}")
        return {path for path, patterns in deciding.items() if len(patterns) != 1}

    def wrong(self, sentence: str, where: str) -> None:
        self.mistakes[f"{sentence} ({where} in {self.origin})."] = None

    def _check_patterns(self, patterns: Iterable[str], paths: Sequence[str], where: str) -> None:
        for pattern in patterns:
            if paths and not any(fnmatchcase(path, pattern) for path in paths):
                self.wrong(_no_path(paths, pattern), where)

    def _find(self, selector: Selector, where: str) -> list[str]:
        modules = dict(self.net.named_modules())
        for name in selector.types:
            if not any(_is_a(module, (name,)) for module in modules.values()):
                self.wrong(_no_type(self.net, name), where)
        typed = [
            p for p, m in modules.items()
            if _is_a(m, selector.types) or (not selector.types and {*self._names([p])} & {*selector.paths})
        ]  # fmt: skip
        typed = [p for p in typed if not isinstance(modules[p], Apart)]
        self._check_patterns(selector.paths, self._names(typed) or list(modules) * (not selector.types), where)
        return [p for p in typed if not selector.paths or self._matches(p, selector.paths)]

    def _names(self, paths: Iterable[str]) -> list[str]:
        """These paths; of a layer that another library's consists of, that one's, too."""
        return [name for path in paths for name in (path, self._library_path(path)) if name is not None]

    def _library_path(self, path: str) -> str | None:
        outer, _, own = path.rpartition(".")
        module = self.net.get_submodule(outer)
        return outer if isinstance(module, Apart) and own == module.own else None

    def _matches(self, path: str, patterns: Sequence[str]) -> bool:
        return any(_matches(name, patterns) for name in self._names([path]))

    def _narrow(self, found: list[str], selector: Selector, exclude: Sequence[str], where: str) -> list[str]:
        self._check_patterns(selector.exclude, self._names(found), f"{where}.exclude")
        kept = [p for p in found if not self._matches(p, (*selector.exclude, *exclude))]
        kept.sort(key=self.flow.position)
        inside = range(-len(kept), len(kept))
        for i in selector.skip:
            if found and i not in inside:
                self.wrong(f"skip = {i} is out of range: the selector matches {_layers(len(kept))}", where)
        skipped = {kept[i] for i in selector.skip if i in inside}
        chosen = [p for p in kept if p not in skipped]
        if found and not chosen:
            self.wrong(f"The selector matches {_layers(len(found))}, and exclude and skip leave none", where)
        return chosen

    def _claim(self, path: str, side: str, kind: str, key: str, where: str, options: Options, couple: bool) -> None:
        module, first = self.net.get_submodule(path), self.taken.setdefault((path, side, kind), key)
        refusal = self._refusal(module, path, side, kind) or _cannot_rank(module, path, options)
        if refusal:
            self.wrong(refusal, where)
        elif first != key:
            self.wrong(f'"{_site(path, side)}" already has a {kind} by {first}; use exclude in one of the rules', where)
        elif (filling := self._filling(module, path, side, kind, options, key, couple)) not in self.fillings:
            self.fillings.append(filling)

    def _filling(
        self, module: nn.Module, path: str, side: str, kind: str, options: Options, key: str, couple: bool
    ) -> Filling:
        return Filling(path, side, kind, options | of_channels(module, self.flow.of(path)[0]), key, couple)

    def _refusal(self, module: nn.Module, path: str, side: str, kind: str) -> str:
        problem = not_a_host(module)
        if problem:
            return f'"{path}" {problem}'
        if side not in host_of(module).sides:
            return f'"{path}" ({_name(module)}) has sites at {", ".join(host_of(module).sides)}; received at = "{side}"'
        if isinstance(module, Compressed) and module.slot(side, kind) is not None:
            return f'"{_site(path, side)}" already has a {kind} of its own; exclude it'
        return self._refusal_in_flow(path, side, kind)

    def _refusal_in_flow(self, path: str, side: str, kind: str) -> str:
        calls = self.flow.of(path)
        if not calls:
            return f'"{path}" never runs when the network does; exclude it'
        if side != "weight" and len(calls) > 1:
            at = " and ".join(f"{call.index}" for call in calls)
            return (
                f'"{path}" runs {len(calls)} times in one forward (operations {at}), so its {side} is no one place; '
                f"{self._instead(path, side)}"
            )
        if len(calls[0].shape) < 2:
            return f'"{path}" has an output of shape {calls[0].shape}, without channels; exclude it'
        if len(calls[0].layout) != 1:
            along = (
                f"lie along the dimensions {' and '.join(map(str, calls[0].layout))}" if calls[0].layout else "are one"
            )
            return (
                f'"{path}" has an output of shape {calls[0].shape}, whose channels {along}, not along one; exclude it'
            )
        if kind == "mask" and side != "input" and path in self.flow.output_paths():
            return f'"{_site(path, side)}" holds the network\'s output channels, which cannot be pruned; exclude it'
        return ""

    def _instead(self, path: str, side: str) -> str:
        """What works in place of a layer that runs several times."""
        if side == "output":
            return 'use the inputs of the convolutions behind it: types = ["Conv2d"], at = "input"'
        feeding = [self.flow.source(call) for call in self.flow.of(path)]
        outputs = [call.path for call in feeding if call is not None and self._has_output(call)]
        if len(outputs) == len(feeding):
            listed = ", ".join(f'"{each}"' for each in outputs)
            return f'exclude it, and use the outputs of what feeds it: paths = [{listed}], at = "output"'
        return (
            'exclude it, of which only the weight can be a site (at = "weight"), or make a layer for each of its calls'
        )

    def _has_output(self, call: Call) -> bool:
        return bool(call.path) and len(self.flow.of(str(call.path))) == 1 and not not_a_host(call.layer or nn.Module())


def _cannot_rank(module: nn.Module, path: str, options: Options) -> str:
    importance = IMPORTANCES.get(options.get("importance", ""))
    problem = importance.problem(module) if importance is not None else ""
    return problem and f'"{path}" ({_name(module)}) {problem}; exclude it'


def _site(path: str, side: str) -> str:
    return f"{path}.{side}".lstrip(".")


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"


def _is_a(module: nn.Module, types: Sequence[str]) -> bool:
    names = {cls.__name__ for cls in type(module).__mro__}
    return bool(names & set(types)) if types else isinstance(module, (*HOSTS, Compressed))


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _no_type(net: nn.Module, name: str) -> str:
    present = sorted({_name(m) for m in net.modules() if isinstance(m, (*HOSTS, Compressed))})
    near = closest(name, present)
    hint = f'Nearest: "{near}"' if near else f"It has {', '.join(present) or 'none that can have a site'}"
    return f"The network has no layer of type {name!r}. {hint}"


def _table_mistakes(name: str, table: PerPath, deciding: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """What is wrong with a table, given which of its patterns decide for each of the rule's layers."""
    paths = list(deciding)
    without = [path for path in paths if not deciding[path]]
    if without:
        more = f", as of {len(without) - 1} more of the rule's layers" if len(without) > 1 else ""
        yield (
            f'No pattern of {name} matches "{without[0]}"{more}; add one that does, or "*" = ... for all that no other '
            "matches"
        )
    for path in paths:
        if len(deciding[path]) > 1:
            several = " and ".join(f'"{pattern}"' for pattern in deciding[path])
            yield (
                f'"{path}" matches {several}, of which none is the narrower; give it a pattern of its own, '
                f'"{path}" = ...'
            )
    for pattern in table.to_table():
        if not any(fnmatchcase(path, pattern) for path in paths):
            if paths:
                yield _no_path(paths, pattern).replace("No layer", "No layer of the rule", 1)
        elif not any(pattern in patterns for patterns in deciding.values()):
            yield f'"{pattern}" decides for no layer: narrower patterns match all of its own; leave it out'


def _no_path(paths: Sequence[str], pattern: str) -> str:
    # the nearest pattern is the same pattern with one component taken from a real path
    words = {word for path in paths for word in path.split(".")}
    parts = pattern.split(".")
    candidates = {".".join([*parts[:i], word, *parts[i + 1 :]]) for i in range(len(parts)) for word in words}
    candidates |= set(paths)
    fitting = [p for p in sorted(candidates) if any(_matches(path, [p]) for path in paths)]
    near = similar(pattern, fitting)
    count = sum(fnmatchcase(path, near[0]) for path in paths) if near else 0
    hint = f'Nearest: "{near[0]}" ({_layers(count)})' if near else f'One of them is "{paths[0]}"'
    return f'No layer matches "{pattern}". {hint}'


def _name(module: nn.Module) -> str:
    return next((plain.__name__ for plain in HOSTS if isinstance(module, plain)), type(module).__name__)


def of_channels(module: nn.Module, call: Call) -> Options:
    """What a compressor is told about its channels where the host, or what becomes one, does not know it."""
    if isinstance(module, WEIGHTED_HOSTS):
        return {}
    return {"channels": call.count} | ({} if call.axis == 1 else {"axis": call.axis})


def host_of(module: nn.Module) -> type[Compressed]:
    """The class that ``module`` is or becomes when it gets a site."""
    if isinstance(module, Compressed):
        return type(module)
    return next(host for plain, host in HOSTS.items() if isinstance(module, plain))


def fill(net: nn.Module, filling: Filling) -> None:
    """Make a layer of ``net`` a host, if it is not one yet, and fill one of its slots."""
    module: Any = net.get_submodule(filling.path)
    if not isinstance(module, Compressed):
        # Same object, new class: its hooks, parameters, and every place that shares it stay as they are.
        module.__class__ = host_of(module)
        module.open_slots()
    add = module.add_mask if filling.kind == "mask" else module.add_quant
    in_place_of(module, add(filling.side, **filling.options), net)


def not_a_host(module: nn.Module) -> str:
    """Why ``module`` cannot have a site; empty if it can."""
    plain = next((plain for plain in HOSTS if isinstance(module, plain)), None)
    if plain is None:
        return (
            f"is a {type(module).__name__}, which cannot have a site; those that can are convolutions and linear "
            "layers, and what keeps channels: normalizations, activations, pooling, dropout, Upsample, Identity, Add "
            "and Concat"
        )
    if getattr(module, "return_indices", False):
        return f"is a {type(module).__name__} that returns the places of its maxima, too, which cannot have a site"
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1:
        return f"is a LayerNorm over the dimensions {module.normalized_shape}, not over channels alone"
    if parametrize.is_parametrized(module):
        return "has a parametrized weight; remove it first with torch.nn.utils.parametrize.remove_parametrizations"
    own = [name for name in ("forward", "_conv_forward") if _overrides(module, name, plain)]
    if own and not isinstance(module, Compressed):
        return f"is a {type(module).__name__} with its own {own[0]}, which a {plain.__name__} host would not run"
    return ""


def _overrides(module: nn.Module, name: str, plain: type[nn.Module]) -> bool:
    return name in vars(module) or getattr(type(module), name, None) is not getattr(plain, name, None)
