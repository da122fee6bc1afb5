"""Groups of channels as rules of a spec, in the tables in which people write them."""

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any

from qprune.budget.groups import Group

Rule = dict[str, Any]


def prune_rules(
    dropped: Mapping[Group, int], importance: str, schedule: Mapping[str, Any], prefix: str = ""
) -> list[Rule]:
    """Rules that drop so many channels of each group: one for those whose masks agree, one for the others.

    The schedule is the table of one, without its sparsity. The prefix is that of paths where the groups are those of a
    part of the network: ``"generator."``.
    """
    rules = []
    for coupled in (True, False):
        shares = {group: _share(count, group.channels) for group, count in dropped.items() if group.coupled == coupled}
        if shares:
            table = {f"{prefix}{path}": share for group, share in shares.items() for path in group.members}
            rule: Rule = {"sites": _sites(table, "output"), "sparsity": _one_or_table(table), "importance": importance}
            rules.append(rule | ({"couple": True} if coupled else {}) | {"schedule": dict(schedule)})
    return rules


def quantize_rules(bits: Mapping[Group, int], starts: tuple[Any, Any], prefix: str = "", **options: Any) -> list[Rule]:
    """Rules that round each group to its bits: the weights that make it, per channel, and its values.

    ``starts`` are those of quantizers of values, and of weights; options go into every rule.
    """
    values, weights = starts
    made = {f"{prefix}{path}": width for group, width in bits.items() for path in group.weights}
    held = {f"{prefix}{path}": width for group, width in bits.items() for path in group.members}
    rules = []
    if made:
        rules.append({"sites": _sites(made, "weight"), "bits": _one_or_table(made), "per": "channel", "start": weights})
    if held:
        rules.append({"sites": _sites(held, "output"), "bits": _one_or_table(held), "start": values})
    return [rule | options for rule in rules]


def _sites(paths: Iterable[str], at: str) -> list[Rule]:
    return [{"paths": list(paths), "at": at}]


def _one_or_table(numbers: Mapping[str, Any]) -> Any:
    return next(iter(numbers.values())) if len(set(numbers.values())) == 1 else dict(numbers)


def _share(dropped: int, channels: int) -> float:
    """A short number of which a rule makes so many channels, ``floor(share * channels)``."""
    return min(ceil(1e4 * dropped / channels - 1e-6) / 1e4, 0.9999)
