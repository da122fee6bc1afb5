"""The spec of a run: one value that says everything."""

from pathlib import PurePosixPath
from typing import Any

from attrs import Factory, field, frozen, validators

from qprune.numerics import NUMERICS, Numerics
from qprune.spec.network import ModelSpec
from qprune.spec.recipe import DataSpec, TrainSpec
from qprune.spec.rules import PRUNE_RULES, QUANTIZE_RULES, PruneRule, QuantizeRule
from qprune.spec.task import TaskSpec
from qprune.spec.values import SWITCH, WORD, as_tuple, must, one_of, whole


def _is_path(value: Any) -> bool:
    """Whether file systems can have a file of that name: parts of up to 255 bytes, 1,024 in all."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    parts = [len(part.encode(errors="surrogatepass")) for part in PurePosixPath(value).parts]
    return bool(parts) and max(parts) <= 255 and sum(parts) <= 1024


def _is_run_name(value: Any) -> bool:
    if not _is_path(value) or "\\" in value or not value.isprintable():
        return False
    path = PurePosixPath(value)
    return not path.is_absolute() and ".." not in path.parts and str(path) == value and value != "."


_A_RUN = 'the name of a run, such as "digits/baseline", with up to 255 bytes between slashes'
_ONE_LINE = must(lambda v: isinstance(v, str) and "\n" not in v, "one line of text")


@frozen(kw_only=True)
class Spec:
    """Everything about one run. The fields are the keys of its TOML file, in the same order.

    Attributes:
        name: the run's name and its folder below the root of runs, such as ``"digits/a75_w4a4"``; by default the file's
            path below the folder ``specs``.
        about: one line that says what the run shows.
        init: name of the run whose model this one starts from.
        published: whether it reproduces an experiment of the paper.
        aka: the name that the experiment has there.
        seed: of everything random, from 0 to ``2**63 - 1``.
        numerics: of the quantizers: ``"default"``, ``"paper"`` for the published rules, or ``"exact"``: normalizations
            of the run that it starts from are folded at its start, and the exported file computes the same bits.
        complete: also quantize to 8 bits what convolutions, sums and concatenations read and no rule quantizes, so
            that all of them have an integer form when exported.
        data: the images, see `DataSpec`; left out where the user hands data over.
        task: what is minimized and measured, see `TaskSpec`; classification by default.
        model: the network, see `ModelSpec`; left out where the user hands a network over.
        train: how it is trained, see `TrainSpec`.
        prune: the ``[[prune]]`` rules, see `PruneRule`.
        quantize: the ``[[quantize]]`` rules, see `QuantizeRule`.

    Raises:
        SpecError: for a wrong type or a value out of range.

    Example:
        >>> from qprune.spec import read_spec
        >>> read_spec("digits/baseline", {"train.batch": "32"}).train.batch
        32
    """

    name: str = field(default="unnamed", validator=must(_is_run_name, 'a relative path such as "digits/baseline"'))
    about: str = field(default="", validator=_ONE_LINE)
    init: str | None = field(default=None, validator=validators.optional(must(_is_path, _A_RUN)))
    published: bool = field(default=False, validator=SWITCH)
    aka: str | None = field(default=None, validator=validators.optional(WORD))
    seed: int = field(default=0, validator=whole(0, most=2**63 - 1))
    numerics: str = field(default="default", validator=one_of(*NUMERICS))
    complete: bool = field(default=False, validator=SWITCH)
    data: DataSpec = field(default=Factory(DataSpec), validator=must(lambda v: isinstance(v, DataSpec), "a table"))
    task: TaskSpec = field(default=Factory(TaskSpec), validator=must(lambda v: isinstance(v, TaskSpec), "a table"))
    model: ModelSpec = field(default=Factory(ModelSpec), validator=must(lambda v: isinstance(v, ModelSpec), "a table"))
    train: TrainSpec = field(validator=must(lambda v: isinstance(v, TrainSpec), "a table"))
    prune: tuple[PruneRule, ...] = field(default=(), converter=as_tuple, validator=PRUNE_RULES)
    quantize: tuple[QuantizeRule, ...] = field(default=(), converter=as_tuple, validator=QUANTIZE_RULES)

    @property
    def arithmetic(self) -> Numerics:
        """The rules of quantizers: the object that the word ``numerics`` stands for."""
        return NUMERICS[self.numerics]

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain tables, as a TOML file would hold it; values at their default are left out.

        Example:
            >>> from qprune.spec import read_spec
            >>> spec = read_spec("digits/baseline")
            >>> read_spec(spec.to_dict()) == spec
            True
        """
        from qprune.spec.writing import to_table  # writing needs this class

        return to_table(self)
