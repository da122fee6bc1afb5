"""The ``[train.teacher]`` table: a trained network whose outputs are a term of the loss."""

from attrs import field, frozen, validators

from qprune.spec.values import POSITIVE, STRINGS, as_float, as_tuple, must, number

_RUN = must(
    lambda v: isinstance(v, str) and (v == "" or bool(v.strip())) and "\0" not in v,
    'the name or folder of a run, such as "digits/baseline", or "" for a network that is handed over',
)


@frozen
class TeacherSpec:
    """The ``[train.teacher]`` table.

    Attributes:
        run: name or folder of the run whose model teaches; by default the run that ``init`` names, if its network is
            dense; ``""`` for a network that the user hands over, ``teacher=``.
        weight: share of the teacher in the loss, from 0 to 1; the task's own loss has the rest.
        temperature: logits of both networks are divided by it before they are compared, greater than 0. Generators are
            compared by their images, without one.
        layers: module paths in both networks, such as ``["generator_ab.blocks.3"]``, whose outputs are compared too.

    Raises:
        SpecError: for a wrong type or a value out of range.

    Source: Hinton et al., 2015, arXiv:1503.02531; for layers Jin et al., 2021, arXiv:2103.03467.

    Example:
        >>> TeacherSpec("digits/baseline")
        TeacherSpec(run='digits/baseline', weight=0.9, temperature=4.0, layers=())
    """

    run: str | None = field(default=None, validator=validators.optional(_RUN))
    weight: float = field(
        default=0.9, converter=as_float, validator=number("a number in [0, 1]", lambda v: 0 <= v <= 1)
    )
    temperature: float = field(default=4.0, converter=as_float, validator=POSITIVE)
    layers: tuple[str, ...] = field(default=(), converter=as_tuple, validator=STRINGS)
