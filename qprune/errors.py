"""Every error qprune raises on purpose. Each says what is wrong, the value it met, and the way out."""

from collections.abc import Iterable

from qprune.escaping import visible

MOST, WIDEST = 50, 2000  # mistakes in one message, and characters of one


def as_lines(mistakes: Iterable[str]) -> str:
    """Mistakes as one message, a line each, long ones cut: the first 50, and how many more there are.

    Example:
        >>> as_lines(["a is missing.", "b is missing."])
        'a is missing.\\nb is missing.'
    """
    lines = [line if len(line) <= WIDEST else f"{line[: WIDEST - 1]}…" for line in mistakes]
    more = [f"... and {len(lines) - MOST:,} more mistakes."] if len(lines) > MOST else []
    return "\n".join([*lines[:MOST], *more])


class QpruneError(Exception):
    """Base of all errors that qprune raises on purpose.

    Control characters in the text, which may be that of a file, are written out.

    Attributes:
        mistakes: the lines of the message; errors about specs and plans have one for each mistake.
    """

    @property
    def mistakes(self) -> tuple[str, ...]:
        """The lines of the message."""
        return tuple(str(self).split("\n"))

    def __str__(self) -> str:
        return visible(super().__str__(), keep="\n\t")


class SpecError(QpruneError, ValueError):
    """A spec that cannot be read: every mistake found, one per line."""


class UnknownSpecError(SpecError):
    """A name that no spec has."""


class PlanError(QpruneError, ValueError):
    """Rules that cannot work on this network or in this length of training."""


class CheckpointError(QpruneError, RuntimeError):
    """A run folder or checkpoint that cannot be used as asked."""


class DataError(QpruneError, ValueError):
    """A data set that is missing, empty or malformed; the file is named."""


class TrainingError(QpruneError, RuntimeError):
    """Training that cannot go on: a loss or a score is no longer a number, or a backward pass comes too late."""


class ShrinkError(QpruneError, RuntimeError):
    """A network that cannot be shrunk, or whose shrunk form would compute something else."""


class ExportError(QpruneError, RuntimeError):
    """A network that cannot be written as an ONNX file, or a file that does not compute what the network does."""
