"""The ``[task]`` table: the kind of problem and its options."""

from attrs import field, frozen

from qprune.spec.values import TABLE, Table, must


@frozen
class TaskSpec:
    """The ``[task]`` table: loss and metrics.

    Every key not named below is an argument of the task's own class and lands in ``options``.

    Attributes:
        name: ``"classification"``, ``"segmentation"``, ``"cyclegan"`` or ``"pix2pix"``, see `qprune.tasks`; empty for
            one of the user's own, handed over as ``task=`` to `qprune.fit`.
        options: of the task, such as ``label_smoothing`` or ``hardest``.

    Raises:
        SpecError: for a wrong type.

    Example:
        >>> TaskSpec("segmentation", {"hardest": 0.25}).options
        {'hardest': 0.25}
    """

    name: str = field(default="classification", validator=must(lambda v: isinstance(v, str), "a string"))
    options: Table = field(factory=dict, validator=TABLE, hash=False, metadata={"free": True})

    @property
    def is_own(self) -> bool:
        """Whether the task is none that the spec knows, but the user's own.

        Example:
            >>> TaskSpec("").is_own, TaskSpec("pix2pix").is_own
            (True, False)
        """
        return not self.name
