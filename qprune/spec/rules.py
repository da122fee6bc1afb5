"""The rules of a spec: which sites are pruned or quantized, how much, and when."""

from typing import Any, get_args

from attrs import evolve, field, frozen, validators

from qprune.errors import SpecError
from qprune.importances import fitting
from qprune.numerics import RANGES, numerics_of
from qprune.per_path import PerPath, per_path, problems
from qprune.schedules import PruneSchedule, QuantizeFrom
from qprune.spec.values import (
    STRINGS,
    SWITCH,
    WHOLES,
    Requirement,
    as_tuple,
    is_whole,
    items,
    listed,
    must,
    one_of,
    shown,
    whole,
)

PLACES = ("input", "weight", "output")


@frozen
class Selector:
    """Names sites: modules of some types, or under some paths, and the side on which the compressor acts.

    A module is selected if its class name is in ``types`` and its path matches one of ``paths``; where one of the two
    is empty, the other decides alone; both may not be empty.

    Attributes:
        types: class names such as ``"Conv2d"`` or ``"ReLU6"``.
        paths: patterns on module paths, ``*`` and ``?`` as in file names (``"*.post_residual.*"``).
        at: ``"input"``, ``"weight"`` or ``"output"`` of the module.
        skip: places in this selector's own matches, in data-flow order, that are left out: ``[0, -1]`` leaves out the
            first and the last.
        exclude: patterns on module paths that are left out.

    Raises:
        SpecError: for a wrong type, an unknown ``at``, or neither types nor paths.

    Example:
        >>> Selector(types=("Conv2d",), at="weight", skip=(-1,)).at
        'weight'
    """

    types: tuple[str, ...] = field(default=(), converter=as_tuple, validator=STRINGS)
    paths: tuple[str, ...] = field(default=(), converter=as_tuple, validator=STRINGS)
    at: str = field(kw_only=True, validator=one_of(*PLACES))
    skip: tuple[int, ...] = field(default=(), converter=as_tuple, validator=WHOLES)
    exclude: tuple[str, ...] = field(default=(), converter=as_tuple, validator=STRINGS)

    def __attrs_post_init__(self) -> None:
        if not self.types and not self.paths:
            raise SpecError('A site needs "types" or "paths"; paths = ["*"] selects every module')


_SITES = items(lambda v: isinstance(v, Selector), 'a list of tables such as [{ types = ["ReLU"], at = "output" }]')


def _check_sites(instance: Any, attribute: Any, value: Any) -> None:
    _SITES(instance, attribute, value)
    if not value:
        raise SpecError("sites must name at least one selector; received []")


_SOME_SITES = Requirement(_SITES.words, _check_sites)


def _check_bits(_: Any, __: Any, value: Any) -> None:
    for problem in problems(value, lambda bits: is_whole(bits) and 2 <= bits <= 8):
        raise SpecError(f"bits must be a whole number from 2 to 8; {problem}")


_BITS = Requirement("a whole number from 2 to 8, or a table of them", _check_bits)


@frozen
class PruneRule:
    """A ``[[prune]]`` table: drop channels at these sites.

    In TOML the schedule's ``sparsity``, ``start`` and ``finish`` may stand on the rule itself. Where a convolution of
    groups reads or makes the channels, as many are kept of each group.

    Attributes:
        sites: the selectors, see `Selector`, whose matches are united.
        schedule: when and how much: ``kind`` is ``"layerwise"``, ``"one-shot"``, ``"stepwise"`` or ``"inherited"``
            (keep the frozen masks that come with ``init``), the other keys are the arguments of that schedule. Its
            ``sparsity`` is one number, or a table from patterns on module paths, of which exactly one must decide for
            every layer that the rule chooses, see `qprune.per_path.PerPath`.
        importance: how channels are ranked, a word of `qprune.importances.IMPORTANCES`, such as ``"activation-l1"``
            (mean magnitude).
        multiple_of: kept channels are rounded up to a multiple of this, for kernels that need it.
        exclude: patterns on module paths that are left out of all selectors.
        couple: sites whose channels meet in a sum, a product or a chain of depthwise convolutions share one mask, see
            `qprune.coupling`.

    Raises:
        SpecError: for a wrong type, a value out of range, or an importance that does not fit the sites, see
            `qprune.importances.fitting`.

    Example:
        >>> from qprune.schedules import OneShot
        >>> PruneRule((Selector(("ReLU",), at="output"),), OneShot(sparsity=0.5, at="2ep")).importance
        'activation-l1'
        >>> schedule = OneShot(sparsity={"stage1.*": 0.3, "*": 0.5}, at="2ep")
        >>> PruneRule((Selector(("ReLU",), at="output"),), schedule).for_layer("stage1.act").schedule.sparsity
        0.3
    """

    sites: tuple[Selector, ...] = field(converter=as_tuple, validator=_SOME_SITES)
    schedule: PruneSchedule = field(
        validator=must(lambda v: isinstance(v, get_args(PruneSchedule)), 'a table such as { kind = "layerwise", ... }')
    )
    importance: str = field(default="activation-l1", validator=one_of(*fitting(*PLACES)))
    multiple_of: int = field(default=1, validator=whole(1))
    exclude: tuple[str, ...] = field(default=(), converter=as_tuple, validator=STRINGS)
    couple: bool = field(default=False, validator=SWITCH)

    def __attrs_post_init__(self) -> None:
        for site in self.sites:
            fits = fitting(site.at)
            if self.importance not in fits:
                raise SpecError(
                    f'importance must be {listed(fits)} for a site at = "{site.at}"; received {shown(self.importance)}'
                )

    @property
    def table(self) -> tuple[str, PerPath] | None:
        """What it holds by patterns, if anything: the key ``"sparsity"`` and its table."""
        sparsity = getattr(self.schedule, "sparsity", None)
        return ("sparsity", sparsity) if isinstance(sparsity, PerPath) else None

    def for_layer(self, path: str) -> "PruneRule":
        """The rule as it holds for the layer at ``path``, with one sparsity."""
        return evolve(self, schedule=self.schedule.for_layer(path))


@frozen
class QuantizeRule:
    """A ``[[quantize]]`` table: round the values at these sites to ``2**bits`` levels.

    In TOML, ``start = "0.5ep"`` on the rule stands for ``schedule = { kind = "quantize-from", start = "0.5ep" }``.

    Attributes:
        sites: the selectors, see `Selector`, whose matches are united.
        bits: 2 to 8, or a table of them from patterns on module paths, of which exactly one must decide for every layer
            that the rule chooses, see `qprune.per_path.PerPath`.
        per: one range for the whole ``"tensor"`` or one for each ``"channel"``.
        symmetric: zero point 0 and a range of equal sides; None: true at weight sites, false at the others.
        gradient: ``"straight"`` (passes unchanged) or ``"clipped"`` (zero outside the range); None: straight, clipped
            where the range is learned.
        range: ``"measured"`` while training goes on, or ``"learned"`` with it, see `qprune.layers.LearnedQuant`.
        schedule: when values begin to be quantized, and how long the range is measured before.
        exclude: patterns on module paths that are left out of all selectors.

    Raises:
        SpecError: for a wrong type, a value out of range, or a gradient that does not go with the range.

    Example:
        >>> sites = (Selector(("Conv2d",), at="weight"),)
        >>> QuantizeRule(sites, bits=4, per="channel", schedule=QuantizeFrom("0.5ep")).bits
        4
    """

    sites: tuple[Selector, ...] = field(converter=as_tuple, validator=_SOME_SITES)
    bits: int | PerPath = field(converter=per_path, validator=_BITS)
    per: str = field(default="tensor", validator=one_of("tensor", "channel"))
    symmetric: bool | None = field(
        default=None, validator=must(lambda v: v is None or isinstance(v, bool), "true or false")
    )
    gradient: str | None = field(default=None, validator=validators.optional(one_of("straight", "clipped")))
    range: str = field(default="measured", kw_only=True, validator=one_of(*RANGES))
    schedule: QuantizeFrom = field(
        kw_only=True,
        validator=must(lambda v: isinstance(v, QuantizeFrom), 'a table such as { kind = "quantize-from", ... }'),
    )
    exclude: tuple[str, ...] = field(default=(), converter=as_tuple, validator=STRINGS)

    def __attrs_post_init__(self) -> None:
        if problem := self.problem("default"):
            raise SpecError(problem)

    def problem(self, numerics: str) -> str:
        """Why the rule does not go with these numerics, in a sentence; empty if it does.

        Args:
            numerics: a word of `qprune.numerics.NUMERICS`.

        Example:
            >>> rule = QuantizeRule((Selector(("ReLU",), at="output"),), 4, range="learned", schedule=QuantizeFrom(9))
            >>> rule.problem("paper")
            'range = "learned" needs numerics = "default" or "exact"; received numerics = "paper"'
        """
        ranging = RANGES[self.range]
        return ranging.problem(numerics, numerics_of(numerics), self.gradient or ranging.gradients[0])

    @property
    def table(self) -> tuple[str, PerPath] | None:
        """What it holds by patterns, if anything: the key ``"bits"`` and its table."""
        return ("bits", self.bits) if isinstance(self.bits, PerPath) else None

    def for_layer(self, path: str) -> "QuantizeRule":
        """The rule as it holds for the layer at ``path``, with one number of bits.

        Example:
            >>> sites = (Selector(("Conv2d",), at="weight"),)
            >>> rule = QuantizeRule(sites, bits={"stem": 8, "*": 4}, schedule=QuantizeFrom("0.5ep"))
            >>> rule.for_layer("stem").bits, rule.for_layer("stage1.0.conv").bits
            (8, 4)
        """
        return evolve(self, bits=self.bits.at(path)) if isinstance(self.bits, PerPath) else self


PRUNE_RULES = items(lambda v: isinstance(v, PruneRule), "a list of tables ([[prune]])")
QUANTIZE_RULES = items(lambda v: isinstance(v, QuantizeRule), "a list of tables ([[quantize]])")


@frozen
class Rules:
    """The rules for one network.

    Attributes:
        prune: the ``[[prune]]`` tables.
        quantize: the ``[[quantize]]`` tables.
    """

    prune: tuple[PruneRule, ...] = field(default=(), converter=as_tuple, validator=PRUNE_RULES)
    quantize: tuple[QuantizeRule, ...] = field(default=(), converter=as_tuple, validator=QUANTIZE_RULES)


# keys that stand on a rule and belong to its schedule
LIFTED: dict[type, tuple[str, ...]] = {PruneRule: ("sparsity", "start", "finish"), QuantizeRule: ("start",)}
