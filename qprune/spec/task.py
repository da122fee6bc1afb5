"""What a run learns to do: the ``[task]`` table."""

from attrs import field, frozen

from qprune.spec.values import TABLE, WORD, Table


@frozen
class TaskSpec:
    """The ``[task]`` table: loss and metrics.

    Every key not named below is an argument of the task's own class and lands in ``options``.

    Attributes:
        name: ``"classification"``, ``"segmentation"``, ``"cyclegan"`` or ``"pix2pix"``, see `qprune.tasks`.
        options: of the task, such as ``label_smoothing`` or ``hardest``.

    Raises:
        SpecError: for a wrong type.

    Example:
        >>> TaskSpec("segmentation", {"hardest": 0.25}).options
        {'hardest': 0.25}
    """

    name: str = field(default="classification", validator=WORD)
    options: Table = field(factory=dict, validator=TABLE, hash=False, metadata={"free": True})
